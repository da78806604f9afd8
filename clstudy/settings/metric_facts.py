"""Facts about metrics, without running them: name, direction, title, decimals, files. Importable without torch.

A metric's facts are attributes of its class (``clstudy.metrics.base.Metric``). For packaged metrics they are parsed
from the source of the class bodies, because importing a metric needs torch and the analysis must run without it. For a
user's own metrics they are read from the class when a study is planned, and written into ``study.yaml``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from clstudy.errors import UserError
from clstudy.registry import foreign_object, is_foreign, source_digest

RECONSTRUCTION, BALANCED, SYNTHESIS = "reconstruction", "balanced_reconstruction", "synthesis"
NOVEL_VIEW, TURNED, EDITED = "novel_view", "turned", "edited"
PROTOCOLS = (RECONSTRUCTION, BALANCED, SYNTHESIS, NOVEL_VIEW, TURNED, EDITED)
"""Reconstruction of test photos as they come, of those in a balanced test set (``BALANCED_PHOTO``), and synthesis.

Of 3D generators also a test photo's reconstruction: as another camera of its moment sees it, against that camera's
photo; from the sides, against the photo; and with its latent moved along a semantic direction, against the photo.
"""
BALANCED_PHOTO = "balanced"
"""Condition of a test photo that, where it is 1, belongs to the balanced test set of its timestamp: one with as many
photos of a rare mode (a pose, an expression, a light) as of a frequent one. Such photos are scored apart."""
MOST_DECIMALS = 9
MOST_TITLE = 60
METRIC_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_PACKAGE = Path(__file__).parents[1] / "metrics"
_OURS = "clstudy.metrics."


@dataclass(frozen=True, kw_only=True)
class MetricFacts:
    """The facts of one metric, as its class states them (``clstudy.metrics.base.Metric`` explains each).

    Raises:
        ValueError: a fact does not have the expected type or form.
    """

    name: str
    higher_is_better: bool
    title: str
    decimals: int = 4
    needs: tuple[str, ...] = ()
    in_reconstruction: bool = True
    in_synthesis: bool = False
    of_set: bool = False
    of_identity: bool = False
    twin_of: str | None = None
    other_protocols: tuple[str, ...] = ()
    """Protocols of a workload that does not score by reconstruction and synthesis (``WorkloadKind.measures``)."""

    def __post_init__(self) -> None:
        problem = next(_problems(self), None)
        if problem is not None:
            raise ValueError(problem)

    @classmethod
    def of(cls, kind: object) -> MetricFacts:
        """The facts of a metric's class.

        Raises:
            ValueError: a fact is missing, or not as expected.
        """
        there = {entry.name: getattr(kind, entry.name) for entry in fields(cls) if hasattr(kind, entry.name)}
        return cls.read(there)

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> MetricFacts:
        """Facts from a mapping by name, as in a class body or ``study.yaml``.

        Raises:
            ValueError: a fact is missing, unknown, or not as expected.
        """
        known = {entry.name: entry.default is MISSING for entry in fields(cls)}
        for name, required in known.items():
            if required and name not in values:
                raise ValueError(f"{name} is missing")
        if unknown := sorted(map(str, values.keys() - known.keys())):
            raise ValueError(f"{unknown[0]} is not a fact of a metric")
        given: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        return cls(**given)

    @classmethod
    def of_workload(
        cls, name: str, title: str, *protocols: str, higher_is_better: bool, decimals: int = 4
    ) -> MetricFacts:
        """Facts of what a workload measures by itself, under its protocols."""
        return cls(
            name=name,
            higher_is_better=higher_is_better,
            title=title,
            decimals=decimals,
            in_reconstruction=False,
            other_protocols=protocols,
        )

    @property
    def protocols(self) -> tuple[str, ...]:
        """The protocols under which the metric has rows, in the order of the tables."""
        reconstruction = (RECONSTRUCTION, BALANCED) if self.in_reconstruction else ()
        synthesis = (SYNTHESIS,) if self.in_synthesis else ()
        novel = (NOVEL_VIEW,) if self.in_reconstruction else ()
        changed = (TURNED, EDITED) if self.of_identity else ()
        return (*reconstruction, *synthesis, *novel, *changed, *self.other_protocols)


Metrics = Mapping[str, MetricFacts]
"""Name in the rows -> facts, in the order of the tables."""


def _problems(facts: MetricFacts) -> Iterator[str]:
    if not (isinstance(facts.name, str) and METRIC_NAME.fullmatch(facts.name)):
        yield f"name is {facts.name!r}; expected up to 40 of a-z, 0-9 and _, a letter first"
    for flag in ("higher_is_better", "in_reconstruction", "in_synthesis", "of_set", "of_identity"):
        if not isinstance(getattr(facts, flag), bool):
            yield f"{flag} is {getattr(facts, flag)!r}; expected True or False"
    title = facts.title
    if not (isinstance(title, str) and title.strip() and title.isprintable() and len(title) <= MOST_TITLE):
        yield f"title is {title!r}; expected one line of at most {MOST_TITLE} characters, such as 'PSNR (dB)'"
    decimals = facts.decimals
    if isinstance(decimals, bool) or not (isinstance(decimals, int) and 0 <= decimals <= MOST_DECIMALS):
        yield f"decimals is {decimals!r}; expected a number from 0 to {MOST_DECIMALS}"
    if not (isinstance(facts.needs, tuple) and all(isinstance(role, str) for role in facts.needs)):
        yield f"needs is {facts.needs!r}; expected a tuple of roles, such as ('inception',)"
    others = facts.other_protocols
    if not (isinstance(others, tuple) and all(isinstance(one, str) and METRIC_NAME.fullmatch(one) for one in others)):
        yield f"other_protocols is {others!r}; expected a tuple of names of a-z, 0-9 and _"
    elif not (facts.in_reconstruction or facts.in_synthesis or others):
        yield "in_reconstruction and in_synthesis are both False; expected at least one of them to be True"
    if facts.of_set and not facts.in_synthesis:
        yield "of_set is True and in_synthesis is not; only generated images can be scored as a set"
    if facts.of_identity and not facts.in_reconstruction:
        yield "of_identity is True and in_reconstruction is not; faces from other sides are compared with their photos"
    if not (facts.twin_of is None or isinstance(facts.twin_of, str)):
        yield f"twin_of is {facts.twin_of!r}; expected the name of a metric, or None"


# --- packaged metrics ------------------------------------------------------------------------------------------------


@cache
def packaged_metrics() -> Metrics:
    """The metrics of the package by name, in the order of ``clstudy/metrics/__init__.py``."""
    return metrics_in(_PACKAGE)


def metrics_in(folder: Path) -> Metrics:
    """The metrics registered by the modules of a folder that its ``__init__.py`` lists in ``MODULES``.

    Raises:
        ValueError: a fact is not a literal, is missing, or is not as expected; the message names the module.
    """
    bodies = _Bodies(folder)
    listed: tuple[str, ...] = bodies.constant("__init__", "MODULES")
    found = [facts for module in listed for facts in bodies.registered(module)]
    return MappingProxyType({facts.name: facts for facts in found})


@cache
def as_published() -> Mapping[str, str]:
    """Metric -> the same metric computed as by the published scripts (``clstudy.metrics.as_published``)."""
    twins = {facts.twin_of: name for name, facts in packaged_metrics().items()}
    return MappingProxyType({name: twins[name] for name in packaged_metrics() if name in twins})


class _Bodies:
    """Class bodies of a folder's modules, parsed but not run.

    An attribute's value is a literal, or the attribute of another class; attributes that a class lacks come from its
    bases.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._trees: dict[str, list[ast.stmt]] = {}

    def registered(self, module: str) -> list[MetricFacts]:
        """The facts of the classes that a module registers."""
        usual = self._facts("base", "Metric")  # a base may be imported from ``clstudy`` itself
        classes = [node for node in self._tree(module) if isinstance(node, ast.ClassDef)]
        try:
            return [
                MetricFacts.read(usual | self._facts(module, node.name))
                for node in classes
                if any(map(_registers, node.decorator_list))
            ]
        except ValueError as error:
            raise ValueError(f"clstudy/metrics/{module}.py: {error}") from None

    def constant(self, module: str, name: str) -> Any:
        """The literal that a module assigns to a name."""
        return self._value(module, _assigned(self._tree(module))[name])

    def _tree(self, module: str) -> list[ast.stmt]:
        if module not in self._trees:
            self._trees[module] = ast.parse((self._folder / f"{module}.py").read_text(encoding="utf-8")).body
        return self._trees[module]

    def _facts(self, module: str, name: str) -> dict[str, Any]:
        """The facts of a class and its bases; bases from elsewhere are ignored."""
        for node in self._tree(module):
            if isinstance(node, ast.ClassDef) and node.name == name:
                said: dict[str, Any] = {}
                for base in reversed(node.bases):
                    said |= self._facts(module, base.id) if isinstance(base, ast.Name) else {}
                own = _assigned(node.body)
                wanted = [entry.name for entry in fields(MetricFacts) if entry.name in own]
                return said | {fact: self._value(module, own[fact]) for fact in wanted}
            if isinstance(node, ast.ImportFrom) and any(alias.name == name for alias in node.names):
                origin = node.module or ""
                return self._facts(origin.removeprefix(_OURS), name) if origin.startswith(_OURS) else {}
        return {}

    def _value(self, module: str, node: ast.expr) -> Any:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            return self._facts(module, node.value.id)[node.attr]
        try:
            return ast.literal_eval(node)
        except ValueError:
            raise ValueError(
                f"line {node.lineno}: {ast.unparse(node)!r} is not a literal; facts of a metric are read without "
                "running them"
            ) from None


