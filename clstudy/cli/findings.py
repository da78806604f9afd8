"""How the findings of a conformance suite are printed (``strategies check``, ``metrics check``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol


class Finding(Protocol):
    """What one check found."""

    @property
    def check(self) -> str:
        """Its name."""

    @property
    def passed(self) -> bool:
        """Whether it held."""

    @property
    def message(self) -> str:
        """The first failure; empty if it held."""


def print_findings(name: str, findings: Sequence[Finding], checks: Mapping[str, object]) -> int:
    """Print what was looked at and a line per check; returns how many failed.

    Args:
        checks: name -> function whose docstring says what has to hold.
    """
    width = max(map(len, checks))
    print(name)
    for finding in findings:
        if finding.passed:
            print(f"  ok      {finding.check:<{width}}  {checks[finding.check].__doc__}")
        else:
            print(f"  FAILED  {finding.check:<{width}}  {finding.message}")
    return sum(not finding.passed for finding in findings)


def conclusion(failed: int) -> str:
    """The last line."""
    return f"failed checks: {failed}" if failed else "every check passed"
