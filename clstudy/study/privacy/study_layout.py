"""What lies where in a study's folder: kinds of values, results, unfinished writes, summaries."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any

from clstudy.storage.checksum_names import checksum_name
from clstudy.storage.documents import json_object
from clstudy.storage.driver_lock import NAME as LOCK
from clstudy.storage.patience import patiently
from clstudy.storage.places import Place
from clstudy.tracking.addresses import TRACKED

KINDS = ("anchors", "memories", "learned", "weights", "stages")
"""Values of a study in the order in which they go: stages last, because their records say whose the others are."""

PHOTO_SUFFIXES = (".png", ".jpg", ".jpeg")

_CHECKED = ("study.yaml", "sessions.json", "failures.json")
SUMMARIES = (*_CHECKED, *map(checksum_name, _CHECKED), "history.json", TRACKED, LOCK)
"""Files of the whole study, which go with the last person in it."""

VIEW = ".forgetting"
"""Folder of what is half removed, in a data set, or of the study as it will be, in a study; gone when all is done."""

_DRAFT = re.compile(r"\..+\.[0-9a-f]{8}")
"""What ``write_atomically`` leaves behind when it is killed."""


def is_value(parts: tuple[str, ...]) -> bool:
    """Whether these are the parts of a value's file: ``<kind>/<first two of the key>/<key>/<file>``."""
    return len(parts) == 4 and parts[0] in KINDS and parts[1] == parts[2][:2]


def is_result(name: str) -> bool:
    """Whether the path is that of a trial's rows, of the study or of its search."""
    return name.startswith(("results/", "search/")) and name.endswith(".parquet") and not is_draft(name)


def is_draft(name: str) -> bool:
    """Whether the path is that of a write that was never finished."""
    return _DRAFT.fullmatch(PurePosixPath(name).name) is not None


def read_small(place: Place) -> dict[str, Any]:
    """A small document; empty where there is none.

    A storage that does not answer is an error: what is not known to be another person's would be removed.
    """
    try:
        return json_object(patiently(place.read_bytes))
    except (FileNotFoundError, ValueError):
        return {}
