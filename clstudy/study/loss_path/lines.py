"""Chooses trials, the lines between their stages, and the points to compute on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from clstudy.analysis.loss_path_numbers import GROUPS
from clstudy.errors import UserError, nearest
from clstudy.settings.trial_spec import TrialSpec
from clstudy.study.stored_study import stage_keys


@dataclass(frozen=True, kw_only=True)
class WeightLine:
    """A straight line between two stages of a trial, by timestamp and stage key."""

    spec: TrialSpec
    start: int
    end: int
    start_key: str
    end_key: str


@dataclass(frozen=True)
class Point:
    """A network on a line; points shared by trials or lines are equal. Without ``end_key`` it is a stage itself."""

    start_key: str
    end_key: str
    group: str
    alpha: float

    @classmethod
    def of(cls, line: WeightLine, group: str, alpha: float) -> Point:
        """The point at ``alpha``; at either end it is the stage itself."""
        if alpha == 0:
            return cls(line.start_key, "", "", 0.0)
        if alpha == 1 and group == "all":
            return cls(line.end_key, "", "", 0.0)
        return cls(line.start_key, line.end_key, group, alpha)


@dataclass(frozen=True, kw_only=True)
class Task:
    """One network to build, and the test timestamps to compute in it once for all lines that need them."""

    identity: str
    line: WeightLine
    point: Point
    group: str
    alpha: float
    timestamps: tuple[int, ...]


def trial_lines(spec: TrialSpec, keys: Sequence[str]) -> list[WeightLine]:
    """Lines t-1 to t and 0 to last of a trial's stages; none for a single stage (``upper``)."""
    last = len(keys) - 1
    ends = [(t - 1, t) for t in range(1, last + 1)] + ([(0, last)] if last > 1 else [])
    return [WeightLine(spec=spec, start=a, end=b, start_key=keys[a], end_key=keys[b]) for a, b in ends]


def tasks(lines: Sequence[WeightLine], alphas: Sequence[float]) -> list[Task]:
    """Everything to compute for the lines: each network and test timestamp once, one identity after another."""
    seen: dict[Point, set[int]] = {}
    found = []
    for line in sorted(lines, key=lambda line: line.spec.identity):
        for group in GROUPS:
            for alpha in alphas:
                point = Point.of(line, group, alpha)
                known = seen.setdefault(point, set())
                wanted = tuple(k for k in range(line.end + 1) if k not in known)
                known.update(wanted)
                if wanted:
                    found.append(
                        Task(
                            identity=line.spec.identity,
                            line=line,
                            point=point,
                            group=group,
                            alpha=alpha,
                            timestamps=wanted,
                        )
                    )
    return found


def choose_trials(trials: Sequence[TrialSpec], wanted: Sequence[str] | None) -> list[TrialSpec]:
    """The trials that have one of the names or match a pattern (``'*-lower-*'``); all if none is given.

    Raises:
        UserError: a name or pattern matches no trial.
    """
    known = {spec.trial_id: spec for spec in trials}
    chosen: dict[str, TrialSpec] = {}
    for name in wanted or ["*"]:
        matching = {trial: spec for trial, spec in known.items() if trial == name or fnmatchcase(trial, name)}
        if not matching:
            raise UserError(f"no trial {name!r} in this study.{nearest(name, known)} study.yaml lists them all")
        chosen |= matching
    return [spec for trial, spec in known.items() if trial in chosen]


def lines_of(study: Path, chosen: Sequence[TrialSpec]) -> tuple[list[WeightLine], list[str]]:
    """All lines of the chosen trials, and why some have none.

    Raises:
        UserError: no trial has two stages.
    """
    lines: list[WeightLine] = []
    unfinished, single = [], []
    for spec in chosen:
        keys = stage_keys(study, spec.trial_id)
        if keys is None:
            unfinished.append(spec.trial_id)
            continue
        if len(keys) < 2:
            single.append(spec.trial_id)
            continue
        lines += trial_lines(spec, keys)
    notes = [f"{len(unfinished)} trials are not finished and left out: {some_names(unfinished)}"] if unfinished else []
    if single:
        notes.append(f"{len(single)} trials have a single stage, so no path: {some_names(single)}")
    if not lines:
        raise UserError("; ".join(["no trial has two finished stages, so there is no path", *notes]))
    return lines, notes


def some_names(names: Sequence[str], most: int = 3) -> str:
    """The first few names in words, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
