"""A study's plan as the analysis reads it from ``study.yaml`` and ``failures.json``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from clstudy.analysis.matrix import JOINT_STRATEGIES, Trial
from clstudy.analysis.published import Practice, read_practice
from clstudy.records.failures import read_failures
from clstudy.records.study_record import NAME, TrialEntry, not_understood, read_study_record
from clstudy.settings.claims import Statement
from clstudy.settings.metric_facts import Metrics, known_metrics
from clstudy.settings.profiles import PERSONALISE

OBJECTIVE = "reconstruction_lpips"
"""Objective of searches with the workload ``personalise``, whose studies do not record it."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """The parts of ``study.yaml`` and ``failures.json`` that the analysis needs."""

    folder: Path
    name: str
    timestamps: int | Mapping[str, int] | None
    buffer_sizes: tuple[int, ...]
    trials: tuple[Trial, ...]
    """Without those in ``shorter``."""
    failures: Mapping[str, str]
    profile: str | None = None
    workload: str = PERSONALISE
    """The workload of its stages."""
    objective: str = OBJECTIVE
    """Protocol and metric that a search optimises, in one word."""
    practice: Practice = field(default_factory=Practice)
    chosen_rates: tuple[tuple[str, int | None, float], ...] = ()
    """Strategy, buffer size and learning rate of every cell, if a search chose them; ``trials`` then have no rate."""
    claims: tuple[Statement, ...] = ()
    """What the study's space claimed, and when (``clstudy.settings.claims``); empty if it never claimed anything."""
    horizons: tuple[int, ...] = ()
    """Numbers of timestamps to report, ascending; empty: all timestamps only."""
    shorter: tuple[Trial, ...] = ()
    """Joint training on fewer than all timestamps, for the horizons."""
    metrics: Metrics = field(default_factory=known_metrics)
    """Facts of the metrics that its rows may name: the packaged ones, then the user's own of this study."""

    @property
    def planned(self) -> tuple[Trial, ...]:
        """Every trial of the plan, joint training on fewer timestamps last."""
        return (*self.trials, *self.shorter)

    @property
    def identities(self) -> tuple[str, ...]:
        """Every identity of the plan, in its order."""
        return tuple(dict.fromkeys(trial.identity for trial in self.trials))

    @property
    def strategies(self) -> tuple[str, ...]:
        """Lower bound first, joint training last, the others in the plan's order."""
        names = dict.fromkeys(trial.strategy for trial in self.trials)
        return tuple(sorted(names, key=lambda name: (name in self.joint_strategies, name != "lower")))

    @property
    def joint_strategies(self) -> frozenset[str]:
        """The strategies that are joint training."""
        return frozenset(trial.strategy for trial in self.trials if trial.joint)

    @property
    def rates(self) -> tuple[float | None, ...]:
        """Learning rates of the plan, ascending; a single None if every cell has its own."""
        return tuple(sorted({trial.learning_rate for trial in self.trials}, key=lambda rate: rate or 0.0))

    @property
    def columns(self) -> tuple[int | None, ...]:
        """Buffer sizes as the tables' columns; one column without a size if no trial has one."""
        return self.buffer_sizes or (None,)


def read_study(study_dir: Path | str) -> Study:
    """Read a study's plan and failures.

    Raises:
        UserError: no such folder, no ``study.yaml`` in it, or one that cannot be understood.
    """
    folder = Path(study_dir)
    record = read_study_record(folder)
    try:
        practice = read_practice(record.profile)
    except TypeError as error:
        raise not_understood(folder / NAME, error) from error
    trials = tuple(map(_trial, record.trials))
    sizes = record.buffer_sizes or {trial.buffer_size for trial in trials}
    return Study(
        folder=folder,
        name=record.name or folder.name,
        timestamps=record.timestamps,
        buffer_sizes=tuple(sorted(size for size in sizes if size is not None)),
        trials=tuple(trial for trial in trials if trial.timestamps is None),
        horizons=record.horizons or (),
        shorter=tuple(trial for trial in trials if trial.timestamps is not None),
        failures=_failures(folder),
        profile=record.profile_name,
        workload=_workload(record.profile),
        objective=record.objective or OBJECTIVE,
        practice=practice,
        chosen_rates=tuple((rate.strategy, rate.buffer_size, rate.learning_rate) for rate in record.chosen_rates or ()),
        claims=record.claims,
        metrics=known_metrics(record.metrics),
    )


def _workload(profile: Mapping[str, object] | str | None) -> str:
    """The workload of a profile; studies from before there were several do not name it."""
    return str(profile.get("workload", PERSONALISE)) if isinstance(profile, Mapping) else PERSONALISE


def study_labels(studies: Sequence[Study]) -> list[str]:
    """A distinct name per study (from distinct folders): its own, with the end of its path if several share it."""
    labels = []
    shared = Counter(study.name for study in studies)
    for study in studies:
        if shared[study.name] == 1:
            labels.append(study.name)
            continue
        parts = study.folder.resolve().parts
        others = [other.folder.resolve().parts for other in studies if other.name == study.name and other is not study]
        length = next(n for n in range(1, len(parts) + 1) if all(other[-n:] != parts[-n:] for other in others))
        labels.append(f"{study.name} ({'/'.join(parts[-length:])})")
    # a study's name may equal another's label; counting resolves that, too
    repeated: Counter[str] = Counter()
    for place, label in enumerate(labels):
        repeated[label] += 1
        labels[place] = label if repeated[label] == 1 else f"{label} #{repeated[label]}"
    return labels


def _trial(entry: TrialEntry) -> Trial:
    columns = entry.spec.columns() | {"trial": entry.trial}
    return Trial(**columns, joint=_joint(entry), timestamps=entry.timestamps)


def _joint(entry: TrialEntry) -> bool:
    return entry.strategy in JOINT_STRATEGIES if entry.joint is None else entry.joint


def _failures(folder: Path) -> dict[str, str]:
    return {trial: " ".join(message.split()) for trial, message in read_failures(folder).items()}
