"""Damage every kind of file of a study and every kind of input at random, and count what becomes of it.

    python -m benchmarks.fuzz [--cases 5000] [--seed 0] [--target NAME …] [--case N] [--keep FOLDER] [--verbose]

Every case damages one copy of real material and does what a user's command does, in a process of its own with 10 s and
1 GB. Counted: a clear error, something made again, no difference; and what must not happen: another answer without a
word, a traceback, more than 10 s or 1 GB. Exit code: 0 none of the last three, 1 some, 2 no such target.
"""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy and torch: threads do not survive a fork

import benchmarks.fuzz
from benchmarks.fuzz.harness import FAILURES, Outcome, Target, run_cases, table

DEFAULT_CASES = 5000


def all_targets() -> list[Target]:
    """What the modules of this package list under ``TARGETS``."""
    names = sorted(module.name for module in pkgutil.iter_modules(benchmarks.fuzz.__path__) if module.name[0] != "_")
    modules = [importlib.import_module(f"benchmarks.fuzz.{name}") for name in names]
    return [target for module in modules for target in getattr(module, "TARGETS", ())]


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=DEFAULT_CASES, help="of all targets together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", action="append", help="one target (may be given several times); default: all")
    parser.add_argument("--case", type=int, help="only the case of this number, of each target")
    parser.add_argument("--keep", type=Path, help="keep the material of failing cases in this folder")
    parser.add_argument("--verbose", action="store_true", help="print every case, not only failing ones")
    parser.add_argument("--list", action="store_true", help="print the targets and stop")
    args = parser.parse_args(arguments)
    targets = all_targets()
    known = {target.name for target in targets}
    if unknown := set(args.target or ()) - known:
        print(f"error: no target {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}", file=sys.stderr)
        return 2
    if args.list:
        print("\n".join(sorted(known)))
        return 0
    chosen = [target for target in targets if not args.target or target.name in args.target]
    counts: dict[str, Counter[Outcome]] = {}
    slowest, largest = 0.0, 0.0
    for prepared, ending in run_cases(chosen, args.cases, args.seed, keep=args.keep, only=args.case):
        counts[ending.target] = prepared.counts
        slowest, largest = max(slowest, ending.seconds), max(largest, ending.megabytes)
        if ending.outcome in FAILURES or args.verbose or args.case is not None:
            print(f"--target {ending.target} --case {ending.case}: {ending.outcome.value} ({ending.damage})")
            print("    " + ending.words.strip().replace("\n", "\n    "), flush=True)
    print(table(counts))
    print(f"slowest case {slowest:.1f} s, largest {largest:.0f} MB above its beginning, seed {args.seed}")
    return int(any(count[failure] for count in counts.values() for failure in FAILURES))


if __name__ == "__main__":
    sys.exit(main())
