"""Does a study's cost grow in proportion to its photos, timestamps and trials?

    python -m benchmarks.scaling

runs small studies of ``lower`` through the documented command, each of three sizes in one respect (photos of a
timestamp, people, and timestamps), and prints the seconds of their stages, the work in photo passes that the plan
counts, and seconds per size relative to the smallest: 1.00 is exactly linear. Timestamps are linear in training and,
because every model is tested on all earlier photos, quadratic in testing: their work is printed for that. About five
minutes.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks.paths.studies import run_study, stage_seconds

SPACE = """
name: scaling
description: one strategy, to see what grows with what
profile: {base: embedded, data: {timestamps: TIMESTAMPS, train: PHOTOS, test: PHOTOS}}
grid: {identity: PEOPLE, strategy: [lower], buffer_size: [3], learning_rate: [0.003]}
seeds: [0]
"""
USUAL = {"PHOTOS": 10, "PEOPLE": 1, "TIMESTAMPS": 3}
SIZES: Mapping[str, tuple[int, int, int]] = {"PHOTOS": (10, 20, 40), "PEOPLE": (1, 2, 4), "TIMESTAMPS": (2, 4, 8)}


def measured(folder: Path, sizes: Mapping[str, int]) -> tuple[float, float]:
    """Stage seconds and photo passes of a study."""
    space = folder.with_suffix(".yaml")
    text = SPACE
    for name, value in sizes.items():
        text = text.replace(name, str(value))
    space.write_text(text)
    run_study(folder, ("--space", str(space)), workers=1)  # two would share caches and memory with each other
    study = folder / "runs" / "scaling"
    work = sum(json.loads(path.read_text())["work"] for path in (study / "timings").glob("*.json"))
    return stage_seconds(study), work


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=[name.lower() for name in SIZES], nargs="+", default=[])
    only = parser.parse_args().only
    with tempfile.TemporaryDirectory() as temporary:
        for name, sizes in SIZES.items():
            if only and name.lower() not in only:
                continue
            first: tuple[float, float] | None = None
            for size in sizes:
                seconds, work = measured(Path(temporary) / f"{name}{size}", {**USUAL, name: size})
                first = first or (seconds, work)
                relative = seconds / first[0] / (size / sizes[0])
                per_pass = seconds / work / (first[0] / first[1])
                print(
                    f"{size:>3} {name.lower():<11} {seconds:7.1f} s of stages, {work:8.0f} photo passes; relative to "
                    f"{sizes[0]}: {relative:.2f} per {name.lower()}, {per_pass:.2f} per pass",
                    flush=True,
                )


if __name__ == "__main__":
    main()
