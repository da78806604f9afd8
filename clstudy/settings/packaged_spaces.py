"""The search spaces that come with the package: their folders and names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def search_folders() -> tuple[Path, ...]:
    """Return the folders that hold the packaged spaces.

    An installed wheel has them inside the package; a clone (also an editable install) has them beside it.
    """
    package = Path(__file__).resolve().parents[1]
    candidates = (package / "search_spaces", package.parent / "search_spaces")
    return tuple(folder for folder in candidates if folder.is_dir())


def known_spaces(search_path: Sequence[Path] | None = None) -> dict[str, Path]:
    """Return {name: file} of the packaged spaces, sorted by name; earlier folders of the path win."""
    found: dict[str, Path] = {}
    for folder in search_folders() if search_path is None else search_path:
        for file in sorted(folder.glob("*.yaml")):
            found.setdefault(file.stem, file)
    return dict(sorted(found.items()))
