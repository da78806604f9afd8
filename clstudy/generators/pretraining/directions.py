"""Semantic directions in w: how the latent of a face changes with what the face does."""

from __future__ import annotations

import numpy as np

from clstudy.generators.pretraining.training_views import EXPRESSIONS, Views
from clstudy.identities.cameras import view_angles


def semantic_directions(w: np.ndarray, views: Views) -> dict[str, np.ndarray]:
    """For every expression, the change of w per unit of its weight: float32 ``[w_dim]``.

    Least squares over the moments, within people (their means are taken off), with all expressions and the angles of
    the camera that the encoder saw through together, so that a smile is not credited with what goes with smiling.

    Args:
        w: ``[m, w_dim]``, the encoder's, of the moments' first cameras.
        views: the moments.
    """
    causes = np.concatenate([views.expressions, view_angles(views.cameras[:, 0]) / 45], axis=1)
    slopes, *_ = np.linalg.lstsq(_within(causes, views.people), _within(w, views.people), rcond=None)
    return {name: slopes[place].astype(np.float32) for place, name in enumerate(EXPRESSIONS)}


def _within(values: np.ndarray, people: np.ndarray) -> np.ndarray:
    """Values ``[m, d]`` without their people's means."""
    _, who = np.unique(people, return_inverse=True)
    totals = np.zeros((who.max() + 1, values.shape[1]))
    np.add.at(totals, who, values)
    return values - (totals / np.bincount(who)[:, None])[who]
