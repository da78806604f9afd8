"""A study's plan as the analysis reads it from ``study.yaml`` and ``failures.json``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clstudy.analysis.matrix import JOINT_STRATEGIES, Trial
from clstudy.analysis.published import Practice, read_practice
from clstudy.errors import UserError
from clstudy.records.study_document import read_document, read_failures
from clstudy.settings.claims import Statement, read_statements
from clstudy.settings.metric_facts import Metrics, known_metrics, read_own_metrics

MOST_TIMESTAMPS = 1000
"""A matrix has its square of cells: beyond this a number in ``study.yaml`` is a mistake."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """What the analysis needs of ``study.yaml`` and ``failures.json``."""

    folder: Path
    name: str
    timestamps: int | Mapping[str, int] | None
    buffer_sizes: tuple[int, ...]
    trials: tuple[Trial, ...]
    failures: Mapping[str, str]
    profile: str | None = None
    practice: Practice = field(default_factory=Practice)
    chosen_rates: tuple[tuple[str, int | None, float], ...] = ()
    """Strategy, buffer size and learning rate of every cell, where a search chose them; then ``trials`` have none."""
    claims: tuple[Statement, ...] = ()
    """What the study's space claimed, and when (``clstudy.settings.claims``); empty where it never claimed anything."""
    metrics: Metrics = field(default_factory=known_metrics)
    """Facts of the metrics that its rows may name: the packaged ones, then the user's own of this study."""

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
        """Learning rates of the plan, ascending; one None where every cell has its own."""
        return tuple(sorted({trial.learning_rate for trial in self.trials}, key=lambda rate: rate or 0.0))

    @property
    def columns(self) -> tuple[int | None, ...]:
        """Buffer sizes as the tables' columns; one column without a size where no trial has one."""
        return self.buffer_sizes or (None,)


def read_study(study_dir: Path | str) -> Study:
    """Read a study's plan and failures.

    Raises:
        UserError: no such folder, no ``study.yaml`` in it, or one that cannot be understood.
    """
    folder = Path(study_dir)
    path = folder / "study.yaml"
    plan = read_document(folder)
    try:
        trials = tuple(_trial(entry) for entry in plan["trials"])
        sizes = plan.get("buffer_sizes") or {trial.buffer_size for trial in trials}
        timestamps = plan.get("timestamps")
        for count in timestamps.values() if isinstance(timestamps, dict) else [timestamps]:
            if count is not None and not (type(count) is int and 1 <= count <= MOST_TIMESTAMPS):
                raise TypeError(
                    f"timestamps is {str(count)[:40]}, expected a number from 1 to {MOST_TIMESTAMPS} or a mapping "
                    "identity: number"
                )
        metrics = known_metrics(read_own_metrics(plan.get("metrics")))
        return Study(
            folder=folder,
            name=str(plan.get("name", folder.name)),
            timestamps=timestamps,
            buffer_sizes=tuple(sorted(int(size) for size in sizes if size is not None)),
            trials=trials,
            failures=_failures(folder),
            profile=_profile(plan.get("profile")),
            practice=read_practice(plan.get("profile")),
            chosen_rates=tuple(_chosen(entry) for entry in plan.get("chosen_rates") or ()),
            claims=read_statements(plan.get("claims"), metrics),
            metrics=metrics,
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        message = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise UserError(f"{path} cannot be understood ({message}). Run the study again to rewrite it.") from error


def study_labels(studies: Sequence[Study]) -> list[str]:
    """A distinct name per study (of distinct folders): its own, with the end of its path where others share it."""
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
    # a study may be called what another is labelled: counting ends that, too
    repeated: Counter[str] = Counter()
    for place, label in enumerate(labels):
        repeated[label] += 1
        labels[place] = label if repeated[label] == 1 else f"{label} #{repeated[label]}"
    return labels


def _trial(entry: Mapping[str, Any]) -> Trial:
    size, joint = entry["buffer_size"], entry.get("joint", entry["strategy"] in JOINT_STRATEGIES)
    if not isinstance(joint, bool):
        raise TypeError(f"joint is {joint!r} for trial {entry['trial']}, expected true or false")
    return Trial(
        trial=str(entry["trial"]),
        identity=str(entry["identity"]),
        strategy=str(entry["strategy"]),
        buffer_size=None if size is None else int(size),
        learning_rate=float(entry["learning_rate"]),
        seed=int(entry["seed"]),
        joint=joint,
    )


def _chosen(entry: Mapping[str, Any]) -> tuple[str, int | None, float]:
    size = entry["buffer_size"]
    return str(entry["strategy"]), None if size is None else int(size), float(entry["learning_rate"])


def _failures(folder: Path) -> dict[str, str]:
    return {trial: " ".join(message.split()) for trial, message in read_failures(folder).items()}


def _profile(entry: Any) -> str | None:
    name = entry.get("name") if isinstance(entry, Mapping) else entry
    return None if name is None else str(name)
