"""``clstudy slurm``: a batch script that runs a study on a SLURM cluster."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from clstudy.cli.command_line import command, flag, option, typed_command, verbatim
from clstudy.cli.run import run
from clstudy.cluster.slurm import SlurmJob, batch_script, job_name, seconds_of, slurm_time, submit
from clstudy.errors import UserError

_EPILOG = """
clstudy slurm --nodes 4 --gpus 4 --time 08:00:00 --space paper_2d
clstudy slurm --nodes 2 --cpus 16 --time 1-00:00:00 --space hull_sizes --partition long --submit

Whatever else is typed goes to `clstudy run`. Exit code: 0 done, 2 wrong input, or sbatch refuses the script.
"""

_PYTHON = "the words that start Python on a node"


@command(
    "slurm",
    help="Write a batch script that starts Ray on the nodes of an allocation, runs a study there, lets the stages in "
    "flight finish before the time is up, and puts itself back into the queue until the study is finished. Run it in "
    "the folder to compute in, which all nodes must share.",
    epilog=verbatim(_EPILOG),
    context_settings={"ignore_unknown_options": True},
)
@option("--nodes", type=int, default=1, show_default=True, help="nodes of the allocation")
@option("--gpus", type=int, default=0, show_default=True, help="GPUs on each node")
@option("--cpus", type=int, default=8, show_default=True, help="CPU cores on each node")
@option("--time", "limit", help="until SLURM ends the job: HH:MM:SS or DAYS-HH:MM:SS (required)")
@option(
    "--lead", default="00:15:00", show_default=True, help="before that: when no new stage begins; longer than a stage"
)
@option("--restarts", type=int, default=50, show_default=True, help="how often it goes back into the queue at most")
@option("--partition", help="as for sbatch")
@option("--account", help="as for sbatch")
@option("--memory", help="as --mem for sbatch, for each node")
@option("--sbatch", "directives", multiple=True, help="another option of sbatch, whole: --sbatch=--constraint=a100")
@option("--setup", multiple=True, help="a line of shell to begin with, such as 'module load cuda'")
@option(
    "--python",
    help="words that start Python on a node, such as 'apptainer exec --nv clstudy.sif python3' (default: this Python)",
)
@option(
    "--to", type=click.Path(dir_okay=False, path_type=Path), help="the file to write (default: clstudy-SPACE.sbatch)"
)
@flag("--submit", "submit_it", help="hand it in, too")
@click.argument("run_options", nargs=-1, type=click.UNPROCESSED)
def slurm(
    nodes: int,
    gpus: int,
    cpus: int,
    limit: str | None,
    lead: str,
    restarts: int,
    partition: str | None,
    account: str | None,
    memory: str | None,
    directives: tuple[str, ...],
    setup: tuple[str, ...],
    python: str | None,
    to: Path | None,
    submit_it: bool,
    run_options: tuple[str, ...],
) -> None:
    """Write the script, and hand it in where that is asked for."""
    space = _space_of(run_options)
    if limit is None:
        raise UserError("--time is not given; say how long a job may take on your cluster, such as --time 08:00:00")
    name = job_name(space)
    named = (("partition", partition), ("account", account), ("mem", memory))
    job = SlurmJob(
        name=name,
        run=(*run_options, *(() if "--yes" in run_options else ("--yes",))),
        nodes=nodes,
        cpus=cpus,
        gpus=gpus,
        seconds=seconds_of(limit),
        lead=seconds_of(lead, "--lead"),
        restarts=restarts,
        directives=(*(f"--{option}={value}" for option, value in named if value), *directives),
        setup=setup,
        python=(sys.executable,) if python is None else typed_command(python, "--python", _PYTHON),
    )
    script = to or Path(f"{name}.sbatch")
    try:
        script.write_text(batch_script(job))
    except OSError as error:
        raise UserError(f"{script} cannot be written ({error.strerror}); name another file with --to") from error
    print(f"wrote {script}: {nodes} nodes for {slurm_time(job.seconds)}")
    print(submit(script) if submit_it else f"hand it in with: sbatch {script}")


def _space_of(run_options: tuple[str, ...]) -> str:
    """The space that ``clstudy run`` would read from these words; mistakes in them are refused here, not on a node."""
    with run.make_context("clstudy slurm", list(run_options)) as context:
        space = context.params["space"]
    if not space:
        raise UserError("no search space given; use --space paper_2d, or `clstudy run --list` to see what there is")
    return str(space)
