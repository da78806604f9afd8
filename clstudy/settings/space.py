"""Search spaces: from a YAML file to the list of trials it asks for.

A search space is a grid (identity x strategy x buffer size x learning rate) and a list of seeds. In place of a list
of learning rates it may hold a range: then a search (:mod:`clstudy.study.search.rates`) chooses one rate for every
cell, i.e. strategy x buffer size, before the grid is run. This module reads and checks a space whole, and expands it;
it knows neither strategies nor data sets, which are asked through the arguments of :func:`expand`, so that it imports
nothing heavy.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from clstudy.errors import UserError, nearest
from clstudy.settings.claims import Effects, Primary, effects_fit_grid, primary_fits_grid
from clstudy.settings.overrides import SettingError, checked_settings, parse_settings
from clstudy.storage.documents import SPACE, DocumentError, check_yaml, read_text, shorten

MAX_TRIALS_WITHOUT_YES = 500
"""A space that expands to more trials than this runs only with ``--yes``."""

MAX_PROPOSALS = 100
"""Most rates that one cell may try."""

MIN_RANGE = 1.2
"""Smallest ratio of a range's ends: it holds more rates of four digits than ``MAX_PROPOSALS``."""

THIRD = "third"
"""The validation part that every reported person has: a third of each timestamp's training photos."""

MAX_NAME_BYTES = 200
"""Of a trial's id: file systems take 255, and drafts and endings need some of them."""
RESERVED_NAMES = ("data", "mlflow.db", "mlflow-images", "comparison.html")
"""What lies beside studies in a storage already."""

_FILE_ENDINGS = (".yaml", ".yml")
_Place = tuple[str | int, ...]
_INSIDE = "inside"
"""Type of an error of a whole group that lies at one of its keys (``inside`` in its context)."""
_TAGS = ("a count", "some names", "a range", "some rates", "a word")
"""Branches of unions in a place; with a space, so that no key is mistaken for one."""


# --- the schema ------------------------------------------------------------------------------------------------------


def _text(value: Any) -> Any:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{_shown(value)} is not a name; expected text (put names that look like numbers in quotes)")
    return value


def _study_name(value: Any) -> Any:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", value):
        raise ValueError(
            f"{_shown(value)} cannot name a study (it becomes a folder); expected letters, digits, '_', '-' and '.'"
        )
    if value.casefold() in RESERVED_NAMES or len(value) > MAX_NAME_BYTES // 2:
        raise ValueError(
            f"{_shown(value)} cannot name a study; expected at most {MAX_NAME_BYTES // 2} letters and none of "
            f"{', '.join(RESERVED_NAMES)}, which lie beside studies"
        )
    return value


