"""python -m benchmarks: every hot path against a stated baseline, in one run, in one table.

    python -m benchmarks                                 # about half an hour on 2 cores
    python -m benchmarks --only personalise inversion    # some paths
    python -m benchmarks --compare 5f461eb               # and what that commit takes, measured by turns

Both sides of a path, and the other checkout, do their work by turns, so that whatever else the machine does falls on
all of them; a ratio is the median over rounds of the ratio within a round. Seconds are processor time of one thread
where a path is arithmetic, and elapsed time where other processes take part (*). "Of peak" is the share of the float32
matrix product that the same thread reaches in the same rounds. The last table is what sharing stages saves in every
packaged search space, by counting.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.paths import PATHS
from benchmarks.paths.base import BASELINE, OURS
from benchmarks.sharing import Sharing, sharing_of_packaged_spaces

_ROOT = Path(__file__).resolve().parents[1]
OTHER = "other"


class WorkerError(RuntimeError):
    """A worker could not do what it was asked to; the message is the worker's."""


class WorkerProcess:
    """A worker with one checkout's clstudy (``benchmarks.worker``)."""

    def __init__(self, checkout: Path, scratch: Path, threads: int) -> None:
        # these benchmarks, whatever the checkout has under that name, and its clstudy before an installed one
        ours = scratch / "ours"
        ours.mkdir(exist_ok=True)
        if not (ours / "benchmarks").exists():
            (ours / "benchmarks").symlink_to(_ROOT / "benchmarks")
        environment = os.environ | {
            "PYTHONPATH": f"{ours}{os.pathsep}{checkout}",
            **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads)),
        }
        command = [sys.executable, "-P", "-m", "benchmarks.worker"]
        self._process = subprocess.Popen(
            command, env=environment, cwd=scratch, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, **asked: Any) -> dict[str, Any]:
        """One line there and one back.

        Raises:
            WorkerError: it failed, or ended.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise WorkerError(f"the process ended with {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)


@dataclass(frozen=True)
class Measured:
    """One row of the table.

    Attributes:
        path: its name.
        seconds: side -> seconds per unit, of each round.
        peak_share: share of the matrix product's peak, of each round; empty where the path is not arithmetic.
        problem: why there are no figures; empty if there are.
    """

    path: str
    seconds: Mapping[str, Sequence[float]]
    peak_share: Sequence[float] = ()
    problem: str = ""

    def median(self, side: str) -> float | None:
        """Seconds per unit."""
        return statistics.median(self.seconds[side]) if self.seconds.get(side) else None

    def ratio(self, side: str) -> float | None:
        """How many times as long as ours a side takes: median of the rounds' ratios."""
        if not self.seconds.get(side):
            return None
        return statistics.median(b / a for a, b in zip(self.seconds[OURS], self.seconds[side], strict=True))

    def document(self) -> dict[str, Any]:
        """Plain values for ``--json``."""
        kind = PATHS[self.path]
        return asdict(self) | {
            "title": kind.title,
            "unit": kind.unit,
            "baseline": kind.baseline,
            "clock": "elapsed" if kind.elapsed else "processor",
            "median_seconds": {side: self.median(side) for side in self.seconds},
            "baseline_over_ours": self.ratio(BASELINE),
            "other_over_ours": self.ratio(OTHER),
            "median_peak_share": statistics.median(self.peak_share) if self.peak_share else None,
        }


def measure(name: str, ours: WorkerProcess, other: WorkerProcess | None, rounds: int | None) -> Measured:
    """All rounds of one path."""
    kind = PATHS[name]
    try:
        prepared = ours.ask(prepare=name)
    except WorkerError as error:
        return Measured(name, {}, problem=str(error))
    sides = [(side, ours, side, units) for side, units in prepared["units"].items()]
    problem = ""
    if other is not None and kind.comparable:
        try:
            there = other.ask(prepare=name, only=OURS)
            sides.append((OTHER, other, OURS, there["units"][OURS]))
        except WorkerError as error:
            problem = f"the other checkout: {error}"
    seconds: dict[str, list[float]] = {side: [] for side, *_ in sides}
    share = []
    work = prepared["flop"][OURS]
    for number in range(rounds or kind.rounds):
        peak = ours.ask(peak=True)["flops"] if work else None
        # the other way round in every second round: what comes first may find a cooler or a busier processor
        for side, worker, what, units in sides if number % 2 == 0 else reversed(sides):
            seconds[side].append(worker.ask(measure=what)["seconds"] / units)
        if peak:
            share.append(work / prepared["units"][OURS] / seconds[OURS][-1] / peak)
    return Measured(name, seconds, share, problem)


