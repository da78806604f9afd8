"""Packaged binary assets: where they are, what they are, and that they are intact.

``manifest.json`` beside this file names every binary file of the package with its source, licence
and sha256. Nothing here imports torch, so that the analysis side can use it too.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parent


class AssetError(RuntimeError):
    """A packaged file is missing or altered."""


def sha256_file(path: Path) -> str:
    """Return the hexadecimal sha256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        for block in iter(lambda: handle.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def manifest() -> dict[str, dict[str, Any]]:
    """Return the manifest: file name -> {sha256, source, licence, what}."""
    files: dict[str, dict[str, Any]] = json.loads((_ROOT / "manifest.json").read_text())["files"]
    return files


@cache
def asset_path(name: str) -> Path:
    """Return the path of a packaged asset after checking it against the manifest (once per process).

    Raises:
        AssetError: the file is not in the manifest, is missing, or its sha256 differs.
    """
    entry = manifest().get(name)
    if entry is None:
        raise AssetError(f"asset {name!r} is not in the manifest; known: {', '.join(sorted(manifest()))}")
    path = _ROOT / name
    if not path.is_file():
        raise AssetError(f"packaged file {name} is missing; install clstudy again (git clone and pip install .)")
    found = sha256_file(path)
    if found != entry["sha256"]:
        raise AssetError(
            f"packaged file {name} was altered: sha256 {found[:12]}…, expected {entry['sha256'][:12]}…; "
            "install clstudy again"
        )
    return path
