"""clstudy noise STUDY REPETITION: how much of a study's differences another processor's rounding could be."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from clstudy.analysis.noise_floor import measure_noise_floor
from clstudy.analysis.report import build_report
from clstudy.cli.command_line import FOLDER, columns, command
from clstudy.records.noise_floor import NOISE, write_noise_floor


@command(
    "noise",
    help="Measure the noise floor of a study's arithmetic: compare it with trials of it that another kind of processor "
    "computed (the same space into another folder, with --set compute.instruction_set=avx2, or on another machine), or "
    "with another precision or other kernels (--set compute.precision=bf16). "
    "Writes STUDY/report/noise.json, and the report sets every difference against it.",
    epilog="Exit code: 0 measured, 2 bad folder, or the two differ in more than the processor.",
)
@click.argument("study", type=FOLDER, metavar="STUDY", help="a folder such as runs/hull_sizes")
@click.argument("repetition", type=FOLDER, metavar="REPETITION", help="the same trials, computed otherwise")
def noise(study: str, repetition: str) -> int:
    """Measure, keep and print it."""
    floor = measure_noise_floor(Path(study), Path(repetition))
    write_noise_floor(Path(study), floor)
    build_report(study)
    rows = [("score", "trials", "root mean square", "largest change of a trial's score")]
    rows += [
        (f"{one.protocol} {one.metric} {one.score}", str(one.trials), f"{one.rms:.2e}", f"{one.largest:.2e}")
        for one in floor.scores
    ]
    sys.stdout.write(f"{floor.there} instead of {floor.here}\n" + "\n".join(columns(rows)) + "\n")
    sys.stdout.write(f"Written: {Path(study) / NOISE}; the report's section says what it means\n")
    return 0
