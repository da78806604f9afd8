"""Looks up a profile by its name in a search space, checks it as a whole, and lists its sections of settings.

Registered names and functions of the user's own (``module:Name``) are treated alike: what a function returns is checked
against the types of its fields before it is used. No torch, no Ray.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import lru_cache
from typing import Any, get_type_hints

from pydantic import PydanticUndefinedAnnotation, PydanticUserError, TypeAdapter, ValidationError

from clstudy.errors import UserError, nearest
from clstudy.registry import foreign_sources, is_foreign
from clstudy.settings.metric_facts import packaged_metrics
from clstudy.settings.profiles import PROFILES, Profile, key_document
from clstudy.storage.documents import shorten

_OWN = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def named_profile(name: str) -> Profile:
    """The profile with a name, or from ``module:Name``.

    Raises:
        UserError: there is no profile of that name, it is not a function that returns a profile, or the profile has
            invalid settings.
    """
    function = PROFILES[name]
    try:
        profile = function()
    except UserError:
        raise
    except Exception as error:  # a user's own code
        raise UserError(f"profile {name}: calling it failed with {type(error).__name__}: {error}") from error
    if not isinstance(profile, Profile):
        raise UserError(f"profile {name} returns {shorten(profile)}; expected a clstudy.Profile")
    problems = profile_problems(profile)
    if problems:
        raise UserError(f"profile {name} has invalid settings: {'; '.join(problems)}")
    return profile


def profile_problems(profile: Profile) -> list[str]:
    """What is wrong with a profile's settings, by their types and ranges; empty if nothing is.

    Python checks no types when a profile is constructed: 0 epochs would be noticed after a study began, or never.
    """
    kind = type(profile)
    problems = []
    if kind.__module__ == "__main__" or "." in kind.__qualname__:
        problems.append(
            f"its class {kind.__qualname__} cannot be imported from {kind.__module__} when the study is read again; "
            "define it at the top of a module of its own"
        )
    problems += _value_problems(profile, "")
    if not problems and (problem := metrics_problem(profile.evaluation.metrics)):
        problems.append(f"evaluation.metrics: {problem}")
    return problems


def _value_problems(settings: Any, where: str) -> Iterator[str]:
    for name, adapter in setting_types(type(settings)).items():  # type: ignore[arg-type]
        value = getattr(settings, name)
        if is_dataclass(value):
            yield from _value_problems(value, f"{where}{name}.")
            continue
        try:
            adapter.validate_python(value, strict=True)
        except ValidationError as error:
            yield f"{where}{name}: {refusal(error.errors()[0])}"


def refusal(item: Any) -> str:
    """A refused value and the reason as text, from one of pydantic's errors."""
    own = item.get("ctx", {}).get("error")  # from a validator of ours or the user's
    return f"{shorten(item['input'])}: {item['msg'].lower() if own is None else own}"


def metrics_problem(names: Sequence[str]) -> str:
    """What is wrong with a list of metrics; empty if nothing is."""
    if not names or len(set(names)) < len(names):
        return f"{shorten(list(names))}: expected at least one metric, and none of them twice"
    known = packaged_metrics()
    for name in names:
        if is_foreign(name):
            if not _OWN.fullmatch(name):
                return f"{shorten(name)} is not module:Name, as a metric of your own is named"
        elif name not in known:
            listed = ", ".join(known)
            return f"unknown metric {name!r}.{nearest(name, known)} Known: {listed}; or one of your own, module:Name"
    return ""


@lru_cache(maxsize=64)  # making one takes milliseconds, and profiles are checked wherever they are named
def setting_types(kind: type[Any]) -> Mapping[str, TypeAdapter[Any]]:
    """Field name of a dataclass -> the validator that checks it.

    Raises:
        UserError: a type cannot be used for checking.
    """
    try:
        hints = get_type_hints(kind, include_extras=True)
        return {entry.name: TypeAdapter(hints[entry.name]) for entry in fields(kind)}
    except (NameError, PydanticUserError, PydanticUndefinedAnnotation) as error:
        raise UserError(
            f"the types of {kind.__module__}.{kind.__qualname__} cannot be checked ({str(error).splitlines()[0]}); "
            "settings are numbers, words, true or false, and tuples of them"
        ) from error


def section_names(profile: Profile | type[Profile]) -> list[str]:
    """The parts of a profile that hold settings: its fields that are dataclasses, in their order.

    For a class, these are the fields with dataclasses as types.
    """
    if isinstance(profile, type):
        return [name for name, hint in get_type_hints(profile).items() if isinstance(hint, type) and is_dataclass(hint)]
    return [entry.name for entry in fields(profile) if is_dataclass(getattr(profile, entry.name))]


def own_sections(profile: Profile) -> dict[str, Any]:
    """What a subclass's sections add to the keys of stages; empty for a profile of the package's class.

    Any of these settings may change numbers, because the user's own generator or workload may read them.
    """
    common = {entry.name for entry in fields(Profile)}
    return {name: key_document(getattr(profile, name)) for name in section_names(profile) if name not in common}


def profile_sources(profile: Profile) -> dict[str, str]:
    """Source of the modules that define a profile's class and sections, if they are the user's own.

    As ``clstudy.registry.foreign_sources``.
    """
    kinds = [type(profile), *(type(getattr(profile, name)) for name in section_names(profile))]
    return foreign_sources("class of the profile", [f"{kind.__module__}:{kind.__qualname__}" for kind in kinds])
