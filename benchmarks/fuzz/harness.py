"""Runs seeded cases of damaged files, each in a process of its own with bounds on time and memory, and counts the ends.

A target makes undamaged material once. Every case gets a copy, damages it, and does what a user's command does with it
in a forked child. The child is killed after 10 s of processor time (60 s by the clock, where the machine is busy); 1 GB
above what the process had before is over the bound as well.
Case n of a target is the same for every number of cases: its generator is seeded by (seed, target, n).
"""

from __future__ import annotations

import enum
import json
import logging
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.fuzz.mutations import damage_one_file
from clstudy.errors import UserError

CPU_SECONDS = 10
WALL_SECONDS = 60.0
MEMORY_BYTES = 1_000_000_000
HARD_LIMIT_BYTES = 6_000_000_000
"""Address space above what the process had: a request beyond it fails in the child and is over the bound, too."""
GIVEN = "given"
"""Folder of a target's material whose files are damaged; what lies beside it is left alone."""


class Outcome(enum.Enum):
    """What became of a case; the last three must not happen."""

    CLEAR_ERROR = "clear error"
    RECOMPUTED = "recomputed"
    SAME = "same"
    WRONG = "wrong"
    TRACEBACK = "traceback"
    OVER = "over 10 s or 1 GB"


FAILURES = (Outcome.WRONG, Outcome.TRACEBACK, Outcome.OVER)


