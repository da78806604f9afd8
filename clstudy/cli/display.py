"""What the terminal shows: the plan, and live progress (a rich display, or plain lines when there is no terminal)."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from clstudy.identities.catalogue import is_outline
from clstudy.identities.dataset import DataSet
from clstudy.records.sessions import duration, priced_hours
from clstudy.settings.claims import Statement, claim_lines
from clstudy.settings.kernels import FUSED
from clstudy.settings.profiles import LATENT_SPACE_WORDS, PERSONALISE, Profile
from clstudy.storage.checksums import State
from clstudy.study.plan import Plan
from clstudy.workloads.base import measured_facts, own_measures, workload_of

Show = Callable[[Mapping[str, Any]], None]
_LINE_SECONDS = 15.0
_BAR_WIDTH = 60
_IDLE = "waits for a trial"
_LABEL_WIDTH = 9
"""Width of the label in front of the plan's lines, with the space after it."""


def counted(count: int, one: str, more: str) -> str:
    """A count with its noun: 1 identity, 5 identities."""
    return f"{count} {one if count == 1 else more}"


def photo_counts(data: DataSet) -> str:
    """Training and test photos per timestamp, as ranges where they differ."""
    stamps = [stamp for identity in data.identities for stamp in identity.timestamps]
    ends = []
    for counts in ([len(stamp.train) for stamp in stamps], [len(stamp.test) for stamp in stamps]):
        ends.append(f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}")
    return f"{ends[0]} training and {ends[1]} test photos each"


def compute_line(profile: Profile) -> str:
    """Device, share of it and precision that trials compute with."""
    share, compute = profile.resources, profile.compute
    where = (
        f"{share.gpus:g} GPU per trial"
        if share.gpus
        else f"CPU, {counted(share.threads, 'thread', 'threads')} per trial"
    )
    extras = [f", {compute.kernels} kernels"] * (compute.kernels != FUSED)
    extras += [", compiled"] * compute.compile + [", activations computed again"] * compute.activation_checkpointing
    return f"{where}, {compute.precision}{''.join(extras)}"


def measured_lines(profile: Profile) -> list[str]:
    """What is measured and, for workloads other than the default, what a stage does."""
    if profile.workload == PERSONALISE:
        space = LATENT_SPACE_WORDS[profile.inversion.latent_space]
        return [f"metrics  {', '.join(profile.evaluation.metrics)}; test photos inverted in {space}"]
    names = [facts.name for facts in measured_facts(profile, own_measures(profile))]
    return [f"workload {profile.workload}: {workload_of(profile).description}", f"metrics  {', '.join(names)}"]


