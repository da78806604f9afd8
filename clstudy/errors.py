"""Mistakes a user can mend: printed as one message, exit code 2, never a traceback."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable

from clstudy.safe_text import redacted


class UserError(Exception):
    """Says what was given, what was expected and what to do; passwords and tokens in its message are hidden."""

    def __init__(self, *parts: object):
        super().__init__(*(redacted(part) if isinstance(part, str) else part for part in parts))


class PhotoError(UserError):
    """A photo is missing, unreadable or changed; the message names the file."""


def require_supported_system() -> None:
    """Refuse Windows before a module is imported that needs ``fcntl``.

    Raises:
        UserError: this is Windows.
    """
    if sys.platform == "win32":
        raise UserError(
            "clstudy runs on Linux and macOS: its locks need fcntl, which Windows does not have; on Windows, install "
            "it in WSL 2 (`wsl --install`) and run it there"
        )


def nearest(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the closest known name, or an empty string."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {match[0]!r}?" if match else ""
