"""What a study claims before it runs: one primary comparison, and the smallest differences that matter.

Both are optional keys of a search space. ``study.yaml`` keeps them as a list of *statements*: the first from before
anything was measured, and another one each time the space's file changes afterwards, with what had been measured by
then. So a report can tell whether a claim came before the results (``clstudy.analysis.claims``). Nothing here enters a
stage's key: claims affect how results are read, never how they are computed.

Sources: Simmons, Nelson and Simonsohn, Psychol. Sci. 22(11), 2011 (why a claim is fixed first); Lakens, Soc. Psychol.
Personal. Sci. 8(4), 2017 (smallest effects of interest).
"""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictInt, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from clstudy.errors import UserError, nearest
from clstudy.registry import is_foreign
from clstudy.settings.metric_facts import METRIC_NAME, PROTOCOLS, Metrics, known_metrics

BASELINE = "baseline"
"""The reference in "5% of baseline": the strategy that another one is compared with."""
_RELATIVE = re.compile(r"([0-9.]+)\s*%(?:\s+of\s+(\S.*))?")

ClaimedScore = Literal["aip", "forgetting", "final"]
_SCORES: tuple[ClaimedScore, ...] = get_args(ClaimedScore)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _pair(value: object) -> object:
    if isinstance(value, list | tuple) and len(value) != 2:
        raise ValueError(
            f"{reprlib.repr(list(value))} has {len(value)} entries; expected two strategies of grid.strategy, the "
            "second of which is subtracted: [er_hull, er_rand]"
        )
    return value


def _claimed_scores(value: object) -> object:
    scores = value if isinstance(value, list | tuple) else [value]
    for score in scores:
        if score not in _SCORES:
            known = ", ".join(map(repr, _SCORES))
            raise ValueError(f"{reprlib.repr(score)}: expected one of {known}, or a list of them")
    if not scores or len(set(scores)) != len(scores):
        raise ValueError(f"{reprlib.repr(list(scores))}: expected each score once, and at least one")
    return scores[0] if len(scores) == 1 else tuple(scores)


class Primary(_Strict):
    """The one comparison that a study is run for: ``between`` = [strategy, the baseline that is subtracted].

    Several scores, and without ``buffer_size`` all sizes, are tested as one family. ``metric`` under ``protocol`` is
    the metric's name in the rows; a search space may also write ``module:Name``, which becomes that name
    (``with_row_names``). Known metrics are those under ``metrics`` in the validation context, by default the packaged
    ones. Under a protocol that only some workload has, any name may stand: whether it is measured is known when the
    study is planned (``check_claims``).
    """

    protocol: Annotated[str, Field(pattern="^[a-z][a-z0-9_]*$")] = "reconstruction"
    metric: str
    score: Annotated[ClaimedScore | tuple[ClaimedScore, ...], BeforeValidator(_claimed_scores)]
    between: Annotated[tuple[str, str], BeforeValidator(_pair)]
    buffer_size: Annotated[StrictInt, Field(ge=1)] | None = None

    @field_validator("metric")
    @classmethod
    def _known_metric(cls, metric: str, info: ValidationInfo) -> str:
        metrics: Metrics = (info.context or {}).get("metrics") or known_metrics()
        if metric in metrics and (ordinary := metrics[metric].twin_of) is not None:
            raise ValueError(
                f"{metric!r} scores stretched images and rounds, only to be compared with published tables; expected "
                f"a metric to draw conclusions from, e.g. {ordinary}"
            )
        known = [name for name, facts in metrics.items() if facts.twin_of is None]
        if info.data.get("protocol", PROTOCOLS[0]) not in PROTOCOLS and METRIC_NAME.fullmatch(metric):
            return metric
        if metric not in known and not is_foreign(metric):
            raise ValueError(
                f"{reprlib.repr(metric)} is not a metric.{nearest(metric[:60], known)} Known: {', '.join(known)}; or "
                "one of your own as evaluation.metrics names it, module:Name"
            )
        return metric

    @property
    def scores(self) -> tuple[ClaimedScore, ...]:
        """``score``, or all of them."""
        return self.score if isinstance(self.score, tuple) else (self.score,)

    def covers(self, panel: tuple[str, str], score: str, strategy: str, baseline: str, size: int | None) -> bool:
        """Whether a paired difference belongs to the primary comparison: ``panel`` is (protocol, metric)."""
        return (
            (self.protocol, self.metric, *self.between) == (*panel, strategy, baseline)
            and score in self.scores
            and self.buffer_size in (None, size)
        )


