"""Provides the user's own modules on machines that lack them (from ``clstudy.registry.foreign_sources``)."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path

from clstudy.storage.places import write_atomically
from clstudy.storage.private_folder import made_private


def provide_sources(sources: Mapping[str, str], folder: Path) -> None:
    """Make missing modules importable: write them into ``folder`` and add it to the search path.

    Raises:
        UserError: users other than this one may write into the folder.
    """
    missing = {name: source for name, source in sources.items() if importlib.util.find_spec(name) is None}
    if not missing:
        return
    made_private(folder)
    for name, source in missing.items():
        write_atomically(folder / f"{name}.py", source.encode())
    sys.path.append(str(folder))
    importlib.invalidate_caches()
