"""Errors for files from outside the package that are refused."""

from __future__ import annotations

from clstudy.errors import UserError


class CheckpointError(UserError):
    """A file that cannot be used as a generator. ``kind`` says what it is where that is known, else ''."""

    def __init__(self, message: str, *, kind: str = ""):
        super().__init__(message)
        self.kind = kind


class UnknownGlobals(CheckpointError):
    """The file names Python objects that no published generator needs.

    ``names`` are all of them.
    """

    def __init__(self, names: tuple[str, ...]):
        shown = ", ".join(map(_printable, names[:8])) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        super().__init__(
            f"it asks to import {shown}, which no StyleGAN2 or EG3D checkpoint needs, and a pickle can run any code "
            "that way; nothing was executed. Expected an official checkpoint (list of formats: "
            "python -m clstudy.generators inspect --help); get the file from its publisher again"
        )
        self.names = names


def _printable(name: str) -> str:
    """A name from a file as a short printable string."""
    return "".join(letter if letter.isprintable() else "?" for letter in name[:80]) + ("…" if len(name) > 80 else "")
