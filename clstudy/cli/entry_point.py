"""Runs every command with private files, clean output, one prefix for errors, and exit codes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack

import click

from clstudy.cli.clean_output import clean_streams
from clstudy.errors import UserError
from clstudy.storage.file_modes import new_files

WRONG_INPUT, INTERRUPTED = 2, 130


def invoke(command: click.Command, arguments: Sequence[str] | None, program: str) -> int:
    """Run a command; returns its exit code.

    File permissions follow ``clstudy.storage.file_modes``, and what is printed is free of control characters and
    secrets; both are restored on return. A user's mistake, in the options or in what they name, gives one message
    after ``error: `` on standard error and exit code 2.

    Args:
        arguments: as typed; None: those of this process.
        program: what is typed before them; the help repeats it.
    """
    typed = list(sys.argv[1:] if arguments is None else arguments)
    with clean_streams(), ExitStack() as files:
        try:
            files.enter_context(new_files())
            # not ``command.main``, which takes an EOFError of ours for Ctrl-D
            with command.make_context(program, typed) as context:
                code = command.invoke(context)
            return code if isinstance(code, int) else 0
        except click.exceptions.Exit as end:
            return end.exit_code
        except click.ClickException as error:
            if isinstance(error, click.UsageError) and error.ctx is not None:
                where = error.ctx
                print(f"{where.get_usage()}\nTry '{where.command_path} --help' for help.\n", file=sys.stderr)
            say_error(error.format_message())
            return WRONG_INPUT
        except UserError as error:
            say_error(error)
            return WRONG_INPUT
        except KeyboardInterrupt:
            say_error("interrupted")
            return INTERRUPTED


def say_error(error: object) -> None:
    """Print what went wrong, in the form that all commands share."""
    print(f"error: {error}", file=sys.stderr)
