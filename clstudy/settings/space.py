"""The schema of search spaces, validated as a whole.

A search space is a grid (identity x strategy x buffer size x learning rate) and a list of seeds. Instead of a list of
learning rates it may have a range; then a search (:mod:`clstudy.study.search.rate_search`) chooses one rate for every
cell, i.e. strategy x buffer size, before the grid runs. :mod:`clstudy.settings.space_file` reads a space, and
:mod:`clstudy.settings.expansion` turns it into trials.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from clstudy.errors import UserError
from clstudy.settings.claims import Effects, Primary, effects_fit_grid, primary_fits_grid
from clstudy.settings.named_profiles import named_profile
from clstudy.settings.overrides import SettingError, checked_settings
from clstudy.settings.profiles import Profile
from clstudy.settings.trial_spec import MAX_NAME_BYTES
from clstudy.storage.documents import shorten

MAX_PROPOSALS = 100
"""Largest number of rates to try per cell."""

MIN_RANGE = 1.2
"""Smallest ratio of a range's ends: such a range holds more rates of four digits than ``MAX_PROPOSALS``."""

THIRD = "third"
"""The validation part held out from every reported person: a third of each timestamp's training photos."""

RESERVED_NAMES = ("data", "mlflow.db", "mlflow-images", "comparison.html")
"""Names that a storage uses itself, beside its studies."""

INSIDE = "inside"
"""Error type of a group for errors that belong to one of its keys (``inside`` in the error's context)."""
UNION_TAGS = ("a count", "some names", "a range", "some rates", "a word")
"""Branches of unions in an error's path; they contain a space, so that no key is mistaken for one."""


def _text(value: Any) -> Any:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{shown(value)} is not a name; expected text (put names that look like numbers in quotes)")
    return value


def _study_name(value: Any) -> Any:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", value):
        raise ValueError(
            f"{shown(value)} cannot name a study (it becomes a folder); expected letters, digits, '_', '-' and '.'"
        )
    if value.casefold() in RESERVED_NAMES or len(value) > MAX_NAME_BYTES // 2:
        raise ValueError(
            f"{shown(value)} cannot name a study; expected at most {MAX_NAME_BYTES // 2} letters and none of "
            f"{', '.join(RESERVED_NAMES)}, which lie beside studies"
        )
    return value


