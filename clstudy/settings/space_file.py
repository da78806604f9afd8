"""Reads a search space from its YAML file, and applies what the command line overrides.

A space is checked as a whole: all mistakes are reported at once, each with its file and line.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import (
    BaseModel,
    ValidationError,
)

from clstudy.errors import UserError, nearest
from clstudy.settings.claims import Effects, Primary
from clstudy.settings.named_profiles import named_profile
from clstudy.settings.overrides import parse_settings
from clstudy.settings.packaged_spaces import known_spaces
from clstudy.settings.space import INSIDE, UNION_TAGS, Grid, RateRange, RateSearchSettings, SearchSpace, shown
from clstudy.storage.documents import SPACE, DocumentError, check_yaml, read_text, shorten

_FILE_ENDINGS = (".yaml", ".yml")
_MOST_PROBLEMS = 30
_Place = tuple[str | int, ...]
"""The path to a value in the file: keys, and indices of lists."""


class _LineLoader(yaml.SafeLoader):
    """Safe YAML loader that refuses duplicate keys (plain YAML would silently keep the last)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable):
                if key in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {shorten(key)} is given twice", key_node.start_mark
                    )
                seen.add(key)
        return super().construct_mapping(node, deep)


def load_space(
    name_or_path: str | Path, search_path: Sequence[Path] | None = None, *, profile: str | None = None
) -> SearchSpace:
    """Read and check a search space.

    Args:
        name_or_path: the name of a packaged space, or the path of a YAML file (anything that ends in .yaml or
            .yml or contains a path separator).
        search_path: folders to look up names in; by default the packaged ones.
        profile: replaces the file's; the file's settings are then checked against this one.

    Raises:
        UserError: there is no such profile or space, it is not YAML (file and line are named), or it is not valid
            (every problem with its location).
    """
    if profile is not None:
        named_profile(profile)
    text = str(name_or_path)
    file = Path(text).expanduser()
    if file.name == text and not text.endswith(_FILE_ENDINGS):
        known = known_spaces(search_path)
        if text not in known:
            raise UserError(
                f"unknown search space {text!r}.{nearest(text, known)} Known: {', '.join(known) or 'none'}. "
                "To use a file of your own, give its path: --space path/to/file.yaml."
            )
        file = known[text]
    return _parse(_read(file), str(file), profile)


def _read(file: Path) -> str:
    try:
        return read_text(file, SPACE.size)
    except FileNotFoundError:
        known = known_spaces()
        hint = f" Did you mean the packaged space {file.stem!r} (--space {file.stem})?" if file.stem in known else ""
        raise UserError(f"there is no search space file {file}.{hint}") from None
    except DocumentError as error:
        raise UserError(f"{file} cannot be read: {error}; expected a search space in YAML, UTF-8") from None
    except OSError as error:
        raise UserError(f"search space {file} cannot be read: {error.strerror}") from None


