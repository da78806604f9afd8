"""``clstudy slurm``: what it writes, what it refuses, and a real SLURM that ends a job before its study is finished."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clstudy.analysis.matrix import load_rows
from clstudy.cli.commands import main
from clstudy.cluster.slurm import SlurmJob, batch_script, job_name, seconds_of, slurm_time
from clstudy.errors import UserError
from tests.support.slurm_here import missing, slurm_here

JOB = SlurmJob(name="clstudy-smoke", run=("--space", "smoke"), nodes=2, cpus=3, seconds=3600)


def directives(script: str) -> list[str]:
    return re.findall(r"^#SBATCH (.*)$", script, re.MULTILINE)


def test_times_are_slurms() -> None:
    for text, seconds in (("08:00:00", 28800), ("1-00:00:00", 86400), ("00:30", 1800), ("100:00:00", 360000)):
        assert seconds_of(text) == seconds == seconds_of(slurm_time(seconds))
    for wrong in ("8", "08:70:00", "", "8h", "-1:00:00", "08:00:00; rm -rf x"):
        with pytest.raises(UserError, match="--time is"):
            seconds_of(wrong)


def test_the_script_asks_for_what_was_said_and_is_a_script(tmp_path: Path) -> None:
    job = SlurmJob(
        name="clstudy-x", run=("--space", "my file.yaml", "--set", "a.b='c'"), nodes=4, cpus=16, gpus=2, seconds=28800,
        lead=600, directives=("--partition=gpu", "--constraint=a100"), setup=("module load cuda",),
        python=("apptainer", "exec", "--nv", "clstudy.sif", "python3"),
    )  # fmt: skip
    script = batch_script(job)
    asked = directives(script)
    assert {"--nodes=4", "--ntasks-per-node=1", "--cpus-per-task=16", "--gpus-per-node=2", "--time=08:00:00"} <= set(
        asked
    )
    assert {"--signal=B:USR1@600", "--requeue", "--partition=gpu", "--constraint=a100"} <= set(asked)
    assert "python=(apptainer exec --nv clstudy.sif python3)\n" in script
    assert script.index("module load cuda") < script.index("python=(")
    # sbatch reads directives only above the first command
    assert script.rindex("#SBATCH") < script.index("set -uo pipefail")
    (tmp_path / "job").write_text(script)
    assert subprocess.run(["bash", "-n", tmp_path / "job"], capture_output=True, text=True).stderr == ""
    (line,) = (line for line in script.splitlines() if "-m clstudy.run" in line)
    shown = subprocess.run(
        ["bash", "-c", f"python=(printf '%s\\n'); address=here; {line.rstrip('& ')}"], capture_output=True, text=True
    ).stdout.splitlines()
    assert shown == ["-m", "clstudy.run", *job.run, "--address", "here"], "words survive the shell"
    assert "--gpus-per-node" not in batch_script(JOB)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"nodes": 0}, "--nodes is 0"),
        ({"gpus": -1}, "--gpus is -1"),
        ({"lead": 60}, "--lead is 00:01:00"),
        ({"lead": 3600}, "--lead is 01:00:00 of --time 01:00:00"),
        ({"run": ("--space", "smoke", "--address", "auto")}, "--address"),
        ({"directives": ("no option",)}, "--sbatch is 'no option'"),
        ({"directives": ("--x\nrm -rf /",)}, "--sbatch is"),
    ],
)
def test_what_cannot_be_is_refused(changed: dict[str, object], said: str) -> None:
    given = {"name": "x", "run": ("--space", "smoke"), "nodes": 1, "cpus": 1, "seconds": 3600}
    with pytest.raises(UserError, match=re.escape(said)):
        SlurmJob(**{**given, **changed})


def test_names_are_plain() -> None:
    assert job_name("paper_2d") == "clstudy-paper_2d" and job_name("a b/my study.yaml") == "clstudy-my_study"


def test_a_mistake_for_the_run_is_found_before_the_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")  # no sbatch anywhere
    for typed, said in (
        (["--space", "smoke", "--idntities", "2"], "--idntities"),
        ([], "no search space given"),
        (["--space", "smoke", "--python", "'"], "--python is"),
    ):
        assert main(["slurm", "--time", "01:00:00", *typed]) == 2
        assert said in capsys.readouterr().err and not list(tmp_path.iterdir())
    assert main(["slurm", "--space", "smoke"]) == 2 and "--time is not given" in capsys.readouterr().err
    assert main(["slurm", "--time", "01:00:00", "--space", "smoke", "--seeds", "0,1", "--submit"]) == 2
    assert "no sbatch on this machine; clstudy-smoke.sbatch is written" in capsys.readouterr().err
    written = (tmp_path / "clstudy-smoke.sbatch").read_text()
    assert "-m clstudy.run --space smoke --seeds 0,1 --yes --address" in written


@pytest.mark.slow
@pytest.mark.skipif(bool(missing()), reason=missing() or "there")
def test_a_job_whose_time_is_up_goes_back_into_the_queue_and_its_study_goes_on(tmp_path: Path) -> None:
    """Rows as those of the same study on this machine without SLURM; nothing is left behind."""
    size = ["--space", "smoke", "--set", "trainer.epochs=240"]
    plain, folder = tmp_path / "plain", tmp_path / "queued"
    folder.mkdir()
    done = subprocess.run([sys.executable, "-m", "clstudy.run", *size, "--out", plain], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with slurm_here(tmp_path / "slurm") as environment:
        asked = ["--nodes", "2", "--cpus", "1", "--time", "00:06:00", "--lead", "00:04:00", "--submit"]
        written = subprocess.run(
            [sys.executable, "-m", "clstudy", "slurm", *asked, *size, "--out", "study"],
            cwd=folder, env=environment, capture_output=True, text=True,
        )  # fmt: skip
        assert written.returncode == 0 and "Submitted batch job" in written.stdout, written.stderr
        (number,) = re.findall(r"Submitted batch job (\d+)", written.stdout)
        deadline = time.monotonic() + 2400

        def state() -> str:
            shown = subprocess.run(["scontrol", "show", "job", number], env=environment, capture_output=True, text=True)
            (found,) = re.findall(r"JobState=(\w+)", shown.stdout)
            return found

        while state() not in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"):
            assert time.monotonic() < deadline, (folder / f"clstudy-smoke-{number}.log").read_text()
            time.sleep(2)
        said = (folder / f"clstudy-smoke-{number}.log").read_text()
        assert state() == "COMPLETED", said
    print(said)
    assert "240 seconds are left; no new stage begins" in said and "back into the queue" in said
    assert load_rows(folder / "study").equals(load_rows(plain))
    assert "Killed" not in said and not list(folder.glob("*.stop"))
    assert not list(Path("/tmp").glob(f"clstudy-ray-{number}"))
    left = subprocess.run(["ps", "-e", "-o", "args"], capture_output=True, text=True, check=True).stdout
    assert f"clstudy-ray-{number}/" not in left