def _registers(decorator: ast.expr) -> bool:
    return isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "METRICS.register"


def _assigned(body: Sequence[ast.stmt]) -> dict[str, ast.expr]:
    """Names that the statements assign."""
    found: dict[str, ast.expr] = {}
    for node in body:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                pairs = [(target, node.value)]
                if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):  # name, title = …, …
                    pairs = list(zip(target.elts, node.value.elts, strict=False))
                found |= {name.id: value for name, value in pairs if isinstance(name, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            found[node.target.id] = node.value
    return found


# --- a user's own ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class OwnMetric:
    """A metric that is not in the package.

    Attributes:
        place: ``module:Name``, as written in settings.
        source: sha256 of the file that defines it, for keys.
        facts: the facts of its class.
    """

    place: str
    source: str
    facts: MetricFacts = field(repr=False)

    def document(self) -> dict[str, Any]:
        """As ``study.yaml`` holds it (under ``metrics``, by place)."""
        said = {name: fact for name, fact in asdict(self.facts).items() if fact not in (None, ())}
        return {"source": self.source} | said


def own_facts(place: str) -> MetricFacts:
    """The facts of ``module:Name``. ``clstudy.metrics.base.METRICS`` checks that it is a metric.

    Raises:
        UserError: it cannot be imported, or a fact is missing or not as expected.
    """
    try:
        facts = MetricFacts.of(foreign_object("metric", place))
        if facts.twin_of is not None:
            raise ValueError(f"twin_of is {facts.twin_of!r}; only packaged metrics have a twin")
    except ValueError as error:
        raise UserError(f"metric {place}: {error}") from error
    return facts


def own_metrics(names: Iterable[str]) -> tuple[OwnMetric, ...]:
    """The metrics that are given as ``module:Name``.

    Raises:
        UserError: as ``own_facts``; or one has the name of a packaged metric or of another one.
    """
    found: dict[str, OwnMetric] = {}
    for place in filter(is_foreign, names):
        facts = own_facts(place)
        if facts.name in packaged_metrics():
            raise UserError(f"metric {place} is called {facts.name!r}, like a packaged metric; give it another name")
        if facts.name in found:
            other = found[facts.name].place
            raise UserError(f"metrics {other} and {place} are both called {facts.name!r}; rename one of them")
        found[facts.name] = OwnMetric(place=place, source=source_digest("metric", place), facts=facts)
    return tuple(found.values())


def read_own_metrics(entries: object) -> tuple[OwnMetric, ...]:
    """The user's own metrics of a ``study.yaml``, from its value under ``metrics`` (None if it has none).

    Raises:
        ValueError: they do not have the form that ``OwnMetric.document`` gives.
    """
    if entries is None:
        return ()
    if not isinstance(entries, Mapping):
        raise ValueError(f"metrics is {str(entries)[:40]}, expected a mapping module:Name: facts")
    return tuple(_read_own_metric(place, entry) for place, entry in entries.items())


def _read_own_metric(place: object, entry: object) -> OwnMetric:
    if not (isinstance(place, str) and isinstance(entry, Mapping) and isinstance(entry.get("source"), str)):
        raise ValueError(f"metrics holds {str(place)[:40]}: {str(entry)[:40]}, expected module:Name: facts and source")
    facts = MetricFacts.read({name: fact for name, fact in entry.items() if name != "source"})
    if facts.name in packaged_metrics():
        raise ValueError(f"metrics holds {place[:40]} under the name {facts.name} of a packaged metric")
    return OwnMetric(place=place, source=entry["source"], facts=facts)


def known_metrics(own: Iterable[OwnMetric] = ()) -> Metrics:
    """The packaged metrics and, after them, a user's own."""
    return MappingProxyType({**packaged_metrics(), **{one.facts.name: one.facts for one in own}})


def row_names(names: Iterable[str], own: Iterable[OwnMetric]) -> dict[str, str]:
    """A metric's name in settings -> its name in the rows."""
    places = {one.place: one.facts.name for one in own}
    return {name: places.get(name, name) for name in names}
