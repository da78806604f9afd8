"""JSON from files that may be damaged or not ours (no torch, no Ray)."""

from __future__ import annotations

import json
from typing import Any, TypeGuard


def parse_json(text: str | bytes) -> Any:
    """As ``json.loads``, with one kind of error.

    Raises:
        ValueError: it is no JSON, or nested too deeply to be anything of ours.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("JSON that is nested too deeply") from error


def json_object(text: str | bytes) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ValueError: it is no JSON, or something else.
    """
    found = parse_json(text)
    if not isinstance(found, dict):
        raise ValueError(f"expected a JSON object, got {type(found).__name__}")
    return found


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value of a document is a finite number (and no bool)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")
