"""The layout of a study's folder: kinds of values, results, unfinished writes, summaries."""

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
"""A study's values in the order of removal: stages last, because their records tell which person others belong to."""

PHOTO_SUFFIXES = (".png", ".jpg", ".jpeg")

_CHECKED = ("study.yaml", "sessions.json", "failures.json")
SUMMARIES = (*_CHECKED, *map(checksum_name, _CHECKED), "history.json", TRACKED, LOCK)
"""Files of the whole study, which are removed with the last person in it."""

VIEW = ".forgetting"
"""Temporary folder: for what is half removed, in a data set; for the study's next state, in a study."""

_DRAFT = re.compile(r"\..+\.[0-9a-f]{8}")
"""What ``write_atomically`` leaves behind when it is killed."""


def is_value(parts: tuple[str, ...]) -> bool:
    """Whether these are the parts of the path of a value's file: ``<kind>/<first two of the key>/<key>/<file>``."""
    return len(parts) == 4 and parts[0] in KINDS and parts[1] == parts[2][:2]


def is_result(name: str) -> bool:
    """Whether the path is a trial's rows, in the study or in its search."""
    return name.startswith(("results/", "search/")) and name.endswith(".parquet") and not is_draft(name)


def is_draft(name: str) -> bool:
    """Whether the path is what an unfinished write left behind."""
    return _DRAFT.fullmatch(PurePosixPath(name).name) is not None


def read_small(place: Place) -> dict[str, Any]:
    """A small document; empty if there is none.

    A storage that does not answer is an error, because values not known to be another person's would be removed.
    """
    try:
        return json_object(patiently(place.read_bytes))
    except (FileNotFoundError, ValueError):
        return {}
