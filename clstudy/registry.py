"""Names for the things a user may choose: one registry per kind, one line to add an entry.

What is not in the package is named ``module:Name``: a registry imports it, from the folder that the study is started
in or from an installed package, and refuses what is not of its kind.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from clstudy.errors import UserError, nearest

T = TypeVar("T")


class Registry(Generic[T]):
    """Maps names to entries; an unknown name is a ``UserError`` that gives the nearest known one.

    Args:
        kind: what the entries are, in a word, as messages say it.
        foreign: makes an entry of what ``module:Name`` names, and raises a ValueError in words where it is no such
            entry (``subclass_of``, ``instance_of``); None: entries outside the package are not taken.
    """

    def __init__(self, kind: str, foreign: Callable[[object], T] | None = None):
        self._kind = kind
        self._foreign = foreign
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that adds an entry.

        Raises:
            ValueError: the name is taken.
        """

        def add(entry: T) -> T:
            if name in self._entries:
                raise ValueError(f"{self._kind} {name!r} is registered twice")
            self._entries[name] = entry
            return entry

        return add

    def __getitem__(self, name: str) -> T:
        """The entry of a name, or of ``module:Name``.

        Raises:
            UserError: an unknown name, a module that cannot be imported, something that is not of this kind.
        """
        if self._foreign is not None and is_foreign(name):
            try:
                return self._foreign(foreign_object(self._kind, name))
            except ValueError as error:
                raise UserError(f"{self._kind} {name} {error}") from error
        if name not in self._entries:
            known = ", ".join(self._entries)
            raise UserError(f"unknown {self._kind} {name!r}.{nearest(name, self._entries)} Known: {known}.")
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def items(self) -> list[tuple[str, T]]:
        """All (name, entry) pairs in the order of registration."""
        return list(self._entries.items())


def subclass_of(base: type[Any]) -> Callable[[object], Any]:
    """For registries of classes: takes a subclass of ``base`` that leaves nothing abstract."""

    def accepted(found: object) -> object:
        if not (isinstance(found, type) and issubclass(found, base)):
            raise ValueError(f"is not a {base.__name__}; expected a subclass of {base.__module__}.{base.__name__}")
        if inspect.isabstract(found):
            missing = ", ".join(sorted(getattr(found, "__abstractmethods__", ())))
            raise ValueError(f"is not complete: it does not define {missing}")
        return found

    return accepted


def instance_of(base: type[Any]) -> Callable[[object], Any]:
    """For registries of objects: takes a subclass of ``base``, made without arguments, or an object of one."""
    of_class = subclass_of(base)

    def accepted(found: object) -> object:
        return found if isinstance(found, base) else cast(type[Any], of_class(found))()

    return accepted


def is_foreign(name: str) -> bool:
    """Whether a name is ``module:Name``, of something outside the package."""
    return ":" in name


def foreign_object(kind: str, name: str) -> Any:
    """What ``module:Name`` names.

    Raises:
        UserError: the module cannot be imported, or has nothing of that name.
    """
    module, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)  # a worker process may not have the folder that the study was started in
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{kind} {name}: there is no module {error.name!r}; start from the folder that holds it, or install it"
        ) from error
    except Exception as error:
        raise UserError(f"{kind} {name}: importing {module} failed with {type(error).__name__}: {error}") from error
    found = getattr(loaded, attribute, None)
    if found is None:
        own = [one for one, value in vars(loaded).items() if getattr(value, "__module__", None) == module]
        raise UserError(f"{kind} {name}: {module} has no {attribute!r}.{nearest(attribute, own)}")
    return found


def foreign_source(kind: str, name: str) -> bytes:
    """The file that defines what ``module:Name`` names.

    Raises:
        UserError: as ``foreign_object``; the file cannot be read, or there is none (built by ``type``, typed at a
            prompt): keys need what was written, and other machines too.
    """
    found = foreign_object(kind, name)
    try:
        file = inspect.getfile(found if isinstance(found, type) or inspect.isfunction(found) else type(found))
        return Path(file).read_bytes()
    except (OSError, TypeError) as error:
        raise UserError(f"{kind} {name}: its source cannot be read ({error}); define it in a file") from error


def source_digest(kind: str, name: str) -> str:
    """sha256 of that file, for keys: what the user wrote may change between two runs while its name stays.

    Raises:
        UserError: as ``foreign_object``.
    """
    return hashlib.sha256(foreign_source(kind, name)).hexdigest()


def foreign_sources(kind: str, names: Iterable[str]) -> dict[str, str]:
    """Source of the modules outside the package, by module name, for machines of a cluster that lack them.

    Names of the package are left out, and modules inside other packages: a package is installed on every machine, not
    sent.
    """
    modules = {name: name.partition(":")[0] for name in names if is_foreign(name)}
    return {module: foreign_source(kind, name).decode() for name, module in modules.items() if "." not in module}


S = TypeVar("S")
Check = Callable[[S], Iterator[str]]
"""Yields what is wrong, most telling first, or nothing; its docstring says what has to hold."""


@dataclass(frozen=True)
class Finding:
    """What one check found of what a user brought.

    Attributes:
        check: its name.
        message: the first thing that is wrong, in words; empty where the check passed.
    """

    check: str
    message: str = ""

    @property
    def passed(self) -> bool:
        """Whether it held."""
        return not self.message


def findings_of(checks: Mapping[str, Check[S]], subject: S) -> list[Finding]:
    """One finding for each check, in their order; an exception inside a check is a finding, too."""
    return [Finding(name, first_problem(check, subject)) for name, check in checks.items()]


def first_problem(check: Check[S], subject: S) -> str:
    """The first thing that a check finds wrong; empty where nothing is."""
    try:
        return next(check(subject), "")
    except UserError as error:
        return str(error)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