def _parse(text: str, origin: str, profile: str | None) -> SearchSpace:
    lines: dict[_Place, int] = {}
    try:
        check_yaml(text, SPACE, _LineLoader)
        node = yaml.compose(text, _LineLoader)
        raw = None if node is None else yaml.load(text, _LineLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{origin}, line {mark.line + 1}" if mark else origin
        problem = " ".join(part for part in (error.problem, f"({error.context})" if error.context else "") if part)
        raise UserError(f"{place}: not valid YAML: {problem}") from None
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise UserError(f"{origin}, line {line}: not valid YAML: {error.reason}") from None
    except DocumentError as error:
        place = f"{origin}, line {error.line}" if error.line else origin
        raise UserError(f"{place}: {error}; a search space needs far less") from None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # such as a date that does not exist, or a tag that does not fit its value
        raise UserError(f"{origin}: not valid YAML: {str(error)[:200]}") from None
    if not isinstance(raw, dict):
        given = "is empty" if raw is None else f"holds {shown(raw)}"[:80]
        keys = ", ".join(SearchSpace.model_fields)
        raise UserError(f"{origin} {given}; expected a search space with the keys {keys}")
    _collect_lines(node, (), lines)
    return _validated(raw if profile is None else _with_profile(raw, profile), origin, lines)


def _with_profile(raw: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The space with another profile; the space's changes of settings are kept."""
    given = raw.get("profile")
    return {**raw, "profile": {**given, "base": name} if isinstance(given, Mapping) else name}


def _collect_lines(node: yaml.Node | None, place: _Place, lines: dict[_Place, int]) -> None:
    """Fill ``lines`` with the line number (from 1) of every key and list entry, as deep as the schema goes."""
    if node is None or len(place) > 3:
        return
    lines.setdefault(place, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*place, str(key.value))
            lines[inner] = key.start_mark.line + 1
            _collect_lines(value, inner, lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _collect_lines(value, (*place, index), lines)


def _validated(raw: Mapping[str, Any], origin: str, lines: Mapping[_Place, int]) -> SearchSpace:
    try:
        return SearchSpace.model_validate(raw)
    except ValidationError as error:
        mapped = isinstance(raw.get("profile"), Mapping)
        found = (_problem(item, lines, mapped=mapped) for item in error.errors())
        problems = sorted(found, key=lambda problem: problem[0] or 0)
    more = len(problems) - _MOST_PROBLEMS
    if len(problems) == 1:
        line, text = problems[0]
        raise UserError(f"{origin}{f', line {line}' if line else ''}: {text}")
    listed = "\n".join(f"  {f'line {line}: ' if line else ''}{text}" for line, text in problems[:_MOST_PROBLEMS])
    rest = f"\n  and {more:,} more" if more > 0 else ""
    raise UserError(f"{origin} has {len(problems)} problems:\n{listed}{rest}")


def _problem(item: Any, lines: Mapping[_Place, int], *, mapped: bool) -> tuple[int | None, str]:
    """Return (line, "place: what is wrong") for one pydantic error.

    ``mapped``: the settings are under ``profile``.
    """
    place = tuple(part for part in item["loc"] if part not in UNION_TAGS)
    if item["type"] == INSIDE:
        place = (*place, *item["ctx"]["inside"])
    if mapped and place[:1] == ("settings",) and ("settings",) not in lines:
        place = ("profile", *place[1:])
    around = place
    while around and around not in lines:
        around = around[:-1]
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")
    kind, given = item["type"], item["input"]
    if kind == "value_error":
        what = str(item["ctx"]["error"])
    elif kind == INSIDE:
        what = str(item["ctx"]["what"])
    elif kind == "extra_forbidden":
        known = _fields_at(place[:-1])
        what = f"unknown key {place[-1]!r}.{nearest(str(place[-1]), known)} Known: {', '.join(known)}"
    elif kind == "missing":
        what = "is missing"
    elif kind in ("tuple_type", "list_type"):
        what = f"{shown(given)} is not a list; write [{given if given is not None else '...'}]"
    elif kind in ("model_type", "dict_type", "model_attributes_type"):
        what = f"{shown(given)} is not a group of keys; expected the keys {', '.join(_fields_at(place))}"
    else:
        what = f"{shown(given)}: {item['msg'].lower()}"
    return lines.get(around), f"{where}: {what}" if where else what


def _fields_at(place: _Place) -> tuple[str, ...]:
    groups: dict[_Place, type[BaseModel]] = {
        ("grid",): Grid,
        ("grid", "learning_rate"): RateRange,
        ("search",): RateSearchSettings,
        ("primary",): Primary,
        ("effects",): Effects,
    }
    return tuple(groups.get(place, SearchSpace).model_fields)


def override(
    space: SearchSpace,
    *,
    identities: str | None = None,
    seeds: str | None = None,
    profile: str | None = None,
    data: str | None = None,
    settings: Sequence[str] = (),
) -> SearchSpace:
    """Return the space with the command line's values instead of the file's; None leaves a value as it is.

    Args:
        identities: ``"3"`` for the first three of the data set, or names: ``"person_00,person_02"`` (``"3,"`` is
            the one identity named 3).
        seeds: ``"0,1,2"``.
        settings: ``"inversion.latent_space=w_plus"`` and the like, in addition to the file's.

    Raises:
        UserError: a value is not valid in any space; the message names the option.
    """
    raw = space.model_dump(exclude_none=True)
    given: list[str] = []
    if identities is not None:
        given.append("--identities")
        text = identities.strip()
        raw["grid"]["identity"] = int(text) if re.fullmatch(r"[+-]?\d+", text) else _split(text)
    if seeds is not None:
        given.append("--seeds")
        raw["seeds"] = [int(part) if re.fullmatch(r"[+-]?\d+", part) else part for part in _split(seeds)]
    for option, value in (("profile", profile), ("data", data)):
        if value is not None:
            given.append(f"--{option}")
            raw[option] = value
    changed = parse_settings(settings, named_profile(raw["profile"])) if settings else {}
    for section, values in changed.items():
        given += [f"--set {section}.{name}" for name in values]
        raw["settings"].setdefault(section, {}).update(values)
    return _validated(raw, " ".join(given), {}) if given else space


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
