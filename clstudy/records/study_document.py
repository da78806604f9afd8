"""Reading and writing ``study.yaml`` and ``failures.json``, with their checksums (no torch, no Ray)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import yaml

from clstudy.errors import UserError
from clstudy.storage.checksums import State, read_checked, write_checked
from clstudy.storage.documents import MOST_JSON_BYTES, STUDY, json_object, load_yaml
from clstudy.storage.places import Place

NAME = "study.yaml"
FAILURES = "failures.json"
_REMEDY = "run the study again: it writes the file anew"


def read_document(study: Place) -> dict[str, Any]:
    """The document of ``study.yaml``.

    Raises:
        UserError: no such folder, no ``study.yaml`` in it, or one that is damaged or is no mapping.
    """
    path = study / NAME
    if not study.is_dir():
        raise UserError(f"no such study folder: {study}. Give one that clstudy.run wrote, such as runs/hull_sizes.")
    try:
        state, content = read_checked(path, STUDY.size)
    except OSError as error:
        raise UserError(f"{study} is no study: {NAME} cannot be read ({error.strerror}).") from error
    if state is State.ABSENT:
        raise UserError(f"{study} is no study: it has no {NAME}. Give a folder that clstudy.run wrote.")
    if state is State.DAMAGED:
        raise UserError(f"{path} does not match its checksum: it changed since it was written. To mend it, {_REMEDY}.")
    return parse_document(content, path)


def parse_document(content: bytes, path: Place) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        UserError: it is no YAML, nested too deeply, or something else.
    """
    try:
        document = load_yaml(content.decode())
        if not isinstance(document, dict):
            raise ValueError(f"it holds a {type(document).__name__}, expected a mapping")
    except ValueError as error:
        message = " ".join(f"{error}".split())[:300]
        raise UserError(f"{path} cannot be understood ({message}). To mend it, {_REMEDY}.") from error
    return document


def write_document(study: Place, document: Mapping[str, Any]) -> None:
    """Write ``study.yaml``."""
    write_checked(study / NAME, yaml.safe_dump(dict(document), sort_keys=False).encode())


def read_failures(study: Place) -> dict[str, str]:
    """Trial -> why it failed, as the last run of the study said it; nothing where that is not known."""
    try:
        state, content = read_checked(study / FAILURES, MOST_JSON_BYTES)
        found = json_object(content) if state in (State.WHOLE, State.UNCHECKED) else {}
    except (OSError, ValueError):
        return {}
    return {trial: str(message) for trial, message in found.items()}


def write_failures(study: Place, failures: Mapping[str, str]) -> None:
    """Write ``failures.json``: trial -> why it failed."""
    write_checked(study / FAILURES, json.dumps(dict(failures), indent=1).encode())
