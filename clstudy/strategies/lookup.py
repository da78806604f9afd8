"""From what a search space says to a strategy: registered names, settings, and classes of the user's own.

``er_rand``; ``ewc(weight=100.0)``: a registered strategy with settings other than its defaults;
``package.module:Class`` (settings as above): a class that is not part of clstudy.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

from clstudy.errors import UserError, nearest
from clstudy.storage.places import write_atomically
from clstudy.storage.private_folder import made_private
from clstudy.strategies.base import STRATEGIES, Strategy

_FORM = re.compile(r"(?P<name>[A-Za-z_][\w.]*(:[A-Za-z_]\w*)?)\s*(\((?P<settings>.*)\))?", re.DOTALL)


def strategy_class(text: str) -> type[Strategy]:
    """Return the class that a search space names.

    Raises:
        UserError: unknown name (with the nearest), module that cannot be imported, class that is no strategy.
    """
    name, _ = _parts(text)
    module, _, attribute = name.partition(":")
    return _imported(module, attribute) if attribute else STRATEGIES[name]


def make_strategy(text: str) -> Strategy:
    """Return the strategy that a search space names, with its settings.

    Raises:
        UserError: as :func:`strategy_class`; or a setting it does not have, or a value it refuses.
    """
    found, (_, settings) = strategy_class(text), _parts(text)
    known = _settings_of(found)
    unknown = [key for key in settings if key not in known]
    if unknown:
        has = f"its settings: {', '.join(known)}" if known else "it has no settings"
        raise UserError(f"strategy {text!r}: unknown setting {unknown[0]!r}.{nearest(unknown[0], known)} ({has})")
    try:
        return found(**settings)
    except (TypeError, ValueError) as error:
        raise UserError(f"strategy {text!r}: {error}") from error


def strategy_document(text: str) -> dict[str, Any]:
    """Everything about a strategy that can change what it does, for keys: name, settings, a foreign class's source.

    A user's class may change between two runs while its name stays; the digest of its module's file tells.
    """
    strategy = make_strategy(text)
    name, _ = _parts(text)
    document: dict[str, Any] = {"name": name}
    if is_dataclass(strategy):
        document["settings"] = asdict(strategy)
    if ":" in name:
        source = Path(inspect.getfile(type(strategy))).read_bytes()
        document["source"] = hashlib.sha256(source).hexdigest()
    return document


def foreign_sources(texts: Iterable[str]) -> dict[str, str]:
    """Source of the modules of the user's own classes, by module name, for machines of a cluster that lack them.

    Modules inside a package are left out: a package is installed on every machine, not sent.
    """
    found = {}
    for text in texts:
        module, colon, _ = _parts(text)[0].partition(":")
        if colon and "." not in module:
            found[module] = Path(inspect.getfile(strategy_class(text))).read_text(encoding="utf-8")
    return found


def provide_sources(sources: Mapping[str, str], folder: Path) -> None:
    """Make modules importable that are not: they are written into ``folder``, which joins the search path.

    Raises:
        UserError: others than this user may write into the folder.
    """
    missing = {name: source for name, source in sources.items() if importlib.util.find_spec(name) is None}
    if not missing:
        return
    made_private(folder)
    for name, source in missing.items():
        write_atomically(folder / f"{name}.py", source.encode())
    sys.path.append(str(folder))
    importlib.invalidate_caches()


def _settings_of(found: type[Strategy]) -> list[str]:
    return [field.name for field in fields(found) if field.init] if is_dataclass(found) else []


def _parts(text: str) -> tuple[str, dict[str, Any]]:
    """Split ``name(key=value, …)`` into name and settings."""
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise UserError(
            f"strategy {text!r} cannot be read; expected a name (er_rand), a name with settings (ewc(weight=100.0)) or "
            "a class of your own (package.module:Class)"
        )
    inside = match["settings"]
    if not inside or not inside.strip():
        return match["name"], {}
    try:
        call = ast.parse(f"f({inside})", mode="eval").body
        if not isinstance(call, ast.Call) or call.args or any(keyword.arg is None for keyword in call.keywords):
            raise ValueError
        return match["name"], {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError):
        raise UserError(
            f"strategy {text!r}: settings are written key=value with numbers or text, e.g. ewc(weight=100.0)"
        ) from None


def _imported(module: str, attribute: str) -> type[Strategy]:
    wanted = f"strategy {module}:{attribute}"
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)  # a worker process may not have the folder that the study was started in
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{wanted}: there is no module {error.name!r}; start from the folder that holds it, or install it"
        ) from error
    except Exception as error:
        raise UserError(f"{wanted}: importing {module} failed with {type(error).__name__}: {error}") from error
    found = getattr(loaded, attribute, None)
    if found is None:
        classes = [
            name for name, value in vars(loaded).items() if isinstance(value, type) and issubclass(value, Strategy)
        ]
        raise UserError(f"{wanted}: {module} has no {attribute!r}.{nearest(attribute, classes)}")
    if not (isinstance(found, type) and issubclass(found, Strategy)):
        raise UserError(f"{wanted} is not a strategy; expected a subclass of clstudy.strategies.Strategy")
    if inspect.isabstract(found):
        missing = ", ".join(sorted(found.__abstractmethods__))
        raise UserError(f"{wanted} is not complete: it does not define {missing}")
    return found
