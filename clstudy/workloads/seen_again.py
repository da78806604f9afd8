"""Test photos' reconstructions seen again: by other cameras, from the sides, edited, and as depth; and their scores.

A 3D generator's reconstruction is more than the photo: the same latent must show the same person from elsewhere. What
is compared with what is said in ``clstudy.settings.metric_facts.PROTOCOLS``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clstudy.faces.smiles import MouthLift
from clstudy.generators.eg3d import UsualCamera
from clstudy.generators.eg3d_copies import SeenEG3D, cropped_like, usual_view
from clstudy.images import to_uint8
from clstudy.metrics.base import Metric
from clstudy.registry import Registry
from clstudy.settings.metric_facts import EDITED, NOVEL_VIEW, RECONSTRUCTION, TURNED
from clstudy.settings.profiles import ViewSettings
from clstudy.training.evaluation import Scores, Shown, TestSet
from clstudy.workloads.personalise_3d import DEPTH_CORRELATION, DEPTH_ERROR, EDIT_EFFECT

EditEffect = Callable[[np.ndarray], np.ndarray]
"""Measures in faces uint8 ``[n, s, s, 3]`` what an edit changes: ``[n]``."""

EDIT_EFFECTS: Registry[Callable[[int], EditEffect]] = Registry("effect of an edit")
"""Semantic direction -> maker of its measure, from a number of threads; a direction need not have one."""

EDIT_EFFECTS.register("smile")(MouthLift)


@dataclass(frozen=True)
class ViewedTestSet(TestSet):
    """Test photos of which more than the camera may be known.

    ``moments``: for every turn, each photo's partner in its moment (``known_geometry.partners``) and what metrics
    prepare from the partners' photos. ``depths [n, r, r]``: 0 where nothing is known.
    """

    moments: tuple[tuple[np.ndarray, Mapping[str, object]], ...] = ()
    depths: Tensor | None = None


@dataclass(frozen=True)
class Shots:
    """What is rendered of each latent: first as its photo was taken, then from the sides, edited, by partners' cameras.

    cameras ``[n, v, 25]``; ``shifts [v, w_dim]`` are added to latents. ``turned``, ``edited``, ``partners``: places
    among the v.
    """

    cameras: Tensor
    shifts: Tensor
    turned: range
    edited: range
    partners: range


def shots_of(test: ViewedTestSet, views: ViewSettings, camera: UsualCamera, direction: Tensor | None) -> Shots:
    """The shots of a test set.

    Args:
        test: with cameras.
        views: say how far faces are turned and how strongly they are edited.
        camera: the generator's usual one.
        direction: semantic direction ``[w_dim]``; None: faces are not edited.
    """
    own = test.cameras
    assert own is not None
    sides = (-views.turned_yaw, views.turned_yaw) if views.turned_yaw else ()
    turned = [cropped_like(usual_view(camera, yaw), own) for yaw in sides]
    edited = [] if direction is None else [own]
    partners = [own[torch.from_numpy(met)] for met, _ in test.moments]
    cameras = torch.stack([own, *turned, *edited, *partners], dim=1)
    first_edited = 1 + len(turned)
    first_partner = first_edited + len(edited)
    shifts = own.new_zeros(cameras.shape[1], test.start.shape[-1])
    if direction is not None:
        shifts[first_edited] = views.edit_strength * direction.to(own)
    return Shots(
        cameras,
        shifts,
        turned=range(1, first_edited),
        edited=range(first_edited, first_partner),
        partners=range(first_partner, cameras.shape[1]),
    )


@dataclass(frozen=True)
class Seen:
    """Images ``[n, v, 3, s, s]`` of shots, not clamped, and depths ``[n, 1, r, r]`` as the photos were taken."""

    images: Tensor
    depths: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, copies: Iterable[nn.Module], latents: Tensor, shots: Shots) -> Seen:
        """Render latents ``[n, w_dim]`` or ``[n, num_ws, w_dim]``, each by its copy (``SeenEG3D``) of the n."""
        images, depths = [], []
        for latent, cameras, copy in zip(latents, shots.cameras, copies, strict=True):
            assert isinstance(copy, SeenEG3D)
            found = copy.rendered(torch.stack([latent + shift for shift in shots.shifts]), cameras)
            images.append(found.image)
            depths.append(found.depth[0])
        return cls(torch.stack(images), torch.stack(depths))


def further_scores(
    test: ViewedTestSet, seen: Seen, shots: Shots, metrics: Sequence[Metric], effect: EditEffect | None
) -> Iterator[Scores]:
    """Scores of everything but the reconstruction itself.

    Args:
        test: the photos.
        seen: their reconstructions.
        shots: how they were seen.
        metrics: of the study.
        effect: what the edit changes; None: that is not measured.
    """
    shown = [Shown.of(seen.images[:, place]) for place in range(seen.images.shape[1])]
    for metric in metrics:
        if metric.in_reconstruction:
            yield from _novel_views(test, shown, shots, metric)
        if metric.of_identity:
            for protocol, places in ((TURNED, shots.turned), (EDITED, shots.edited)):
                if places:
                    each = [metric.pairs(shown[at].taken_by(metric), test.prepared[metric.name]) for at in places]
                    yield Scores(protocol, metric.name, test.digests, torch.stack(each).mean(0))
    if shots.edited and effect is not None:
        change = effect(to_uint8(shown[shots.edited[0]].clamped)) - effect(to_uint8(shown[0].clamped))
        yield Scores(EDITED, EDIT_EFFECT.name, test.digests, torch.from_numpy(change))
    if test.depths is not None:
        yield from _depths(test, seen.depths)


def _novel_views(test: ViewedTestSet, shown: Sequence[Shown], shots: Shots, metric: Metric) -> Iterator[Scores]:
    """A metric of each photo's reconstruction as the other cameras of its moment see it: mean over those cameras."""
    total, count = torch.zeros(len(test.digests), dtype=torch.float64), np.zeros(len(test.digests), int)
    for at, (met, prepared) in zip(shots.partners, test.moments, strict=True):
        values = metric.pairs(shown[at].taken_by(metric), prepared[metric.name]).double()
        others = met != np.arange(len(met))
        total += torch.where(torch.from_numpy(others), values, 0.0)
        count += others
    having = np.flatnonzero(count)
    if len(having):
        names = [test.digests[place] for place in having]
        yield Scores(NOVEL_VIEW, metric.name, names, total[having] / torch.from_numpy(count[having]))


def _depths(test: ViewedTestSet, found: Tensor) -> Iterator[Scores]:
    """Error and correlation of depths ``[n, 1, r, r]``, of photos of which some depth is known."""
    assert test.depths is not None
    known = test.depths.double().cpu()
    rendered = F.adaptive_avg_pool2d(found.double().cpu(), known.shape[-1])[:, 0]
    names, errors, correlations = [], [], []
    for name, made, true in zip(test.digests, rendered, known, strict=True):
        inside = true > 0
        if int(inside.sum()) > 2:
            names.append(name)
            errors.append((made[inside] - true[inside]).abs().mean())
            correlations.append(_correlation(made[inside], true[inside]))
    if names:
        yield Scores(RECONSTRUCTION, DEPTH_ERROR.name, names, torch.stack(errors))
        yield Scores(RECONSTRUCTION, DEPTH_CORRELATION.name, names, torch.stack(correlations))


def _correlation(found: Tensor, true: Tensor) -> Tensor:
    """Pearson's; 0 if either is flat."""
    found, true = found - found.mean(), true - true.mean()
    scale = found.norm() * true.norm()
    return scale if float(scale) == 0 else torch.div(torch.dot(found, true), scale)