def _buffer_size(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{shown(value)} is not a buffer size; expected a whole number of photos, at least 1")
    return value


def _timestamp_count(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int) or value < 2:
        raise ValueError(f"{shown(value)} is not a number of timestamps; expected a whole number, at least 2")
    return value


def _learning_rate(value: Any) -> Any:
    try:  # strings as well: YAML 1.1 reads 1e-3, without a point, as a string
        rate = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        rate = math.nan
    if not (math.isfinite(rate) and rate > 0):
        raise ValueError(f"{shown(value)} is not a learning rate; expected a finite number above 0, e.g. 0.003")
    return rate


def _proposals(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_PROPOSALS:
        raise ValueError(
            f"{shown(value)} is not a number of rates to try; expected a whole number from 1 to {MAX_PROPOSALS}"
        )
    return value


def _yes_or_no(value: Any) -> Any:
    if not isinstance(value, bool):
        raise ValueError(f"{shown(value)} is neither true nor false")
    return value


def _validation_word(value: Any) -> Any:
    if value != THIRD:
        raise ValueError(
            f"{shown(value)} is not a validation part; expected {THIRD} (of each timestamp's training photos), or a "
            "list of identity names"
        )
    return value


def _seed(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise ValueError(f"{shown(value)} is not a seed; expected a whole number from 0")
    return value


def _count(value: Any) -> Any:
    if isinstance(value, bool | float) or value < 1:
        raise ValueError(
            f"{shown(value)} is not a number of identities; expected at least 1, or a list of identity names"
        )
    return value


def _filled_and_distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if not values:
        raise ValueError("the list is empty, so the space expands to no trial; expected at least one value")
    twice = [value for value, count in Counter(values).items() if count > 1]
    if twice:
        raise ValueError(f"{', '.join(shown(value) for value in twice)} is listed more than once; keep one of each")
    return values


def shown(value: Any) -> str:
    if value is None:
        return "nothing"
    return str(value).lower() if isinstance(value, bool) else shorten(value)


_Name = Annotated[str, BeforeValidator(_text)]
_Names = Annotated[tuple[_Name, ...], AfterValidator(_filled_and_distinct)]
_Rate = Annotated[float, BeforeValidator(_learning_rate)]
_Flag = Annotated[bool, BeforeValidator(_yes_or_no)]
_Seeds = Annotated[tuple[Annotated[int, BeforeValidator(_seed)], ...], AfterValidator(_filled_and_distinct)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RateRange(_Strict):
    """Learning rates to search, ends included: ``trials`` rates are tried per cell, on a log scale by default."""

    low: _Rate
    high: _Rate
    log: _Flag = True
    trials: Annotated[int, BeforeValidator(_proposals)]

    @model_validator(mode="after")
    def _wide_enough(self) -> RateRange:
        if self.high < MIN_RANGE * self.low:
            raise ValueError(
                f"high ({self.high:g}) is not above low ({self.low:g}) by a factor of {MIN_RANGE:g}, so there is "
                f"nothing to search; widen the range, or write a list: [{self.low:g}]"
            )
        return self


class RateSearchSettings(_Strict):
    """How a range of learning rates is searched.

    ``validation`` sets what rates are judged on (never the test photos of reported people): ``"third"``, a third of
    each timestamp's training photos of the reported people, or the names of other people of the data set. ``asha``:
    stop rates early if they fall behind the cell's other rates (successive halving over timestamps).
    """

    validation: Annotated[
        Annotated[Literal["third"], BeforeValidator(_validation_word), Tag("a word")]
        | Annotated[_Names, Tag("some names")],
        Discriminator(lambda value: "a word" if isinstance(value, str) else "some names"),
    ] = "third"
    asha: _Flag = False


class Grid(_Strict):
    """The axes of a space. ``identity`` is a list of names, or a count of the data set's first identities.

    ``timestamps``: numbers of timestamps to report. A continual trial of fewer timestamps is the beginning of the
    longest one, so only joint training has trials of its own for each.
    """

    identity: Annotated[
        Annotated[int, BeforeValidator(_count), Tag("a count")] | Annotated[_Names, Tag("some names")],
        Discriminator(lambda value: "a count" if isinstance(value, int | float) else "some names"),
    ]
    strategy: _Names
    buffer_size: (
        Annotated[tuple[Annotated[int, BeforeValidator(_buffer_size)], ...], AfterValidator(_filled_and_distinct)]
        | None
    ) = None
    learning_rate: Annotated[
        Annotated[RateRange, Tag("a range")]
        | Annotated[tuple[_Rate, ...], AfterValidator(_filled_and_distinct), Tag("some rates")],
        Discriminator(lambda value: "a range" if isinstance(value, Mapping | RateRange) else "some rates"),
    ]
    timestamps: (
        Annotated[tuple[Annotated[int, BeforeValidator(_timestamp_count)], ...], AfterValidator(_filled_and_distinct)]
        | None
    ) = None

    @property
    def longest(self) -> int | None:
        """The largest of ``timestamps``; None without them."""
        return None if self.timestamps is None else max(self.timestamps)


class SearchSpace(_Strict):
    """One YAML file of ``search_spaces/``, valid by construction.

    ``data`` is a folder or the name of a data set; None means the profile's own. ``weights`` is the storage policy
    (``clstudy.study.retention``). ``search`` is None exactly where the learning rates are a list. ``primary`` and
    ``effects`` fix how the results will be read (``clstudy.settings.claims``). ``settings`` override the profile's
    (``clstudy.settings.overrides``); ``profile: {base: NAME, SECTION: {NAME: VALUE}}`` sets both at once. ``variants``
    are settings by name, over those: the space is then one study per variant (``of_variant``), compared with the first.
    """

    name: Annotated[str, BeforeValidator(_study_name)]
    description: str = ""
    profile: _Name = "embedded"
    data: _Name | None = None
    grid: Grid
    seeds: _Seeds = (0,)
    weights: Literal["last", "all"] = "last"
    search: Annotated[RateSearchSettings | None, Field(validate_default=True)] = None
    primary: Primary | None = None
    effects: Effects | None = None
    settings: dict[str, dict[str, Any]] = {}
    variants: dict[Annotated[str, BeforeValidator(_study_name)], dict[str, dict[str, Any]]] | None = None

    @model_validator(mode="before")
    @classmethod
    def _base_and_settings(cls, raw: Any) -> Any:
        """Split a mapping into base and settings; ``_not_a_mapping`` refuses others, to report all mistakes."""
        given = raw.get("profile") if isinstance(raw, Mapping) else None
        if not isinstance(given, Mapping) or "base" not in given or raw.get("settings"):
            return raw
        return {
            **raw,
            "profile": given["base"],
            "settings": {section: values for section, values in given.items() if section != "base"},
        }

    @field_validator("profile", mode="before")
    @classmethod
    def _not_a_mapping(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        if "base" not in given:
            raise ValueError("names no base; write which profile it changes: {base: embedded, trainer: {epochs: 48}}")
        raise ValueError(
            "changes settings of its base, and `settings:` is there as well; put all of them into one of the two"
        )

    @field_validator("profile")
    @classmethod
    def _profile_exists(cls, name: str) -> str:
        try:
            named_profile(name)
        except UserError as error:
            raise ValueError(str(error)) from None
        return name

    @field_validator("settings", mode="before")
    @classmethod
    def _settings_exist(cls, settings: Any, info: ValidationInfo) -> dict[str, dict[str, Any]]:
        if "profile" not in info.data:  # its mistake is already reported
            return {}
        try:
            return checked_settings(settings, named_profile(info.data["profile"]))
        except SettingError as error:
            raise PydanticCustomError(INSIDE, "{what}", {"what": str(error), "inside": error.place}) from None

    @field_validator("variants", mode="before")
    @classmethod
    def _variants_exist(cls, variants: Any, info: ValidationInfo) -> Any:
        if variants is None or "profile" not in info.data or "settings" not in info.data:
            return None  # without a valid profile and settings nothing can be said of theirs
        if not isinstance(variants, Mapping) or len(variants) < 2:
            raise ValueError(
                "expected two or more names with settings, e.g. {as_it_is: {}, longer: {trainer: {epochs: 48}}}"
            )
        profile = named_profile(info.data["profile"])
        base = info.data["settings"]
        return {name: _checked_variant(name, changed, base, profile) for name, changed in variants.items()}

    def of_variant(self, name: str) -> SearchSpace:
        """The space of one variant, as if it had been written alone.

        Raises:
            UserError: it has no such variant.
        """
        if self.variants is None or name not in self.variants:
            known = ", ".join(self.variants or ()) or "none"
            raise UserError(f"{self.name} has no variant {shown(name)}; it has: {known}")
        return self.model_copy(
            update={
                "name": f"{self.name}_{name}",
                "description": f"{self.description} ({name.replace('_', ' ')})".strip(),
                "settings": _merged(self.settings, self.variants[name]),
                "variants": None,
            }
        )

    @field_validator("primary")
    @classmethod
    def _primary_fits_grid(cls, primary: Primary | None, info: ValidationInfo) -> Primary | None:
        grid = info.data.get("grid")
        if primary is not None and grid is not None:
            primary_fits_grid(primary, grid.strategy, grid.buffer_size, INSIDE)
        return primary

    @field_validator("effects")
    @classmethod
    def _effects_fit_grid(cls, effects: Effects | None, info: ValidationInfo) -> Effects | None:
        grid = info.data.get("grid")
        if effects is not None and grid is not None:
            effects_fit_grid(effects, grid.strategy, INSIDE)
        return effects

    @field_validator("search")
    @classmethod
    def _search_fits_grid(cls, search: RateSearchSettings | None, info: ValidationInfo) -> RateSearchSettings | None:
        grid = info.data.get("grid")
        if grid is None:  # its mistakes are already reported
            return search
        if not isinstance(grid.learning_rate, RateRange):
            if search is not None:
                raise ValueError(
                    "grid.learning_rate is a list, so there is nothing to search; write a range there, e.g. "
                    "{low: 0.0003, high: 0.03, trials: 8}, or leave search out"
                )
            return None
        search = search or RateSearchSettings()
        if search.validation != THIRD and not isinstance(grid.identity, int):
            problem = reported_too(search.validation, grid.identity)
            if problem:
                raise PydanticCustomError(INSIDE, "{what}", {"what": problem, "inside": ("validation",)})
        return search


def _merged(settings: Mapping[str, Mapping[str, Any]], changed: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    sections = [*settings, *(section for section in changed if section not in settings)]
    return {section: {**settings.get(section, {}), **changed.get(section, {})} for section in sections}


def _checked_variant(name: Any, changed: Any, settings: dict[str, dict[str, Any]], profile: Profile) -> dict[str, Any]:
    try:
        mine = checked_settings({} if changed is None else changed, profile)
        checked_settings(_merged(settings, mine), profile)
    except SettingError as error:
        where = (str(name), *error.place)
        raise PydanticCustomError(INSIDE, "{what}", {"what": str(error), "inside": where}) from None
    return mine


def reported_too(validation: Iterable[str], reported: Iterable[str]) -> str:
    """A sentence naming the people who would both decide the rates and be reported; empty if there are none."""
    both = sorted(set(validation) & set(reported))
    if not both:
        return ""
    return (
        f"{', '.join(map(repr, both))} {'is' if len(both) == 1 else 'are'} reported too (grid.identity), and rates "
        f"chosen on reported people flatter their results; take other people, or {THIRD}"
    )