@dataclass(frozen=True, kw_only=True)
class Effect:
    """A smallest difference of interest: a number in the score's own unit, or a share of a strategy's mean.

    Attributes:
        text: as written in the space, e.g. "0.002" or "5% of lower".
        absolute: the number; None for a share.
        share: e.g. 0.05; None for a number.
        reference: the strategy whose mean it is a share of; ``BASELINE``: the strategy that is subtracted.
    """

    text: str
    absolute: float | None = None
    share: float | None = None
    reference: str = BASELINE


def parse_effect(value: object) -> Effect:
    """Parse a smallest difference of interest: 0.002, "5%", "5% of baseline" or "5% of lower".

    Raises:
        ValueError: it is none of these, or not above 0.
    """
    wrong = ValueError(
        f"{reprlib.repr(value)} is not a smallest difference; expected a number above 0 in the score's unit (0.002), "
        'or a share of a mean: "5%" (of the baseline) or "5% of lower"'
    )
    if isinstance(value, str) and (match := _RELATIVE.fullmatch(value.strip())):
        try:
            share = float(match[1]) / 100
        except ValueError:
            raise wrong from None
        if not 0 < share <= 1:
            raise wrong
        reference = (match[2] or BASELINE).strip()
        return Effect(text=f"{100 * share:g}% of {reference}", share=share, reference=reference)
    try:
        number = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise wrong from None
    if not (math.isfinite(number) and number > 0):
        raise wrong
    return Effect(text=f"{number:g}", absolute=number)


def _plain_effect(value: object) -> float | str:
    effect = parse_effect(value)
    return effect.text if effect.absolute is None else effect.absolute


_Size = Annotated[float | str, BeforeValidator(_plain_effect)]


class Effects(_Strict):
    """Smallest differences of interest, per score, under the primary comparison's metric (or else the main one)."""

    aip: _Size | None = None
    forgetting: _Size | None = None
    final: _Size | None = None

    def by_score(self) -> dict[str, Effect]:
        """Score name -> smallest difference of interest, for the scores that have one."""
        return {score: parse_effect(value) for score, value in self.model_dump(exclude_none=True).items()}


@dataclass(frozen=True, kw_only=True)
class Statement:
    """What a study's space claimed, and what had been measured by then.

    Attributes:
        finished_trials: number of trials with results at that time.
        measured_stages: number of measured stages of its plan at that time (rows can be seen before a trial ends).
    """

    primary: Primary | None
    effects: Effects | None
    finished_trials: int = 0
    measured_stages: int = 0

    @property
    def before_results(self) -> bool:
        """Whether nothing had been measured."""
        return not (self.finished_trials or self.measured_stages)

    def claims(self) -> tuple[Primary | None, Effects | None]:
        """The claims alone, without what had been measured."""
        return self.primary, self.effects

    def document(self) -> dict[str, Any]:
        """As ``study.yaml`` holds it."""
        return {
            "primary": _dumped(self.primary),
            "effects": _dumped(self.effects),
            "finished_trials": self.finished_trials,
            "measured_stages": self.measured_stages,
        }


def _dumped(model: BaseModel | None) -> dict[str, Any] | None:
    return None if model is None else model.model_dump(mode="json", exclude_none=True)


def primary_before_results(statements: Sequence[Statement]) -> Primary | None:
    """The primary comparison of a study; None if it names none, or named it only after something was measured."""
    return statements[-1].primary if statements and statements[-1].before_results else None