def plan_lines(
    plan: Plan,
    sentence: str,
    profile: Profile,
    data: DataSet,
    left_out: Mapping[str, str] | None = None,
    *,
    workers: int = 1,
    keep_weights: str = "last",
    price: float | None = None,
    claims: Sequence[Statement] = (),
    drift: Sequence[str] = (),
    changed: Sequence[str] = (),
    headroom: Sequence[str] = (),
) -> list[str]:
    """The plan in a few lines.

    Args:
        left_out: metrics that are not computed -> the reason.
        workers: trials at a time, as assumed by the estimate.
        keep_weights: the storage policy (``clstudy.study.retention``).
        price: of an hour, counted in ``hours_unit``.
        claims: what the study claims (``clstudy.study.study_file.statements``).
        drift: lines that say how much there is to forget (``clstudy.study.preparation.drift_lines``).
        headroom: lines that say how much choosing could matter (``clstudy.study.known_headroom``).
        changed: settings that override the profile's (``clstudy.settings.overrides.setting_words``).
    """
    timestamps = len(data.identities[0].timestamps)
    most = "" if plan.exact else "at most "
    shared = plan.stages_without_sharing - plan.stages
    return [
        f"[bold]plan[/bold]     {sentence}",
        f"profile  {profile.name}: {profile.description}",
        f"data     {data.name}: {counted(len(data.identities), 'identity', 'identities')}, "
        f"{counted(timestamps, 'timestamp', 'timestamps')}, "
        f"{photo_counts(data)}, {profile.data.image_size} px"
        f"{'; not made yet, so finished work is not known' if is_outline(data) else ''}",
        *drift,
        f"compute  {compute_line(profile)}",
        *measured_lines(profile),
        *([f"settings {', '.join(changed)}"] if changed else ()),
        *(f"[yellow]left out[/yellow] {metric}: {reason}" for metric, reason in (left_out or {}).items()),
        *claim_lines(claims),
        *headroom,
        f"trials   {len(plan.trials)} ({len(plan.done)} finished before)"
        if not plan.open_trials
        else f"trials   at most {plan.open_trials} left",
        f"stages   {most}{plan.stages} of {plan.stages_without_sharing} "
        f"({shared} shared between trials, {plan.stages_done} done already, {most}{plan.stages_to_run} to compute)",
        *taken_over_lines(plan),
        *restorable_lines(plan),
        *retrained_lines(plan),
        f"time     about {duration(plan.seconds)} with {counted(workers, 'worker', 'workers')}{starting(plan)} "
        f"(from {plan.estimate_from}); {priced_hours(profile.resources, plan.worker_seconds, price)}",
        f"disk     {most}{plan.disk_bytes / 1e9:.2f} GB more; {WEIGHTS_LINES[keep_weights]}",
    ]


def starting(plan: Plan) -> str:
    """How much of the time goes into starting up before the first stage; empty if nothing is started."""
    return f", {duration(plan.start_seconds)} of it to start Ray and the workers" if plan.start_seconds else ""


WEIGHTS_LINES = {
    "last": "weights: last (of t = 0 and of last stages; the others go when nothing planned builds on them, and an "
    "extension or a loss path trains those it needs again)",
    "all": "weights: all (nothing will have to be trained again)",
}


_WHY_RESTORED = {
    State.ABSENT: "missing",
    State.WHOLE: "of other stages",
    State.UNCHECKED: "without checksum",
    State.DAMAGED: "damaged",
}


def why_restored(state: State) -> str:
    """Why a result is rebuilt from its trial's stages, in one to three words."""
    return _WHY_RESTORED[state]


def taken_over_lines(plan: Plan) -> list[str]:
    """A line if other studies in the same storage have stages of this one."""
    if not plan.taken_over:
        return []
    known = ", ".join(f"{count} in {name}" for name, count in plan.taken_over.items())
    count = sum(plan.taken_over.values())
    return [f"others   {count} of those done already are taken over from other studies in this storage: {known}"]


def restorable_lines(plan: Plan) -> list[str]:
    """A line if there are untrusted results, which will be rebuilt from stages."""
    if not plan.restorable:
        return []
    counts = Counter(why_restored(state) for state in plan.restorable.values())
    why = ", ".join(f"{count} {words}" for words, count in sorted(counts.items()))
    count = counted(len(plan.restorable), "result file is", "result files are")
    return [f"rows     {count} rebuilt from finished stages, in a moment ({why})"]


def retrained_lines(plan: Plan) -> list[str]:
    """A line if stages must be trained again because their weights were dropped."""
    if not plan.retrained:
        return []
    return [
        f"again    {counted(plan.retrained, 'stage is', 'stages are')} trained again, not tested again: their weights "
        "were dropped (weights: last) and something new builds on them"
    ]


