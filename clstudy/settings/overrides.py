"""Applies settings from a search space or ``--set`` to a profile, after checking them against their types.

No torch, no Ray. The profile determines which settings exist, because its sections may be the user's own. A few cannot
be changed here; their fields state why (``clstudy.settings.profiles.FIXED``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import Field, fields, replace
from typing import Any, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from clstudy.errors import UserError, nearest
from clstudy.settings.named_profiles import metrics_problem, refusal, section_names
from clstudy.settings.profiles import FIXED, EvaluationSettings, Profile, settings_by_name
from clstudy.storage.documents import shorten

Settings = Mapping[str, Mapping[str, Any]]
"""section -> name -> value."""


class SettingError(ValueError):
    """A setting does not exist or cannot have that value; ``place`` is its section and name."""

    def __init__(self, place: tuple[str, ...], what: str):
        super().__init__(what)
        self.place = place


def checked_settings(raw: object, profile: Profile) -> dict[str, dict[str, Any]]:
    """Settings from a YAML file or the command line, converted to the profile's types.

    Raises:
        SettingError: a section or name is unknown, a value does not have the setting's type or range, or the setting
            cannot be changed here.
    """
    if not isinstance(raw, Mapping):
        known = ", ".join(section_names(profile))
        raise SettingError((), f"{shorten(raw)} is not a group of keys; expected some of {known}")
    return {str(section): _checked_section(str(section), values, profile) for section, values in raw.items()}


def _checked_section(section: str, values: object, profile: Profile) -> dict[str, Any]:
    sections = section_names(profile)
    if section not in sections:
        listed = f"{nearest(section, sections)} Known: {', '.join(sections)}"
        if section in {entry.name for entry in fields(profile)}:
            listed = (
                " It belongs to the profile as a whole, which a profile of your own (module:Name) sets. Known: "
                f"{', '.join(sections)}"
            )
        raise SettingError((section,), f"unknown section {section!r}.{listed}")
    base = getattr(profile, section)
    known = {entry.name: entry for entry in fields(base) if entry.init}
    if not isinstance(values, Mapping):
        raise SettingError(
            (section,), f"{shorten(values)} is not a group of settings; expected some of {', '.join(known)}"
        )
    values = _present_names(section, values, base)
    kind = type(base)
    hints = get_type_hints(kind)
    for name, value in values.items():
        if name not in known:
            raise SettingError(
                (section, str(name)), f"unknown setting {name!r}.{nearest(str(name), known)} Known: {', '.join(known)}"
            )
        _require_open(section, known[name])
        if isinstance(value, bool) and not _takes_bool(hints[name]):  # or it would count as 0 or 1
            raise SettingError((section, name), f"{str(value).lower()} is neither a number nor a word")
    try:
        made = TypeAdapter(kind).validate_python({**{name: getattr(base, name) for name in known}, **values})
    except ValidationError as error:
        item = error.errors()[0]
        place = (section, *map(str, item["loc"][:1]))  # only the section if its own code refused the value
        raise SettingError(place, refusal(item)) from None
    if isinstance(made, EvaluationSettings) and (problem := metrics_problem(made.metrics)):
        raise SettingError((section, "metrics"), problem)
    return {name: getattr(made, name) for name in values}


def _present_names(section: str, values: Mapping[Any, Any], base: object) -> dict[Any, Any]:
    """Settings by their current names; some may be given by an older name."""
    known = settings_by_name(base)
    found: dict[Any, Any] = {}
    for given, value in values.items():
        name = known[given].name if given in known else given
        if name in found:
            raise SettingError((section, str(given)), f"{given!r} is an older name of {name!r}, which is given as well")
        found[name] = value
    return found


def _require_open(section: str, entry: Field[Any]) -> None:
    why = entry.metadata.get(FIXED)
    if why is not None:
        raise SettingError((section, entry.name), f"{section}.{entry.name} cannot be changed here: {why}")


def _takes_bool(hint: Any) -> bool:
    return hint in (bool, Any) or any(map(_takes_bool, get_args(hint)))


def with_settings(profile: Profile, settings: Settings) -> Profile:
    """The profile with checked settings in place of its own."""
    return replace(
        profile, **{section: replace(getattr(profile, section), **values) for section, values in settings.items()}
    )


def parse_settings(options: Sequence[str], profile: Profile) -> dict[str, dict[str, Any]]:
    """Read ``--set SECTION.NAME=VALUE`` options; values of several words or numbers are separated by commas.

    Raises:
        UserError: an option has another form, or a setting is given twice. Names and values are not checked here.
    """
    settings: dict[str, dict[str, Any]] = {}
    for option in options:
        path, equals, value = option.partition("=")
        section, dot, name = path.strip().partition(".")
        if not (equals and dot and section and name):
            raise UserError(
                f"--set {option}: expected SECTION.NAME=VALUE, e.g. inversion.latent_space=w_plus; sections: "
                f"{', '.join(section_names(profile))}"
            )
        group = settings.setdefault(section, {})
        if name in group:
            raise UserError(f"--set gives {section}.{name} twice; leave one of them out")
        group[name] = _parsed(getattr(profile, section, None), name, value.strip())
    return settings


def _parsed(section: object, name: str, value: str) -> Any:
    """A list if the setting is one; everything else is converted later (``checked_settings``)."""
    if isinstance(getattr(section, name, None), tuple):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def setting_words(settings: Settings) -> list[str]:
    """Each setting with its value, in the form that ``--set`` accepts."""
    return [
        f"{section}.{name}={','.join(map(str, value)) if isinstance(value, list | tuple) else value}"
        for section, values in settings.items()
        for name, value in values.items()
    ]