@dataclass(frozen=True, kw_only=True)
class Target:
    """Something that reads files.

    Attributes:
        name: for ``--target``.
        prepare: makes undamaged material in an empty folder, once: what may be damaged below ``given/``, anything
            else (expected answers, say) beside it. Runs in a process of its own.
        check: does with a (damaged) copy of that folder what a user's command does and says how it went: SAME (the
            damage changed nothing that counts), RECOMPUTED (it was noticed, said, and something is made again), WRONG
            (another answer, and nothing was said). Raises ``UserError`` for a clear error; any other exception is a
            TRACEBACK. May return (outcome, words).
        damage: damages the files below ``given/`` in place and returns what was done, in words.
        share: of all cases, relative to other targets'.
    """

    name: str
    prepare: Callable[[Path, np.random.Generator], None]
    check: Callable[[Path], Outcome | tuple[Outcome, str]]
    damage: Callable[[Path, np.random.Generator], str] = damage_one_file
    share: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How one case went."""

    target: str
    case: int
    damage: str
    outcome: Outcome
    words: str
    seconds: float
    megabytes: float


@dataclass
class Prepared:
    """A target with its material; ``case`` runs one case."""

    target: Target
    seed: int
    folder: Path
    keep: Path | None = None
    counts: Counter[Outcome] = field(default_factory=Counter)

    def case(self, number: int) -> Ending:
        """Run case ``number``; a failing one is kept in ``keep``, where that is given."""
        work = Path(tempfile.mkdtemp(prefix="case-", dir=self.folder.parent))
        try:
            copy = work / "material"
            shutil.copytree(self.folder, copy)
            damage = self.target.damage(copy / GIVEN, case_rng(self.seed, self.target.name, number))
            kept = self._kept_name(number)
            if kept is not None:
                with suppress(shutil.Error):  # a pipe cannot be kept; what else there is has been
                    shutil.copytree(copy, kept, symlinks=True)
            outcome, words, seconds, megabytes = run_child(lambda: self.target.check(copy), work / "output.txt")
            if kept is not None and outcome not in FAILURES:
                shutil.rmtree(kept)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        self.counts[outcome] += 1
        return Ending(
            target=self.target.name,
            case=number,
            damage=damage,
            outcome=outcome,
            words=words,
            seconds=seconds,
            megabytes=megabytes,
        )

    def _kept_name(self, number: int) -> Path | None:
        if self.keep is None:
            return None
        name = self.keep / f"{self.target.name}-{number}"
        shutil.rmtree(name, ignore_errors=True)
        return name


def case_rng(seed: int, target: str, number: int) -> np.random.Generator:
    """The generator of one case."""
    return np.random.default_rng([seed, zlib.crc32(target.encode()), number])


def prepare(target: Target, folder: Path, seed: int, keep: Path | None = None) -> Prepared:
    """Make a target's material below ``folder``.

    Raises:
        RuntimeError: it cannot be made.
    """
    material = folder / target.name / "material"
    (material / GIVEN).mkdir(parents=True)
    rng = np.random.default_rng([seed, zlib.crc32(target.name.encode())])

    def make() -> Outcome:
        target.prepare(material, rng)
        return Outcome.SAME

    outcome, words, _, _ = run_child(make, folder / target.name / "output.txt", seconds=300.0, memory=16_000_000_000)
    if outcome is not Outcome.SAME:
        raise RuntimeError(f"the material of {target.name} cannot be made: {words}")
    return Prepared(target=target, seed=seed, folder=material, keep=keep)


def run_child(
    work: Callable[[], Outcome | tuple[Outcome, str]],
    output: Path,
    *,
    seconds: float = WALL_SECONDS,
    memory: int = MEMORY_BYTES,
) -> tuple[Outcome, str, float, float]:
    """Do it in a forked child: outcome, words, seconds, megabytes above the child's beginning.

    What it prints goes to ``output``.
    """
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _child(work, writing, output, seconds, memory)
    os.close(writing)
    answer = _answer(reading, seconds)
    if answer is None:
        os.kill(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    taken = time.monotonic() - started
    if answer is None:
        return Outcome.OVER, f"not over after {seconds:g} s", taken, usage.ru_maxrss / 1e3
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL):
        return Outcome.OVER, f"not over after {CPU_SECONDS} s of processor time", taken, usage.ru_maxrss / 1e3
    if not answer:
        return Outcome.TRACEBACK, f"the process ended with status {status}", taken, usage.ru_maxrss / 1e3
    document = json.loads(answer)
    outcome, words = Outcome(document["outcome"]), document["words"]
    used = max(0, usage.ru_maxrss * 1024 - document["base"])
    if used > memory:
        outcome, words = Outcome.OVER, f"{used / 1e9:.2f} GB; {words}"
    return outcome, words, taken, used / 1e6


def _child(
    work: Callable[[], Outcome | tuple[Outcome, str]], writing: int, output: Path, seconds: float, memory: int
) -> None:  # never returns
    base = 0
    logging.disable(logging.CRITICAL)  # what is damaged is said thousands of times
    try:
        with output.open("wb") as stream:
            os.dup2(stream.fileno(), 1)
            os.dup2(stream.fileno(), 2)
        sizes = Path("/proc/self/statm").read_text().split()
        page = os.sysconf("SC_PAGE_SIZE")
        base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        limit = int(sizes[0]) * page + max(HARD_LIMIT_BYTES, memory)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        if seconds <= WALL_SECONDS:  # making material may take longer
            resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 1))
        given = work()
        outcome, words = given if isinstance(given, tuple) else (given, "")
    except UserError as error:
        outcome, words = Outcome.CLEAR_ERROR, str(error)
    except MemoryError:
        outcome, words = Outcome.OVER, "MemoryError\n" + traceback.format_exc()[-3000:]
    except BaseException:
        outcome, words = Outcome.TRACEBACK, traceback.format_exc()[-6000:]
    document = json.dumps({"outcome": outcome.value, "words": words, "base": base}).encode()
    while document:
        document = document[os.write(writing, document) :]
    os._exit(0)


def _answer(reading: int, seconds: float) -> bytes | None:
    """Everything that the child writes; None where it is not over in time."""
    end = time.monotonic() + seconds
    parts = []
    try:
        while True:
            ready, _, _ = select.select([reading], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                return None
            part = os.read(reading, 65536)
            if not part:
                return b"".join(parts)
            parts.append(part)
    finally:
        os.close(reading)


def shares(targets: Sequence[Target], cases: int) -> Mapping[str, int]:
    """How many of the cases each target gets: at least one."""
    whole = sum(target.share for target in targets)
    return {target.name: max(1, round(cases * target.share / whole)) for target in targets}


def run_cases(
    targets: Sequence[Target], cases: int, seed: int, *, keep: Path | None = None, only: int | None = None
) -> Iterator[tuple[Prepared, Ending]]:
    """Prepare and run all targets' cases (or the one case ``only`` of each) and yield how each went."""
    with tempfile.TemporaryDirectory(prefix="clstudy-fuzz-") as folder:
        for target in targets:
            prepared = prepare(target, Path(folder), seed, keep)
            for number in range(shares(targets, cases)[target.name]) if only is None else (only,):
                yield prepared, prepared.case(number)
            shutil.rmtree(prepared.folder.parent, ignore_errors=True)


def table(counts: Mapping[str, Counter[Outcome]]) -> str:
    """Counts per target, and their sum, as a Markdown table."""
    total: Counter[Outcome] = sum(counts.values(), Counter())
    head = ["target", "cases", *(outcome.value for outcome in Outcome)]
    body = [
        [name, str(sum(count.values())), *(str(count[outcome]) for outcome in Outcome)]
        for name, count in [*counts.items(), ("all", total)]
    ]
    widths = [max(len(row[i]) for row in [head, *body]) for i in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in [head, ["-" * width for width in widths], *body]
    ]
    return "\n".join(lines)