def read_statements(entries: object, metrics: Metrics | None = None) -> tuple[Statement, ...]:
    """The statements of a ``study.yaml``, from its value under ``claims`` (None if it has none, as in older versions).

    Args:
        metrics: the study's; None: the packaged ones.

    Raises:
        ValueError: they are not what ``Statement.document`` writes.
    """
    if entries is None:
        return ()
    if not isinstance(entries, list):
        raise ValueError(f"claims is {reprlib.repr(entries)}, expected a list of statements")
    return tuple(_read_statement(entry, metrics) for entry in entries)


def _read_statement(entry: object, metrics: Metrics | None) -> Statement:
    if not isinstance(entry, Mapping):
        raise ValueError(f"claims holds {reprlib.repr(entry)}, expected statements with the key primary or effects")
    counts = [entry.get(name, 0) for name in ("finished_trials", "measured_stages")]
    if any(isinstance(count, bool) or not isinstance(count, int) or count < 0 for count in counts):
        raise ValueError(f"claims holds the counts {reprlib.repr(counts)}, expected whole numbers from 0")
    primary, effects = entry.get("primary"), entry.get("effects")
    return Statement(
        primary=None if primary is None else Primary.model_validate(primary, context={"metrics": metrics}),
        effects=None if effects is None else Effects.model_validate(effects),
        finished_trials=counts[0],
        measured_stages=counts[1],
    )


def with_row_names(primary: Primary | None, names: Mapping[str, str]) -> Primary | None:
    """The primary comparison with its metric named as in the rows.

    Args:
        names: the metric's name in settings -> its name in the rows.
    """
    if primary is None:
        return None
    return primary.model_copy(update={"metric": names.get(primary.metric, primary.metric)})


def state(before: Sequence[Statement], now: Statement) -> tuple[Statement, ...]:
    """The statements of a study that now claims ``now``. Once something is measured, older claims stay on record.

    Args:
        before: the statements in the study's folder; empty for a new study, or for one without claims.
    """
    if before and before[-1].claims() == now.claims():
        return tuple(before)
    if not before and now.claims() == (None, None):
        return ()
    if now.before_results:
        return () if now.claims() == (None, None) else (now,)
    return (*before, now)


# --- checks ----------------------------------------------------------------------------------------------------------


def primary_fits_grid(primary: Primary, strategies: Sequence[str], sizes: Sequence[int] | None, inside: str) -> None:
    """Check a primary comparison against the axes of its grid.

    Args:
        inside: type of errors that belong to one key of the group (``clstudy.settings.space``).

    Raises:
        PydanticCustomError: the grid lacks a strategy or size, or the pair is not compared in this order.
    """

    def wrong(what: str, *place: str | int) -> PydanticCustomError:
        return PydanticCustomError(inside, "{what}", {"what": what, "inside": place})

    for place, name in enumerate(primary.between):
        if name not in strategies:
            raise wrong(_unknown_strategy(name, strategies), "between", place)
    first, second = primary.between
    if first == second:
        raise wrong(f"{first!r} is compared with itself; expected two strategies of grid.strategy", "between")
    if first == "lower":
        raise wrong(f"lower is only ever the baseline; write [{second}, lower]", "between")
    if primary.buffer_size is not None and primary.buffer_size not in (sizes or ()):
        has = f"it has {', '.join(map(str, sizes))}" if sizes else "it has none"
        raise wrong(f"{primary.buffer_size} is not in grid.buffer_size ({has})", "buffer_size")


def effects_fit_grid(effects: Effects, strategies: Sequence[str], inside: str) -> None:
    """Check that shares refer to strategies of the grid.

    Raises:
        PydanticCustomError: a share refers to another strategy.
    """
    for score, effect in effects.by_score().items():
        if effect.reference != BASELINE and effect.reference not in strategies:
            what = f"{effect.text}: {_unknown_strategy(effect.reference, [*strategies, BASELINE])}"
            raise PydanticCustomError(inside, "{what}", {"what": what, "inside": (score,)})


