"""Computes losses along lines: the trainer's loss on the test photos for the network at each point."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor, nn

from clstudy.analysis.loss_path_numbers import GROUPS, PATH_SCHEMA
from clstudy.errors import UserError
from clstudy.identities.dataset import Identity
from clstudy.metrics.lpips import LPIPS, index_features
from clstudy.settings.profiles import Profile
from clstudy.study.loss_path.interpolation import interpolate
from clstudy.study.loss_path.lines import Point, Task, WeightLine
from clstudy.training.evaluation import TestSet
from clstudy.training.personalise import TrainingPhotos, photo_losses
from clstudy.training.rendering import rows_of
from clstudy.trial.requests import StageRequest
from clstudy.trial.stage_runner import StageRunner
from clstudy.workloads.personalised_generator import PersonalisedGenerator


def _personalised(runner: StageRunner) -> PersonalisedGenerator:
    """The runner's workload, if it minimises the loss that this module computes."""
    if not isinstance(runner.workload, PersonalisedGenerator):
        raise UserError(
            f"the study's workload is {runner.basis.profile.workload!r}; loss paths are defined for personalised "
            "generators (the workload 'personalise') only"
        )
    return runner.workload


class Networks:
    """Builds the networks of tasks; keeps the weights of the last two stages.

    Raises:
        UserError: the study does not personalise a generator.
    """

    def __init__(self, runner: StageRunner, requests: Mapping[str, StageRequest]):
        self._runner = runner
        self._requests = requests
        self.workload = _personalised(runner)
        self._weights: dict[str, dict[str, Tensor]] = {}

    def build(self, task: Task) -> nn.Module:
        """The frozen network at the task's point."""
        line = task.line
        keys = (line.start_key, line.end_key)
        self._weights = {key: self._weights.get(key) or self._of(key) for key in keys}
        weights = interpolate(self._weights[line.start_key], self._weights[line.end_key], task.alpha, task.group)
        return self.workload.generator.fresh(weights).requires_grad_(False)

    def _of(self, key: str) -> dict[str, Tensor]:
        weights = self._runner.trainer.stored_weights(key)
        if weights is not None:
            return weights
        return self._runner.trainer.weights(self._requests[key])


@torch.no_grad()
def photo_batches(module: nn.Module, test: TestSet, profile: Profile, lpips: LPIPS) -> Iterator[Tensor]:
    """The trainer's loss of each test photo at its starting latent, one batch ``[m]`` per forward pass."""
    for rows in torch.split(torch.arange(len(test.images)), profile.inversion.batch_size):
        photos = TrainingPhotos(
            test.start[rows], test.images[rows], index_features(test.features, rows), rows_of(test.cameras, rows)
        )
        yield photo_losses(module, photos, profile.trainer, lpips)


def compute_losses(
    networks: Networks,
    runner: StageRunner,
    people: Mapping[str, Identity],
    todo: Sequence[Task],
    on_pass: Callable[[], None],
) -> dict[tuple[Point, int], float]:
    """(point, test timestamp) -> mean loss over its test photos."""
    found = {}
    for task in todo:
        module = networks.build(task)
        for k in task.timestamps:
            batches = []
            # the seed only matters for synthesis, which is not used here
            for losses in photo_batches(
                module,
                runner.photos.test_set(people[task.identity], k, 0),
                runner.basis.profile,
                networks.workload.lpips,
            ):
                batches.append(losses)
                on_pass()
            found[task.point, k] = float(torch.cat(batches).mean())
    return found


def path_rows(
    lines: Sequence[WeightLine], alphas: Sequence[float], losses: Mapping[tuple[Point, int], float]
) -> pa.Table:
    """Rows of ``PATH_SCHEMA`` for all lines, in their order."""
    rows: list[dict[str, Any]] = []
    for line in lines:
        head = {**line.spec.columns(), "from_timestamp": line.start, "to_timestamp": line.end}
        for group in GROUPS:
            for alpha in alphas:
                point = Point.of(line, group, alpha)
                place = {**head, "group": group, "alpha": alpha}
                rows += [{**place, "test_timestamp": k, "loss": losses[point, k]} for k in range(line.end + 1)]
    return pa.Table.from_pylist(rows, PATH_SCHEMA)
