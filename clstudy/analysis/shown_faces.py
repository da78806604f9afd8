"""The faces that a report shows of every person, with what was measured on each of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow.compute as pc

from clstudy.analysis.figures.faces import focus_trials
from clstudy.analysis.matrix import ScoreCell, Trial, read_rows
from clstudy.analysis.printed import number, score_title
from clstudy.analysis.report_data import ReportData
from clstudy.analysis.study_folder import StoredStage, stage_faces
from clstudy.settings.metric_facts import BALANCED, RECONSTRUCTION

_VALUES = 2
"""Metrics whose values stand under a face: the first of the study's reconstruction metrics."""


@dataclass(frozen=True, kw_only=True)
class MadeFace:
    """What a model made of a test photo: uint8 ``[s, s, 3]``, and what was measured on it, as text."""

    image: np.ndarray
    measured: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class PersonOverTime:
    """A person's faces.

    Attributes:
        said: why the person stands where it does, e.g. "forgets most: Forgetting 0.0071".
        photos: the first test photo of every timestamp k, uint8 ``[s, s, 3]``.
        made: t -> label of a strategy -> what its model made of the photos k <= t after training on t.
    """

    identity: str
    said: str
    photos: tuple[np.ndarray, ...]
    made: Mapping[int, Mapping[str, tuple[MadeFace, ...]]]


def people_over_time(material: ReportData) -> Iterator[PersonOverTime]:
    """Everybody whose pictures of faces are in the study's folder, whoever is forgotten most first."""
    for identity, said in _in_order(material):
        found = _over_time(material, identity, said)
        if found is not None:
            yield found


def _in_order(material: ReportData) -> list[tuple[str, str]]:
    """People with stages, and the Forgetting that they are ordered by: the mean over the shown strategies with any."""
    people = sorted({trial.identity for trial in material.stages})
    if material.panel is None:
        return []
    forgotten: dict[str, list[float]] = {name: [] for name in people}
    for arm in material.focus_arms:
        values = material.values.get(ScoreCell(*material.panel, "forgetting", material.rate, *arm), {})
        for name in people:
            if values.get(name):
                forgotten[name].append(float(np.mean(list(values[name].values()))))
    means = {name: float(np.mean(values)) for name, values in forgotten.items() if values}
    ranked = sorted(people, key=lambda name: (-means.get(name, -np.inf), name))
    title = score_title("forgetting")
    return [
        (name, f"{title} {number(means[name], material.digits)} on average" if name in means else "") for name in ranked
    ]


def _over_time(material: ReportData, identity: str, said: str) -> PersonOverTime | None:
    photos: tuple[np.ndarray, ...] = ()
    made: dict[int, dict[str, tuple[MadeFace, ...]]] = {}
    for arm, trial in focus_trials(material, identity).items():
        measured = _Measured(material, trial)
        for stage in material.stages[trial]:
            faces = stage_faces(stage)
            if faces is None:
                continue
            if len(faces[0]) > len(photos):
                photos = tuple(faces[0])
            made.setdefault(stage.asked.t, {})[arm.label] = tuple(
                MadeFace(image=face, measured=measured.of(stage, k)) for k, face in enumerate(faces[1])
            )
    if not photos:
        return None
    return PersonOverTime(identity=identity, said=said, photos=photos, made=dict(sorted(made.items())))


@dataclass(frozen=True)
class _Measured:
    """Values of single test photos of one trial."""

    material: ReportData
    trial: Trial

    @cached_property
    def _metrics(self) -> Sequence[str]:
        return [metric for protocol, metric in self.material.panels if protocol == RECONSTRUCTION][:_VALUES]

    @cached_property
    def _values(self) -> Mapping[tuple[int, str, str], float]:
        """(t, photo, metric) -> value."""
        file = self.material.summary.files.get(self.trial.trial)
        if file is None or not self._metrics:
            return {}
        wanted = pc.field("protocol").isin([RECONSTRUCTION, BALANCED]) & pc.field("metric").isin(self._metrics)
        rows = read_rows([file], ["train_timestamp", "image", "metric", "value"], wanted)
        columns = (rows[name].to_pylist() for name in ("train_timestamp", "image", "metric", "value"))
        return {(t, image, metric): value for t, image, metric, value in zip(*columns, strict=True)}

    def of(self, stage: StoredStage, k: int) -> tuple[str, ...]:
        """Metrics and values of the first test photo of timestamp k after a stage."""
        tested = stage.asked.tested[k] if k < len(stage.asked.tested) else ()
        if not tested:
            return ()
        found = ((metric, self._values.get((stage.asked.t, tested[0], metric))) for metric in self._metrics)
        return tuple(
            f"{_short(metric)} {number(value, self._digits(metric))}" for metric, value in found if value is not None
        )

    def _digits(self, metric: str) -> int:
        facts = self.material.metrics.get(metric)
        return 3 if facts is None else min(facts.decimals, 3)


def _short(metric: str) -> str:
    return metric.upper() if len(metric) <= 5 else metric
