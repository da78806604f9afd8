"""``python -m clstudy.strategies``: lists strategies, and checks them against the contract."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import click

from clstudy.cli.checks import print_findings
from clstudy.cli.command_line import columns, completing, group, verbatim
from clstudy.cli.entry_point import invoke
from clstudy.errors import UserError
from clstudy.strategies.base import STRATEGIES, Strategy
from clstudy.strategies.lookup import make_strategy
from clstudy.strategies.testing.conformance import CHECKS, check_strategy

_CHECK_HELP = """\
Runs short generated trials with each strategy and says for every promise of the contract whether it holds, and if
not, in which situation. The contract is explained in clstudy/strategies/base.py.

A strategy is named as in a search space:
  er_rand                  a registered one (see list)
  ewc(weight=100.0)        with settings (quote it for the shell)
  package.module:Class     a class of your own, found from the current folder
"""

_EXIT_CODES = "exit code: 0 every check passed, 1 a check failed, 2 a strategy cannot be found"


def strategy_lines() -> list[str]:
    """All registered strategies, one per line in columns."""
    rows = [("name", "stores", "balanced", "what it does (source)")]
    rows += [
        (name, _stored(strategy), "yes" if strategy.balanced else "no", strategy.description)
        for name, strategy in STRATEGIES.items()
    ]
    return columns(rows)


def _stored(strategy: type[Strategy]) -> str:
    if strategy.stores_photos:
        return "photos"
    return "anchors" if strategy.stores_anchors else "nothing"


def check(names: Sequence[str]) -> int:
    """Check strategies, print a line per check, return how many checks failed.

    Raises:
        UserError: one of them cannot be made; nothing has been checked then.
    """
    for name in names:
        try:
            make_strategy(name)
        except UserError:
            raise
        except Exception:
            pass  # the class exists but raises: a finding like any other
    return print_findings(((name, check_strategy(partial(make_strategy, name))) for name in names), CHECKS)


@group("strategies", help="List strategies, or hold one to the contract.")
def strategies() -> None:
    """The group; each command is declared below."""


@strategies.command("list", help="every registered strategy: what it stores, whether balanced, its source")
def list_strategies() -> None:
    """Print a table."""
    print("\n".join(strategy_lines()))


@strategies.command(
    "check", short_help="hold strategies to the contract", help=verbatim(_CHECK_HELP), epilog=_EXIT_CODES
)
@click.argument(
    "names",
    nargs=-1,
    metavar="[STRATEGY]...",
    shell_complete=completing(lambda: STRATEGIES),
    help="default: every registered one",
)
def check_strategies(names: tuple[str, ...]) -> int:
    """Print a line per check."""
    return 1 if check(names or list(STRATEGIES)) else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return invoke(strategies, arguments, "python -m clstudy.strategies")
