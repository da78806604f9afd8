"""Reads profiles back from study.yaml, and extracts the part that a search for learning rates depends on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any, cast, get_origin, get_type_hints

from clstudy.errors import UserError, nearest
from clstudy.registry import foreign_object, subclass_of
from clstudy.settings.profiles import BEFORE, Profile, key_document, settings_by_name, settings_left_out


def profile_from_document(document: Mapping[str, Any], kind: type[Profile] = Profile) -> Profile:
    """A profile from its ``to_dict``; settings added later get what they were computed with, mostly the defaults.

    Args:
        document: as it was written.
        kind: its class, unless the document names one.

    Raises:
        UserError: this version does not know a setting, or a class cannot be imported.
    """
    values = dict(document)
    if (name := values.pop("class", None)) is not None:
        found = foreign_object("class of the profile", str(name))
        try:
            kind = subclass_of(Profile)(found)
        except ValueError as error:
            raise UserError(f"class of the profile {name} {error}") from error
    return cast(Profile, _built(kind, values, "profile"))


def _built(kind: type[Any], values: Mapping[str, Any], where: str) -> Any:
    known = settings_by_name(kind)
    unknown = [name for name in values if name not in known]
    if unknown:
        raise UserError(
            f"study.yaml has the setting {where}.{unknown[0]}, which this version of clstudy does not know."
            f"{nearest(unknown[0], known)} Use the version named there under versions"
        )
    hints = get_type_hints(kind)
    written = {known[name].name for name in values}
    before = {
        entry.name: entry.metadata[BEFORE]
        for entry in known.values()
        if BEFORE in entry.metadata and entry.name not in written
    }
    try:
        return kind(
            **before,
            **{
                known[name].name: _plain(hints[known[name].name], value, f"{where}.{name}")
                for name, value in values.items()
            },
        )
    except (TypeError, ValueError) as error:
        raise UserError(f"study.yaml: {where} does not make a {kind.__name__}: {error}") from error


def _plain(hint: Any, value: Any, where: str) -> Any:
    """A value in the dataclass's type: YAML has lists, but no tuples."""
    if isinstance(hint, type) and is_dataclass(hint) and isinstance(value, Mapping):
        return _built(hint, value, where)
    if isinstance(value, list) and list not in (hint, get_origin(hint)):
        return tuple(_plain(None, one, where) for one in value)
    return value


BESIDE_THE_POINT = {"description", "stage_seconds", "estimate_from", "stage_bytes", "log_images"}
"""Parts of a profile that no number depends on."""


def search_document(profile: Profile) -> dict[str, Any]:
    """The part of a profile that the objectives of a search for learning rates depend on.

    Settings added later are left out while they have their default, so that existing searches can continue.
    """
    document = {name: value for name, value in key_document(profile).items() if name not in BESIDE_THE_POINT}
    for section, values in document.items():
        if not isinstance(values, dict):
            continue
        for name in settings_left_out(getattr(profile, section), "after searches"):
            del values[name]
    return document
