"""Settings of a profile that a search space or ``--set`` changes: checked by their types, applied to the profile.

No torch, no Ray. What depends on the machine (``compute``, ``resources``) and on the photos (``data``) has options of
its own and is not changed here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from clstudy.errors import UserError, nearest
from clstudy.registry import is_foreign
from clstudy.settings.metric_facts import packaged_metrics
from clstudy.settings.profiles import (
    AnchorSettings,
    EvaluationSettings,
    InversionSettings,
    LowRankSettings,
    Profile,
    TrainerSettings,
)
from clstudy.storage.documents import shorten

SECTIONS: Mapping[str, type[Any]] = {
    "trainer": TrainerSettings,
    "inversion": InversionSettings,
    "anchors": AnchorSettings,
    "evaluation": EvaluationSettings,
    "low_rank": LowRankSettings,
}
"""Parts of a profile that may be changed, by their names in it."""

_OWN = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")

Settings = Mapping[str, Mapping[str, Any]]
"""section -> name -> value."""


class SettingError(ValueError):
    """A setting that does not exist or cannot have that value; ``place`` is its section and name."""

    def __init__(self, place: tuple[str, ...], what: str):
        super().__init__(what)
        self.place = place


def checked_settings(raw: object) -> dict[str, dict[str, Any]]:
    """Settings as the profile takes them, from what a YAML file or the command line says.

    Raises:
        SettingError: an unknown section or name, or a value of another type or range than the setting's.
    """
    if not isinstance(raw, Mapping):
        raise SettingError((), f"{shorten(raw)} is not a group of keys; expected some of {', '.join(SECTIONS)}")
    return {str(section): _checked_section(str(section), values) for section, values in raw.items()}


def _checked_section(section: str, values: object) -> dict[str, Any]:
    if section not in SECTIONS:
        raise SettingError(
            (section,), f"unknown section {section!r}.{nearest(section, SECTIONS)} Known: {', '.join(SECTIONS)}"
        )
    kind = SECTIONS[section]
    known = [entry.name for entry in fields(kind)]
    if not isinstance(values, Mapping):
        raise SettingError(
            (section,), f"{shorten(values)} is not a group of settings; expected some of {', '.join(known)}"
        )
    for name, value in values.items():
        if name not in known:
            raise SettingError(
                (section, str(name)), f"unknown setting {name!r}.{nearest(str(name), known)} Known: {', '.join(known)}"
            )
        if isinstance(value, bool):
            raise SettingError((section, name), f"{str(value).lower()} is neither a number nor a word")
    try:
        made = TypeAdapter(kind).validate_python({**asdict(kind()), **values})
    except ValidationError as error:
        item = error.errors()[0]
        raise SettingError((section, str(item["loc"][0])), f"{shorten(item['input'])}: {item['msg'].lower()}") from None
    if isinstance(made, EvaluationSettings):
        _check_metrics(made.metrics)
    return {name: getattr(made, name) for name in values}


def _check_metrics(names: Sequence[str]) -> None:
    place = ("evaluation", "metrics")
    if not names or len(set(names)) < len(names):
        raise SettingError(place, f"{shorten(list(names))}: expected at least one metric, and none of them twice")
    known = packaged_metrics()
    for name in names:
        if is_foreign(name):
            if not _OWN.fullmatch(name):
                raise SettingError(place, f"{shorten(name)} is not module:Name, as a metric of your own is named")
        elif name not in known:
            raise SettingError(
                place,
                f"unknown metric {name!r}.{nearest(name, known)} Known: {', '.join(known)}; or one of your own, "
                "module:Name",
            )


def with_settings(profile: Profile, settings: Settings) -> Profile:
    """The profile with checked settings in place of its own."""
    return replace(
        profile, **{section: replace(getattr(profile, section), **values) for section, values in settings.items()}
    )


def parse_settings(options: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Read ``--set SECTION.NAME=VALUE`` options; values of several words or numbers are separated by commas.

    Raises:
        UserError: an option of another form, or a setting given twice. Names and values are not checked here.
    """
    settings: dict[str, dict[str, Any]] = {}
    for option in options:
        path, equals, value = option.partition("=")
        section, dot, name = path.strip().partition(".")
        if not (equals and dot and section and name):
            raise UserError(
                f"--set {option}: expected SECTION.NAME=VALUE, e.g. inversion.latent_space=w_plus; sections: "
                f"{', '.join(SECTIONS)}"
            )
        group = settings.setdefault(section, {})
        if name in group:
            raise UserError(f"--set gives {section}.{name} twice; leave one of them out")
        group[name] = _parsed(section, name, value.strip())
    return settings


def _parsed(section: str, name: str, value: str) -> Any:
    """A list where the setting is one; what else it may be, its type says (``checked_settings``)."""
    defaults = asdict(SECTIONS[section]()) if section in SECTIONS else {}
    if isinstance(defaults.get(name), tuple):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def setting_words(settings: Settings) -> list[str]:
    """Each setting with its value, as ``--set`` takes it."""
    return [
        f"{section}.{name}={','.join(map(str, value)) if isinstance(value, list | tuple) else value}"
        for section, values in settings.items()
        for name, value in values.items()
    ]
