"""Scores of faces made at an age: who it is, how old, how like the truth, and how much of it the prior alone has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from clstudy.faces.ages import AgeEstimator
from clstudy.faces.embedding import IdentityEmbedder
from clstudy.generators.ageing import split_latents
from clstudy.metrics.lpips import LPIPS
from clstudy.records.rows import Row
from clstudy.training.evaluation import Entry, Scores
from clstudy.workloads.age_tests import Asked
from clstudy.workloads.ageing import AGE_ERROR, AGED_IDENTITY, AGED_LPIPS, ERROR_OVER_PRIOR, IDENTITY_GAIN

Values = Mapping[str, Tensor]
"""Metric -> values ``[n]``."""

_BATCH = 16
_MOST_REMEMBERED = 1000
_OVER_PRIOR = ((IDENTITY_GAIN, AGED_IDENTITY), (ERROR_OVER_PRIOR, AGE_ERROR))


@dataclass
class AgeScores:
    """The networks that score, and the prior's scores, which are the same for every stage."""

    embedder: IdentityEmbedder
    estimator: AgeEstimator
    lpips: LPIPS
    _of_prior: dict[tuple[str, ...], Values] = field(init=False, default_factory=dict)

    def rows(self, asked: Asked, images: Tensor, by_prior: Callable[[Tensor], Tensor], cell: Entry) -> Iterator[Row]:
        """Rows of what was made.

        Args:
            asked: what was asked for.
            images: what was made ``[n, 3, s, s]``, not clamped.
            by_prior: makes what the prior alone makes, of latents.
            cell: the R[t, k] that they are of.

        Raises:
            NotFiniteError: a score is NaN or infinite.
        """
        scores, prior = dict(self.of(asked, images)), self._prior(asked, by_prior)
        for gain, metric in _OVER_PRIOR:
            scores[gain.name] = scores[metric.name] - prior[metric.name]
        for name, values in scores.items():
            yield from cell.rows(Scores(asked.protocol, name, asked.names, values))

    def of(self, asked: Asked, images: Tensor) -> Values:
        """Scores of images ``[n, 3, s, s]``; LPIPS only where the truth is known."""
        shown = images.clamp(-1, 1)
        ages = split_latents(asked.latents)[1].cpu()
        scores = {
            AGED_IDENTITY.name: torch.einsum("nrd,nd->nr", asked.references, self.embedder(shown)).amax(dim=1),
            AGE_ERROR.name: (self.estimator(shown) - ages).abs(),
        }
        if asked.truth is not None:
            truth = torch.split(asked.truth, _BATCH)
            each = [self.lpips(one, true).cpu() for one, true in zip(torch.split(shown, _BATCH), truth, strict=True)]
            scores[AGED_LPIPS.name] = torch.cat(each)
        return scores

    def _prior(self, asked: Asked, by_prior: Callable[[Tensor], Tensor]) -> Values:
        if asked.key not in self._of_prior:
            if len(self._of_prior) >= _MOST_REMEMBERED:
                self._of_prior.clear()
            self._of_prior[asked.key] = self.of(asked, by_prior(asked.latents))
        return self._of_prior[asked.key]
