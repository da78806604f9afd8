"""Tells somebody who has gone away that a run is over: a bell in the terminal, or a command of theirs."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence

from clstudy.cli.command_line import typed_command

OUTCOMES: Mapping[int, str] = {
    0: "finished",
    1: "some trials failed or are missing",
    3: "stopped at its budget, or because the disk stayed full",
    130: "interrupted",
}
"""Exit code of a run that was started -> what to say of it."""
_SECONDS = 30.0


def notify_words(command: str) -> tuple[str, ...]:
    """A command as words, before anything has run.

    Raises:
        UserError: it has an open quote, or is empty.
    """
    return typed_command(command, "--notify-command", "a command, such as --notify-command 'notify-send clstudy'")


def notify(command: Sequence[str] | None, study: str, code: int) -> str | None:
    """Ring the terminal's bell, and run the command with one more word, the sentence to show.

    The command also finds ``CLSTUDY_STUDY`` and ``CLSTUDY_EXIT_CODE`` in its environment. It runs without a shell, and
    for half a minute at most.

    Returns:
        What went wrong with the command; None if nothing did.
    """
    if sys.stderr.isatty():
        print("\a", end="", file=sys.stderr, flush=True)
    if command is None:
        return None
    sentence = f"clstudy: {study}: {OUTCOMES.get(code, f'ended with {code}')}"
    environment = {**os.environ, "CLSTUDY_STUDY": study, "CLSTUDY_EXIT_CODE": str(code)}
    try:
        done = subprocess.run(
            [*command, sentence], env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"--notify-command {shlex.join(command)} did not work: {error}"
    return f"--notify-command {shlex.join(command)} ended with {done.returncode}" if done.returncode else None
