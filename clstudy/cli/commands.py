"""``clstudy COMMAND``: all commands under one name. A command's module is imported only when it is used."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

import click

from clstudy.cli.command_line import Group
from clstudy.cli.entry_point import invoke

PROGRAM = "clstudy"
COMPLETION = "_CLSTUDY_COMPLETE"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Module and name of a command, and its line in the list of commands (empty: not listed)."""

    module: str
    name: str
    line: str = ""


ENTRIES = {
    "run": Entry(module="run", name="run", line="run a study: all trials of a search space, resumable"),
    "status": Entry(module="status", name="status", line="what a study has done and what it is doing, while it runs"),
    "report": Entry(module="report", name="report", line="make a study's report again from its rows"),
    "compare": Entry(
        module="report", name="compare", line="set studies against the first: what differs, paired differences"
    ),
    "pool": Entry(module="pool", name="pool", line="make one study of several on different people"),
    "noise": Entry(module="noise", name="noise", line="set a study's differences against rounding on other processors"),
    "bench": Entry(module="bench", name="bench", line="a strategy of your own against all others, on a fixed task"),
    "slurm": Entry(module="slurm", name="slurm", line="a batch script that runs a study on a SLURM cluster"),
    "doctor": Entry(module="doctor", name="doctor", line="check this machine, or a cluster, before a study"),
    "identities": Entry(module="identities", name="identities", line="photo folders: prepare one, check one"),
    "forget": Entry(module="identities", name="forget", line="remove one person from studies and MLflow"),
    "strategies": Entry(module="strategies", name="strategies", line="list strategies, check one of your own"),
    "profiles": Entry(module="profiles", name="profiles", line="list profiles, check one of your own"),
    "metrics": Entry(module="metrics", name="metrics", line="list metrics, make the weights that some need"),
    "generators": Entry(module="generators", name="generators", line="list generators, check one; checkpoint files"),
    "workloads": Entry(module="workloads", name="workloads", line="list what a stage can do, check one of your own"),
    "export": Entry(module="generators", name="export", line="write a trial's final generator for use elsewhere"),
    "loss-path": Entry(module="loss_path", name="loss_path", line="the loss along lines between stages"),
    "storage": Entry(module="storage", name="storage", line="copy studies between folders and object stores"),
    "tracking": Entry(module="tracking", name="tracking", line="write a study's MLflow runs again from its rows"),
    "export-runs": Entry(
        module="tracking", name="export_runs", line="write a study's runs for TensorBoard or Weights & Biases"
    ),
    "ui": Entry(module="ui", name="ui", line="MLflow's pages of the runs, in a browser"),
    "assets": Entry(module="assets", name="assets"),
    "pretraining": Entry(module="pretraining", name="pretraining"),
}


class LazyGroup(Group):
    """``ENTRIES`` as a group."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name, entry in ENTRIES.items() if entry.line]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = ENTRIES.get(cmd_name)
        return None if entry is None else getattr(import_module(f"clstudy.cli.{entry.module}"), entry.name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.line) for name, entry in ENTRIES.items() if entry.line])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[click.shell_completion.CompletionItem]:
        """Complete command names without importing any command."""
        found = [
            click.shell_completion.CompletionItem(name, help=entry.line)
            for name, entry in ENTRIES.items()
            if entry.line and name.startswith(incomplete)
        ]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]


@click.group(
    PROGRAM,
    cls=LazyGroup,
    help="Which memory of the past keeps a personalised face generator from forgetting, and how sure can we be?",
    epilog="`clstudy COMMAND --help` says more. `python -m clstudy.run` is `clstudy run`, and so on.",
)
def clstudy_command() -> None:
    """The top-level group; it does nothing itself."""


def main(arguments: Sequence[str] | None = None, program: str = PROGRAM) -> int:
    """Entry point; returns the exit code. Without arguments it prints the help."""
    if instruction := os.environ.get(COMPLETION):
        return click.shell_completion.shell_complete(clstudy_command, {}, PROGRAM, COMPLETION, instruction)
    typed = list(sys.argv[1:] if arguments is None else arguments)
    return invoke(clstudy_command, typed or ["--help"], program)