class _Board:
    """Turns snapshots of the coordinator into text and tables: a headline, a bar, a line for each worker."""

    def __init__(self, plan: Plan, workers: int):
        self._plan = plan
        self._workers = workers
        self._started = time.monotonic()
        self._lines: list[str | None] = [None] * workers

    def computed(self, snapshot: Mapping[str, Any]) -> int:
        return int(snapshot["stages"]["computed"])

    def eta(self, snapshot: Mapping[str, Any]) -> str:
        """Time left, estimated from the stages computed in this run."""
        done = self.computed(snapshot)
        left = max(self._plan.stages_to_run - done, 0)
        each = snapshot["stages"]["seconds"] / done if done else self._plan.seconds / max(self._plan.stages_to_run, 1)
        scale = self._workers if done else 1
        return duration(left * each / scale)

    def headline(self, snapshot: Mapping[str, Any]) -> str:
        finished = snapshot["finished"]
        failed = sum(bool(message) for message in finished.values())
        text = (
            f"trials {len(finished) + len(self._plan.done)}/{len(self._plan.trials) + self._plan.open_trials}"
            f"{f' ({failed} failed)' if failed else ''} · stages computed {self.computed(snapshot)}"
            f"/{self._plan.stages_to_run}, reused {snapshot['stages']['reused']}"
        )
        return f"{text} · {duration(time.monotonic() - self._started)} elapsed, about {self.eta(snapshot)} left"

    def lines(self, running: Mapping[str, Any]) -> list[str | None]:
        """The trial on every worker's line (None: it has none), which a trial keeps until it ends."""
        kept = [name if name in running else None for name in self._lines]
        for name in sorted(running.keys() - set(kept)):
            if None not in kept:
                kept.append(None)  # a cluster may have grown
            kept[kept.index(None)] = name
        self._lines = kept
        return kept

    def render(self, snapshot: Mapping[str, Any]) -> Group:
        rows = []
        for number, trial in enumerate(self.lines(snapshot["running"]), start=1):
            if trial is None:
                rows.append((f"  {number}", _IDLE, "", "", ""))
                continue
            state = snapshot["running"][trial]
            loss = "" if math.isnan(state["loss"]) else f"loss {state['loss']:.4f}"
            done = f"{state['phase']} {state['done']}/{state['total']}"
            rows.append((f"  {number}", trial, f"t={state['t']}", done, loss))
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True)
        table.add_column()  # the only one that may shrink: a long name loses its end, progress is always shown
        for place in range(2, 5):
            table.add_column(no_wrap=True, min_width=max((len(row[place]) for row in rows), default=0))
        for number_text, name, *rest in rows:
            table.add_row(number_text, Text(name, no_wrap=True, overflow="ellipsis"), *map(Text, rest))
        bar = Table.grid()  # a bar alone does not end its line, and the first trial would follow on it
        bar.add_column(width=_BAR_WIDTH)
        bar.add_row(
            ProgressBar(total=max(self._plan.stages_to_run, 1), completed=self.computed(snapshot), width=_BAR_WIDTH)
        )
        return Group(Text(self.headline(snapshot)), bar, table)


def print_plan(lines: Sequence[str], console: Console) -> None:
    """Print the plan's lines: on a terminal wrapped and indented under their labels, elsewhere one line each."""
    if not console.is_terminal:
        for line in lines:
            console.print(line, soft_wrap=True, highlight=False)
        return
    table = Table.grid()
    table.add_column(width=_LABEL_WIDTH, no_wrap=True)
    table.add_column(overflow="fold")
    for line in lines:
        text = Text.from_markup(line)
        table.add_row(text[:_LABEL_WIDTH], text[_LABEL_WIDTH:])
    console.print(table, highlight=False)


@contextmanager
def make_display(plan: Plan, workers: int, console: Console) -> Iterator[Show]:
    """Yield a function that shows a snapshot: live on a terminal, elsewhere as an occasional line."""
    board = _Board(plan, workers)
    if console.is_terminal:
        with Live(Text("starting Ray …"), console=console, refresh_per_second=4, transient=True) as live:
            yield lambda snapshot: live.update(board.render(snapshot))
        return
    last = [time.monotonic(), -1]

    def line(snapshot: Mapping[str, Any]) -> None:
        finished = len(snapshot["finished"])
        now = time.monotonic()
        if finished != last[1] or now - last[0] > _LINE_SECONDS:
            last[:] = [now, finished]
            console.print(board.headline(snapshot), highlight=False, soft_wrap=True)

    yield line