def _buffer_size(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{_shown(value)} is not a buffer size; expected a whole number of photos, at least 1")
    return value


def _learning_rate(value: Any) -> Any:
    try:  # text as well: YAML 1.1 reads 1e-3, without a point, as text
        rate = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        rate = math.nan
    if not (math.isfinite(rate) and rate > 0):
        raise ValueError(f"{_shown(value)} is not a learning rate; expected a finite number above 0, e.g. 0.003")
    return rate


def _proposals(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_PROPOSALS:
        raise ValueError(
            f"{_shown(value)} is not a number of rates to try; expected a whole number from 1 to {MAX_PROPOSALS}"
        )
    return value


def _yes_or_no(value: Any) -> Any:
    if not isinstance(value, bool):
        raise ValueError(f"{_shown(value)} is neither true nor false")
    return value


def _validation_word(value: Any) -> Any:
    if value != THIRD:
        raise ValueError(
            f"{_shown(value)} is not a validation part; expected {THIRD} (of each timestamp's training photos), or a "
            "list of identity names"
        )
    return value


def _seed(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise ValueError(f"{_shown(value)} is not a seed; expected a whole number from 0")
    return value


def _count(value: Any) -> Any:
    if isinstance(value, bool | float) or value < 1:
        raise ValueError(
            f"{_shown(value)} is not a number of identities; expected at least 1, or a list of identity names"
        )
    return value


def _filled_and_distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if not values:
        raise ValueError("the list is empty, so the space expands to no trial; expected at least one value")
    twice = [value for value, count in Counter(values).items() if count > 1]
    if twice:
        raise ValueError(f"{', '.join(_shown(value) for value in twice)} is listed more than once; keep one of each")
    return values


def _shown(value: Any) -> str:
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
    """Learning rates to search, ends included: ``trials`` rates are tried per cell, on a log scale unless told not."""

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

    ``validation`` says what the rates are judged by, never the test photos of reported people: ``"third"``, a third of
    each timestamp's training photos of the reported people, or the names of other people of the data set.
    ``asha``: stop a rate early that falls behind the cell's other rates (successive halving over timestamps).
    """

    validation: Annotated[
        Annotated[Literal["third"], BeforeValidator(_validation_word), Tag("a word")]
        | Annotated[_Names, Tag("some names")],
        Discriminator(lambda value: "a word" if isinstance(value, str) else "some names"),
    ] = "third"
    asha: _Flag = False


class Grid(_Strict):
    """The axes of a space. ``identity`` is a list of names, or a count: the first so many of the data set."""

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


class SearchSpace(_Strict):
    """One YAML file of ``search_spaces/``, valid by construction.

    ``data`` is the name of a data set or a folder; None means the profile's own. ``weights`` is the storage policy
    (``clstudy.study.retention``). ``search`` is None exactly where the learning rates are a list. ``primary`` and
    ``effects`` say how the results will be read (``clstudy.settings.claims``). ``settings`` take the place of the
    profile's (``clstudy.settings.overrides``).
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

    @field_validator("settings", mode="before")
    @classmethod
    def _settings_exist(cls, settings: Any) -> dict[str, dict[str, Any]]:
        try:
            return checked_settings(settings)
        except SettingError as error:
            raise PydanticCustomError(_INSIDE, "{what}", {"what": str(error), "inside": error.place}) from None

    @field_validator("primary")
    @classmethod
    def _primary_fits_grid(cls, primary: Primary | None, info: ValidationInfo) -> Primary | None:
        grid = info.data.get("grid")
        if primary is not None and grid is not None:
            primary_fits_grid(primary, grid.strategy, grid.buffer_size, _INSIDE)
        return primary

    @field_validator("effects")
    @classmethod
    def _effects_fit_grid(cls, effects: Effects | None, info: ValidationInfo) -> Effects | None:
        grid = info.data.get("grid")
        if effects is not None and grid is not None:
            effects_fit_grid(effects, grid.strategy, _INSIDE)
        return effects

    @field_validator("search")
    @classmethod
    def _search_fits_grid(cls, search: RateSearchSettings | None, info: ValidationInfo) -> RateSearchSettings | None:
        grid = info.data.get("grid")
        if grid is None:  # its own mistakes are reported already
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
                raise PydanticCustomError(_INSIDE, "{what}", {"what": problem, "inside": ("validation",)})
        return search


def reported_too(validation: Iterable[str], reported: Iterable[str]) -> str:
    """Say which people would both choose the rates and be reported; empty if nobody."""
    both = sorted(set(validation) & set(reported))
    if not both:
        return ""
    return (
        f"{', '.join(map(repr, both))} {'is' if len(both) == 1 else 'are'} reported too (grid.identity), and rates "
        f"chosen on reported people flatter their results; take other people, or {THIRD}"
    )


# --- reading ---------------------------------------------------------------------------------------------------------


class _LineLoader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice (plain YAML would silently keep the last)."""

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


def search_folders() -> tuple[Path, ...]:
    """Return the folders that hold the packaged spaces.

    An installed wheel carries them inside the package; a clone (also an editable install) has them beside it.
    """
    package = Path(__file__).resolve().parents[1]
    candidates = (package / "search_spaces", package.parent / "search_spaces")
    return tuple(folder for folder in candidates if folder.is_dir())


def known_spaces(search_path: Sequence[Path] | None = None) -> dict[str, Path]:
    """Return {name: file} of the packaged spaces, sorted by name; earlier folders of the path win."""
    found: dict[str, Path] = {}
    for folder in search_folders() if search_path is None else search_path:
        for file in sorted(folder.glob("*.yaml")):
            found.setdefault(file.stem, file)
    return dict(sorted(found.items()))


def load_space(name_or_path: str | Path, search_path: Sequence[Path] | None = None) -> SearchSpace:
    """Read and check a search space.

    Args:
        name_or_path: the name of a packaged space, or the path of a YAML file (anything that ends in .yaml or
            .yml or contains a path separator).
        search_path: folders to look for names in; by default the packaged ones.

    Raises:
        UserError: no such space, not readable as YAML (file and line), or not valid (every problem with its place).
    """
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
    return _parse(_read(file), str(file))


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


def _parse(text: str, origin: str) -> SearchSpace:
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
        # a date that does not exist, a tag that does not fit its value
        raise UserError(f"{origin}: not valid YAML: {str(error)[:200]}") from None
    if not isinstance(raw, dict):
        given = "is empty" if raw is None else f"holds {_shown(raw)}"[:80]
        keys = ", ".join(SearchSpace.model_fields)
        raise UserError(f"{origin} {given}; expected a search space with the keys {keys}")
    _collect_lines(node, (), lines)
    return _validated(raw, origin, lines)


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


_MOST_PROBLEMS = 30


def _validated(raw: Mapping[str, Any], origin: str, lines: Mapping[_Place, int]) -> SearchSpace:
    try:
        return SearchSpace.model_validate(raw)
    except ValidationError as error:
        problems = sorted((_problem(item, lines) for item in error.errors()), key=lambda problem: problem[0] or 0)
    more = len(problems) - _MOST_PROBLEMS
    if len(problems) == 1:
        line, text = problems[0]
        raise UserError(f"{origin}{f', line {line}' if line else ''}: {text}")
    listed = "\n".join(f"  {f'line {line}: ' if line else ''}{text}" for line, text in problems[:_MOST_PROBLEMS])
    rest = f"\n  and {more:,} more" if more > 0 else ""
    raise UserError(f"{origin} has {len(problems)} problems:\n{listed}{rest}")


def _problem(item: Any, lines: Mapping[_Place, int]) -> tuple[int | None, str]:
    """Return (line, "place: what is wrong") for one pydantic error."""
    place = tuple(part for part in item["loc"] if part not in _TAGS)
    if item["type"] == _INSIDE:
        place = (*place, *item["ctx"]["inside"])
    around = place
    while around and around not in lines:
        around = around[:-1]
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")
    kind, given = item["type"], item["input"]
    if kind == "value_error":
        what = str(item["ctx"]["error"])
    elif kind == _INSIDE:
        what = str(item["ctx"]["what"])
    elif kind == "extra_forbidden":
        known = _fields_at(place[:-1])
        what = f"unknown key {place[-1]!r}.{nearest(str(place[-1]), known)} Known: {', '.join(known)}"
    elif kind == "missing":
        what = "is missing"
    elif kind in ("tuple_type", "list_type"):
        what = f"{_shown(given)} is not a list; write [{given if given is not None else '...'}]"
    elif kind in ("model_type", "dict_type", "model_attributes_type"):
        what = f"{_shown(given)} is not a group of keys; expected the keys {', '.join(_fields_at(place))}"
    else:
        what = f"{_shown(given)}: {item['msg'].lower()}"
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


# --- overrides from the command line ---------------------------------------------------------------------------------


def override(
    space: SearchSpace,
    *,
    identities: str | None = None,
    seeds: str | None = None,
    profile: str | None = None,
    data: str | None = None,
    settings: Sequence[str] = (),
) -> SearchSpace:
    """Return the space with what the command line gave in place of what the file says; None leaves a value alone.

    Args:
        identities: ``"3"`` for the first three of the data set, or names: ``"person_00,person_02"`` (``"3,"`` is
            the one identity named 3).
        seeds: ``"0,1,2"``.
        settings: ``"inversion.latent_space=w_plus"`` and the like, beside those of the file.

    Raises:
        UserError: a value that no space could hold; the message names the option.
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
    for section, values in parse_settings(settings).items():
        given += [f"--set {section}.{name}" for name in values]
        raw["settings"].setdefault(section, {}).update(values)
    return _validated(raw, " ".join(given), {}) if given else space


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


# --- trials ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What a learning rate is chosen for: strategy x buffer size (None: it does not depend on it)."""

    strategy: str
    buffer_size: int | None

    @property
    def label(self) -> str:
        """The cell in words, e.g. ``er_rand K=3``."""
        return self.strategy if self.buffer_size is None else f"{self.strategy} K={self.buffer_size}"


@dataclass(frozen=True, kw_only=True)
class TrialSpec:
    """One trial: identity x strategy x buffer size x learning rate x seed.

    ``buffer_size`` is None for a strategy that does not depend on it (``lower``, ``upper``).
    """

    identity: str
    strategy: str
    buffer_size: int | None
    learning_rate: float
    seed: int

    @property
    def trial_id(self) -> str:
        """A name that is safe as a file name, e.g. ``person_00-er_hull-k10-lr0.003-s0``."""
        size = "" if self.buffer_size is None else f"-k{self.buffer_size}"
        text = f"{self.identity}-{self.strategy}{size}-lr{self.learning_rate:g}-s{self.seed}"
        return re.sub(r"^\.|[^\w.+-]", "_", text)

    def columns(self) -> dict[str, Any]:
        """What rows and ``study.yaml`` say of a trial: its id, then the fields
        (``clstudy.records.rows.TRIAL_FIELDS``).
        """
        return {"trial": self.trial_id, **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class Expansion:
    """The trials of a space, in the order they should start.

    ``collapsed`` counts the combinations of the full grid that were no trial of their own; ``sentence`` says so.
    """

    trials: tuple[TrialSpec, ...]
    collapsed: int
    sentence: str


def choose_identities(wanted: int | Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """Return the identities that a space asks for, out of those a data set has (in its order).

    Raises:
        UserError: an unknown name (with the nearest known one), or a count larger than the data set.
    """
    if isinstance(wanted, int):
        if wanted > len(known):
            raise UserError(
                f"the search space asks for {wanted} identities, the data set has {len(known)}; "
                f"ask for at most {len(known)}"
            )
        return tuple(known[:wanted])
    unknown = [name for name in wanted if name not in known]
    if unknown:
        listed = " ".join(f"unknown identity {name!r}.{nearest(name, known)}" for name in unknown)
        shown = ", ".join(known[:12]) + (f", … ({len(known)} in all)" if len(known) > 12 else "")
        raise UserError(f"{listed} The data set has: {shown}.")
    return tuple(wanted)


def expand_cells(space: SearchSpace, uses_buffer_size: Callable[[str], bool]) -> tuple[Cell, ...]:
    """Return the cells of a space, strategy by strategy; a strategy that does not depend on the buffer size is one.

    Args:
        uses_buffer_size: says of a strategy's name whether its buffer size matters; raises for an unknown name.

    Raises:
        UserError: unknown strategy, no buffer size where one is needed.
    """
    grid = space.grid
    needs_size = {strategy: uses_buffer_size(strategy) for strategy in grid.strategy}
    if grid.buffer_size is None and any(needs_size.values()):
        needing = ", ".join(strategy for strategy, needs in needs_size.items() if needs)
        raise UserError(f"grid.buffer_size is missing, and {needing} needs one; add e.g. buffer_size: [3, 5, 10]")
    return tuple(
        Cell(strategy=strategy, buffer_size=size)
        for strategy, needs in needs_size.items()
        for size in ((grid.buffer_size or (None,)) if needs else (None,))
    )


def expand(
    space: SearchSpace,
    identities: Sequence[str],
    uses_buffer_size: Callable[[str], bool],
    rates: Mapping[Cell, float] | None = None,
) -> Expansion:
    """Return every trial of a space once.

    A strategy that does not depend on the buffer size gives one trial instead of one per size. Trials are ordered
    seed, learning rate, strategy, buffer size, identity (fastest), so that workers begin with different identities
    instead of waiting for each other's first timestamp. A space with a range of learning rates gives the trials that
    are reported: every cell at the one rate that was chosen for it (the trials of the search itself are
    :class:`clstudy.study.search.rates.RateSearch`'s).

    Args:
        identities: the names that the data set has, in its order.
        uses_buffer_size: says of a strategy's name whether its buffer size matters; raises for an unknown name.
        rates: the chosen rate of every cell; exactly where the space has a range.

    Raises:
        UserError: unknown identity or strategy, no buffer size where one is needed, two trials with one name.
        ValueError: ``rates`` for a list, none for a range, or not for every cell.
    """
    grid = space.grid
    chosen = choose_identities(grid.identity, identities)
    cells = expand_cells(space, uses_buffer_size)
    choices = _rates_of_cells(grid, cells, rates)
    trials = tuple(
        TrialSpec(
            identity=identity,
            strategy=cell.strategy,
            buffer_size=cell.buffer_size,
            learning_rate=choice[cell],
            seed=seed,
        )
        for seed, choice, cell, identity in product(space.seeds, choices, cells, chosen)
    )
    if not trials:
        raise UserError(f"search space {space.name!r} expands to no trial: the data set has no identity")
    refuse_equal_ids(trials)
    combinations = len(chosen) * len(grid.strategy) * len(grid.buffer_size or (None,)) * len(choices) * len(space.seeds)
    return Expansion(
        trials=trials,
        collapsed=combinations - len(trials),
        sentence=_collapse_sentence(
            trials, combinations, [cell.strategy for cell in cells if cell.buffer_size is None]
        ),
    )


def _rates_of_cells(
    grid: Grid, cells: Sequence[Cell], rates: Mapping[Cell, float] | None
) -> list[Mapping[Cell, float]]:
    """The rate of every cell, once per pass over the cells: one pass per listed rate, or one with the chosen rates."""
    listed = grid.learning_rate
    if isinstance(listed, RateRange):
        missing = [cell.label for cell in cells if rates is None or cell not in rates]
        if rates is None or missing:
            raise ValueError(f"the space has a range of learning rates: no rate is chosen for {', '.join(missing)}")
        return [rates]
    if rates is not None:
        raise ValueError("the space lists its learning rates; there is none to choose")
    return [dict.fromkeys(cells, rate) for rate in listed]


def _collapse_sentence(trials: Sequence[TrialSpec], combinations: int, bounds: Sequence[str]) -> str:
    collapsed = combinations - len(trials)
    if not collapsed:
        return f"{_counted(len(trials), 'trial')}, one per combination."
    kept = sum(trial.buffer_size is None for trial in trials)
    subject = f"{' and '.join(bounds)} {'does' if len(bounds) == 1 else 'do'}"
    return (
        f"{combinations} combinations, {_counted(len(trials), 'trial')}: {subject} not depend on the buffer size, "
        f"so {kept + collapsed} combinations are {_counted(kept, 'trial')}, shown in every column."
    )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def refuse_equal_ids(trials: Iterable[TrialSpec]) -> None:
    """Two trials must not share a result file (names that differ only in case or unsafe characters, rates in digit 7).

    Raises:
        UserError: they would, or a name is too long for a file.
    """
    by_id: dict[str, TrialSpec] = {}
    for trial in trials:
        if len(trial.trial_id.encode()) > MAX_NAME_BYTES:
            raise UserError(
                f"the trial {trial.trial_id[:60]}… would have a name of {len(trial.trial_id.encode())} bytes, too long "
                f"for a file (at most {MAX_NAME_BYTES}); give the identity, or the strategy's class, a shorter name"
            )
        other = by_id.setdefault(trial.trial_id.casefold(), trial)
        if other is not trial:
            raise UserError(
                f"two trials would both be called {trial.trial_id!r}: {other} and {trial}; rename an identity so that "
                "names differ in letters (not only in their case) or digits, or use learning rates that differ in "
                "their first six digits"
            )


def check_trial_count(trials: int, *, yes: bool = False) -> None:
    """Refuse a study larger than ``MAX_TRIALS_WITHOUT_YES`` that was not confirmed.

    Raises:
        UserError: too many trials and no ``--yes``.
    """
    if trials > MAX_TRIALS_WITHOUT_YES and not yes:
        raise UserError(
            f"the search space expands to {trials} trials, more than {MAX_TRIALS_WITHOUT_YES}; look at the plan with "
            "--dry-run, then shorten the space (--identities, --seeds), or start it all the same with --yes"
        )


def check_buffer_sizes(trials: Iterable[TrialSpec], training_photos: Mapping[str, int]) -> None:
    """Refuse buffers that could hold more than all training photos of an identity together.

    A size above the candidates of an early timestamp is normal: the buffer is simply not full yet.

    Args:
        training_photos: identity -> number of its training photos over all timestamps.

    Raises:
        UserError: names every size that is too large, and the identity with the fewest photos.
    """
    too_large = sorted(
        {
            (trial.buffer_size, training_photos[trial.identity], trial.identity)
            for trial in trials
            if trial.buffer_size is not None and trial.buffer_size > training_photos[trial.identity]
        },
        key=lambda entry: (entry[1], entry[2], entry[0]),
    )
    if too_large:
        _, photos, identity = too_large[0]
        sizes = ", ".join(str(size) for size in sorted({entry[0] for entry in too_large}))
        raise UserError(
            f"buffer size {sizes} is larger than all training photos of {identity!r} together ({photos}); "
            f"use sizes up to {photos}"
        )