def _unknown_strategy(name: str, strategies: Sequence[str]) -> str:
    return (
        f"{reprlib.repr(name)} is not in grid.strategy.{nearest(name[:60], strategies)} It has: {', '.join(strategies)}"
    )


def check_claims(
    primary: Primary | None,
    effects: Effects | None,
    *,
    computed: Mapping[tuple[str, str], bool],
    uses_buffer_size: Callable[[str], bool],
    joint: Callable[[str], bool],
    timestamps: int,
) -> None:
    """Refuse claims that the study can never test, before anything runs.

    Args:
        computed: (protocol, metric) -> whether the profile computes it here.
        uses_buffer_size, joint: as a strategy's class states them.
        timestamps: the smallest number of any identity.

    Raises:
        UserError: there is such a claim; the message names the key, what is wrong and what to write.
    """
    if primary is not None:
        panel = (primary.protocol, primary.metric)
        if not computed.get(panel, False):
            there = ", ".join(f"{protocol} {metric}" for (protocol, metric), yes in computed.items() if yes)
            raise UserError(
                f"primary.metric: {primary.protocol} {primary.metric} is not computed here; the profile computes "
                f"{there}"
            )
        for name in primary.between:
            for claimed in primary.scores:
                _require_score(claimed, name, "primary.score", joint, timestamps)
        if primary.buffer_size is not None and not any(map(uses_buffer_size, primary.between)):
            raise UserError(
                f"primary.buffer_size: neither {' nor '.join(primary.between)} depends on the buffer size; leave it out"
            )
    for score, effect in ({} if effects is None else effects.by_score()).items():
        if effect.reference != BASELINE:
            _require_score(score, effect.reference, f"effects.{score}", joint, timestamps)


def _require_score(score: str, strategy: str, key: str, joint: Callable[[str], bool], timestamps: int) -> None:
    if score != "final" and joint(strategy):
        raise UserError(
            f"{key}: {strategy} is joint training, which has no {score}; expected final, or another strategy"
        )
    if score == "forgetting" and timestamps < 2:
        raise UserError(f"{key}: forgetting needs two timestamps, an identity of this study has {timestamps}")


# --- in words --------------------------------------------------------------------------------------------------------


def in_words(primary: Primary) -> str:
    """A primary comparison in words, e.g. "forgetting (reconstruction lpips), er_hull minus er_rand at K = 3"."""
    first, second = primary.between
    size = "" if primary.buffer_size is None else f" at K = {primary.buffer_size}"
    return f"{' and '.join(primary.scores)} ({primary.protocol} {primary.metric}), {first} minus {second}{size}"


def claim_lines(statements: Sequence[Statement]) -> list[str]:
    """Lines of the plan about the claims."""
    now = statements[-1] if statements else Statement(primary=None, effects=None)
    if now.primary is None:
        lines = ["primary  none is named: the report will call every comparison exploratory"]
    else:
        lines = [f"primary  {in_words(now.primary)}"]
    if now.effects is not None and (effects := now.effects.by_score()):
        listed = ", ".join(f"{score} {effect.text}" for score, effect in effects.items())
        lines.append(f"effects  smallest differences of interest: {listed}")
    if not now.before_results:
        lines.append(f"[yellow]changed[/yellow]  {lateness(statements)}; the report says so")
    return lines


def lateness(statements: Sequence[Statement]) -> str:
    """Text stating that claims were named or changed after results; empty if they came before them."""
    if not statements or statements[-1].before_results:
        return ""
    late = statements[-1]
    what = "changed" if len(statements) > 1 else "named"
    trials = "1 trial was" if late.finished_trials == 1 else f"{late.finished_trials} trials were"
    stages = "1 stage" if late.measured_stages == 1 else f"{late.measured_stages} stages"
    return f"the primary comparison or the effects were {what} after {trials} finished and {stages} measured"
