"""``clstudy workloads``: lists workloads (what a stage does), and checks them against the contract."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import click

from clstudy.cli.checks import EXIT_CODES, print_findings
from clstudy.cli.command_line import columns, completing, group, option, verbatim
from clstudy.cli.entry_point import invoke
from clstudy.registry import findings_of
from clstudy.settings.named_profiles import named_profile
from clstudy.settings.profiles import PROFILES, Profile, smoke
from clstudy.workloads import WORKLOADS

_CHECK_HELP = """\
Runs two stages of a made-up person with each workload and says for every promise of the contract whether it holds.
The contract is explained in clstudy/workloads/workload.py.

A workload is named as in a profile:
  personalise            a registered one (see list)
  package.module:Class   a class of your own, found from the current folder

Its settings are those of --profile; choose one that trains for seconds.
"""


@group("workloads", help="List workloads (what a stage does), or hold one to the contract.")
def workloads() -> None:
    """The group; each command is declared below."""


@workloads.command("list", help="every registered workload: what a stage of it does")
def list_workloads() -> None:
    """Print a table."""
    rows = [("name", "what a stage does"), *((name, kind.description) for name, kind in WORKLOADS.items())]
    print("\n".join(columns(rows)))


def _profile(name: str, profile: str | None) -> Profile:
    """The requested profile with the workload put into it."""
    if profile is not None:
        return replace(named_profile(profile), workload=name)
    quickest = smoke()
    made = (quickest, *(make() for _, make in PROFILES.items()))
    return next((one for one in made if one.workload == name), replace(quickest, workload=name))


@workloads.command("check", short_help="hold workloads to the contract", help=verbatim(_CHECK_HELP), epilog=EXIT_CODES)
@click.argument(
    "names",
    nargs=-1,
    metavar="[WORKLOAD]...",
    shell_complete=completing(lambda: WORKLOADS),
    help="default: every registered one",
)
@option("--profile", metavar="PROFILE", help="whose settings are used (default: smoke's, or the workload's own)")
@option("--weights", multiple=True, metavar="FOLDER|ROLE=FILE", help="as in python -m clstudy.run")
def check_workloads(names: tuple[str, ...], *, profile: str | None, weights: tuple[str, ...]) -> int:
    """Print a line per check."""
    from clstudy.study.opened_parts import opened_workload

    chosen = {name: _profile(name, profile) for name in names or WORKLOADS}
    for name in chosen:
        WORKLOADS[name]  # all of them are looked up before one is run
    from clstudy.workloads.conformance import CHECKS, WorkloadInHand

    found = (
        (name, findings_of(CHECKS, WorkloadInHand(*opened_workload(settings, list(weights)))))
        for name, settings in chosen.items()
    )
    return 1 if print_findings(found, CHECKS) else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return invoke(workloads, arguments, "clstudy workloads")