@contextmanager
def checkout_of(commit: str) -> Iterator[Path]:
    """A commit's files in a temporary folder.

    Raises:
        SystemExit: git has no such commit.
    """
    archive = subprocess.run(["git", "archive", commit], cwd=_ROOT, capture_output=True)
    if archive.returncode != 0:
        sys.exit(f"error: --compare {commit}: {archive.stderr.decode().strip()}; give a commit of this repository")
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=BytesIO(archive.stdout)) as files:
            files.extractall(folder, filter="data")
        yield Path(folder)


def seconds_text(seconds: float | None) -> str:
    """Seconds with three digits and a fitting unit."""
    if seconds is None:
        return "–"
    for factor, unit in ((1e6, "µs"), (1e3, "ms")):
        if seconds * factor < 1000:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s"


def times_text(ratio: float | None) -> str:
    """A ratio, as a multiple."""
    return "–" if ratio is None else f"{ratio:.2f}×" if ratio < 100 else f"{ratio:.0f}×"


def table_of(results: Sequence[Measured], commit: str | None) -> Table:
    """The table for a terminal."""
    table = Table(title="Hot paths", box=None, header_style="bold")
    titles = ("path", "per", "ours", "baseline", "baseline / ours", "of peak")
    for title in (*titles, *([f"{commit} / ours"] if commit else [])):
        table.add_column(title, justify="left" if title in ("path", "per", "baseline") else "right", overflow="fold")
    for one in results:
        kind = PATHS[one.path]
        share = f"{statistics.median(one.peak_share):.0%}" if one.peak_share else "–"
        ours = seconds_text(one.median(OURS)) + ("*" if kind.elapsed else "")
        row = [kind.title, kind.unit, ours, kind.baseline, times_text(one.ratio(BASELINE)), share]
        table.add_row(*row, *([times_text(one.ratio(OTHER))] if commit else []))
    return table


def sharing_table(spaces: Sequence[Sharing]) -> Table:
    """What sharing saves, by counting stages and photo passes of the plans."""
    table = Table(title="Sharing (planned; at least so much)", box=None, header_style="bold")
    for title in ("space", "stages without", "with", "gain"):
        table.add_column(title, justify="left" if title == "space" else "right")
    for one in spaces:
        gain = "–" if one.problem else f"÷{one.without / one.shared:.2f}"
        table.add_row(one.space, *((one.problem, "", "") if one.problem else (str(one.without), str(one.shared), gain)))
    return table


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=[*PATHS, "sharing"], metavar="PATH", help=", ".join(PATHS))
    parser.add_argument("--compare", metavar="COMMIT", help="measure another commit of this repository by turns")
    parser.add_argument("--rounds", type=int, help="rounds of every path (default: 5, and fewer where one takes long)")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch and BLAS (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures, round by round, too")
    args = parser.parse_args()
    wanted = args.only or [*PATHS, "sharing"]
    console = Console() if sys.stdout.isatty() else Console(width=160)
    results = []
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ours = WorkerProcess(_ROOT, scratch, args.threads)
        stack.callback(ours.close)
        machine = ours.ask(describe=True) | {"gflops": round(ours.ask(peak=True)["flops"] / 1e9, 1)}
        other = None
        if args.compare:
            other = WorkerProcess(stack.enter_context(checkout_of(args.compare)), scratch, args.threads)
            stack.callback(other.close)
        print(
            f"{machine['processor']}, {machine['cores']} cores, {machine['instruction_set']}, torch {machine['torch']} "
            f"with {machine['threads']} thread(s); float32 matrix product {machine['gflops']:g} GFLOP/s"
        )
        for name in (name for name in PATHS if name in wanted):
            print(f"{PATHS[name].title} …", file=sys.stderr, flush=True)
            results.append(measure(name, ours, other, args.rounds))
    spaces = sharing_of_packaged_spaces() if "sharing" in wanted else []
    if results:
        console.print(table_of(results, args.compare))
    for one in results:
        if one.problem:
            print(f"{PATHS[one.path].title}: {one.problem}", file=sys.stderr)
    if spaces:
        console.print(sharing_table(spaces))
    if args.json:
        document = {
            "machine": machine,
            "compared_with": args.compare,
            "paths": [one.document() for one in results],
            "sharing": [asdict(one) for one in spaces],
        }
        args.json.write_text(json.dumps(document, indent=2) + "\n")
    return int(any(one.problem for one in results))


if __name__ == "__main__":
    sys.exit(main())
