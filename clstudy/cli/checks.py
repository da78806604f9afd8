"""Prints what the ``check`` commands find in a user's own strategy, metric, profile, generator or workload."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from clstudy.registry import Finding

EXIT_CODES = "exit code: 0 every check passed, 1 a check failed, 2 one of them cannot be found"


Promise = str | Callable[..., object]
"""What has to hold: a sentence, or a function whose docstring states it."""


def print_findings(found: Iterable[tuple[str, Sequence[Finding]]], checks: Mapping[str, Promise]) -> int:
    """Print a line per check under each name, as results come in; returns how many failed.

    Args:
        found: each name with the findings about it.
        checks: name of a check -> the promise that it tests.
    """
    promises = {name: _words(promise) for name, promise in checks.items()}
    width = max(map(len, promises))
    failed = 0
    for name, findings in found:
        print(name)
        for finding in findings:
            verdict, words = ("ok    ", promises[finding.check]) if finding.passed else ("FAILED", finding.message)
            print(f"  {verdict}  {finding.check:<{width}}  {words}")
        failed += sum(not finding.passed for finding in findings)
    print(f"failed checks: {failed}" if failed else "every check passed")
    return failed


def _words(promise: Promise) -> str:
    return promise if isinstance(promise, str) else " ".join((promise.__doc__ or "").split())
