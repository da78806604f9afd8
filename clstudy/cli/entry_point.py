"""What every command of the package does around its own work: private files, clean output."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from typing import ParamSpec, TypeVar

from clstudy.cli.clean_output import clean_streams
from clstudy.errors import UserError
from clstudy.storage.file_modes import new_files

P = ParamSpec("P")
T = TypeVar("T")


def entry_point(main: Callable[P, T]) -> Callable[P, T]:
    """Decorate the ``main`` of a command with the modes of its files and the cleaning of what it prints.

    What it writes is readable as ``clstudy.storage.file_modes`` says, what it prints is free of control characters and
    secrets. Both are as before when it returns.
    """

    @wraps(main)
    def run(*arguments: P.args, **options: P.kwargs) -> T:
        with clean_streams(), ExitStack() as files:
            try:
                files.enter_context(new_files())
            except UserError as error:
                print(f"error: {error}", file=sys.stderr)
                sys.exit(2)
            return main(*arguments, **options)

    return run
