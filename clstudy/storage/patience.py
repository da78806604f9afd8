"""Waits for a storage that fails temporarily: one that does not answer, or is full."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable
from typing import TypeVar

from clstudy.errors import UserError
from clstudy.storage.places import NoPlainFileError, first_line

T = TypeVar("T")
_LOG = logging.getLogger(__name__)
_PAUSES_S = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0)
"""Seconds between tries while the storage does not answer: about a minute in all."""
_FULL_PAUSE_S = 10.0
_FULL_PATIENCE_S = 900.0
"""Seconds that a write waits for somebody to make room on a full disk."""
# errors that waiting does not fix
_PERMANENT = (
    FileNotFoundError,
    PermissionError,
    NotADirectoryError,
    IsADirectoryError,
    FileExistsError,
    NoPlainFileError,
)


def is_full(error: OSError) -> bool:
    """Whether the disk (or the quota) is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def patiently(
    action: Callable[[], T],
    say: Callable[[str], None] = lambda text: None,
    *,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """Call ``action()``, and repeat it while the storage does not answer (about a minute) or is full (15 minutes).

    Args:
        action: must be safe to repeat.
        say: called with a message the first time.

    Raises:
        UserError: it stayed full.
        OSError: it kept failing, or failed in a way that waiting does not fix (not there, not allowed).
    """
    tries = 0
    full_since: float | None = None
    while True:
        try:
            return action()
        except _PERMANENT:
            raise
        except OSError as error:
            if is_full(error):
                if full_since is None:
                    full_since = clock()
                    say(
                        f"the disk is full ({first_line(error)}): writing waits up to {_FULL_PATIENCE_S / 60:.0f} "
                        "minutes for room"
                    )
                if clock() - full_since >= _FULL_PATIENCE_S:
                    raise UserError(
                        "the disk stayed full; make room and run the same command again: finished stages are kept"
                    ) from error
                sleep(_FULL_PAUSE_S)
                continue
            if tries == len(_PAUSES_S):
                raise
            if tries == 0:
                _LOG.warning("the storage does not answer: %s", first_line(error))
                say("the storage did not answer for a moment; it was tried again")
            sleep(_PAUSES_S[tries])
            tries += 1
