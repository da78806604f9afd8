"""One holder at a time, also where the lock's folder goes with its last holder."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from clstudy.storage.file_lock import file_lock


class BusyError(Exception):
    """Somebody else holds it."""


def busy(card: dict[str, Any]) -> Exception:
    return BusyError(card["pid"])


def test_a_folder_that_goes_with_its_last_holder_troubles_nobody(tmp_path: Path) -> None:
    folder = tmp_path / ".prepare"
    over = threading.Event()

    def remove() -> None:
        while not over.is_set():
            with suppress(OSError):
                folder.rmdir()
            time.sleep(0.0001)  # as often as a lock is taken: without it, a lock may wait for long on slow machines

    remover = threading.Thread(target=remove)
    remover.start()
    try:
        for _ in range(2000):
            with file_lock(folder / "anna.lock", busy, remove=True):
                assert (folder / "anna.lock").is_file()
    finally:
        over.set()
        remover.join()


def test_a_file_in_the_place_of_its_folder_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / ".prepare").write_text("no folder")
    began = time.monotonic()
    with pytest.raises(FileExistsError), file_lock(tmp_path / ".prepare" / "anna.lock", busy):
        pass
    assert time.monotonic() - began < 5
