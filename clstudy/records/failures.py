"""``failures.json``: why trials of a study's last run failed. Written and read here only (no torch, no Ray)."""

from __future__ import annotations

import json
from collections.abc import Mapping

from clstudy.storage.checksums import State, read_checked, write_checked
from clstudy.storage.documents import MOST_JSON_BYTES, json_object
from clstudy.storage.places import Place

FAILURES = "failures.json"


def read_failures(study: Place) -> dict[str, str]:
    """Trial -> why it failed, as reported by the study's last run; empty if that is not known."""
    try:
        state, content = read_checked(study / FAILURES, MOST_JSON_BYTES)
        found = json_object(content) if state in (State.WHOLE, State.UNCHECKED) else {}
    except (OSError, ValueError):
        return {}
    return {trial: str(message) for trial, message in found.items()}


def write_failures(study: Place, failures: Mapping[str, str]) -> None:
    """Write ``failures.json``: trial -> why it failed."""
    write_checked(study / FAILURES, json.dumps(dict(failures), indent=1).encode())
