"""``clstudy profiles``: lists profiles, and checks whether a profile of your own is valid."""

from __future__ import annotations

from collections.abc import Sequence

import click

from clstudy.cli.checks import print_findings
from clstudy.cli.command_line import columns, completing, group, verbatim
from clstudy.settings.profiles import PROFILES

_CHECK_HELP = """\
Calls each profile's function twice and says for every check whether it holds, and if not, why: settings by their types
and ranges, generator, workload and metrics, weights, study.yaml, keys. Nothing is trained.

A profile is named as in a search space:
  embedded                 a registered one (see list)
  package.module:name      a function of your own without arguments, found from the current folder
"""

_EXIT_CODES = "exit code: 0 every check passed, 1 a check failed, 2 a profile cannot be found"


def profile_lines() -> list[str]:
    """All registered profiles, one per line in columns."""
    rows = [("name", "workload", "generator", "image size", "description")]
    for name, make in PROFILES.items():
        profile = make()
        size = f"{profile.data.image_size} px"
        rows.append((name, profile.workload, profile.generator, size, " ".join(profile.description.split())))
    return columns(rows)


def check(names: Sequence[str]) -> int:
    """Check profiles, print a line per check, return how many checks failed.

    Raises:
        UserError: one of them cannot be found; nothing has been checked then.
    """
    from clstudy.study.profile_check import CHECKS, check_profile

    for name in names:
        _ = PROFILES[name]
    return print_findings(((name, check_profile(name)) for name in names), CHECKS)


@group("profiles", help="List profiles, or check one of your own.")
def profiles() -> None:
    """The group; each command is declared below."""


@profiles.command("list", help="every registered profile: its workload, generator, image size")
def list_profiles() -> None:
    """Print a table."""
    print("\n".join(profile_lines()))


@profiles.command("check", short_help="check profiles", help=verbatim(_CHECK_HELP), epilog=_EXIT_CODES)
@click.argument(
    "names",
    nargs=-1,
    metavar="[PROFILE]...",
    shell_complete=completing(lambda: PROFILES),
    help="default: every registered one",
)
def check_profiles(names: tuple[str, ...]) -> int:
    """Print a line per check."""
    return 1 if check(names or list(PROFILES)) else 0
