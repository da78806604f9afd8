"""Findings about something that a user brought, as the ``check`` commands print them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from clstudy.registry import Finding

EXIT_CODES = "exit code: 0 every check passed, 1 a check failed, 2 one of them cannot be found"


def print_findings(found: Iterable[tuple[str, Iterable[Finding]]]) -> int:
    """Print a line per check under each name; returns 1 if one failed, else 0."""
    listed: Mapping[str, list[Finding]] = {name: list(findings) for name, findings in found}
    width = max((len(finding.check) for findings in listed.values() for finding in findings), default=0)
    failed = 0
    for name, findings in listed.items():
        print(name)
        for finding in findings:
            verdict, words = ("FAILED", finding.problem) if finding.problem else ("ok    ", finding.promise)
            print(f"  {verdict}  {finding.check:<{width}}  {words}")
            failed += bool(finding.problem)
    print(f"failed checks: {failed}" if failed else "every check passed")
    return 1 if failed else 0
