"""Make a strategy from its text in a search space: a registered name or a class of the user's own, with settings.

``er_rand``; ``ewc(weight=100.0)``: a registered strategy with settings other than its defaults;
``package.module:Class`` (settings as above): a class that is not part of clstudy.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from dataclasses import asdict, fields, is_dataclass
from typing import Any

from clstudy.errors import UserError, nearest
from clstudy.registry import foreign_sources, is_foreign, source_digest
from clstudy.strategies.base import STRATEGIES, Strategy

_FORM = re.compile(r"(?P<name>[A-Za-z_][\w.]*(:[A-Za-z_]\w*)?)\s*(\((?P<settings>.*)\))?", re.DOTALL)


def strategy_class(text: str) -> type[Strategy]:
    """Return the class that a search space names.

    Raises:
        UserError: unknown name (with the nearest), a module that cannot be imported, or a class that is not a strategy.
    """
    return STRATEGIES[_parts(text)[0]]


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
    """Everything that determines what a strategy does, for keys: name, settings, a foreign class's source.

    A user's class may change between two runs under the same name; the digest of its module's file shows that.
    """
    strategy = make_strategy(text)
    name, _ = _parts(text)
    document: dict[str, Any] = {"name": name}
    if is_dataclass(strategy):
        document["settings"] = asdict(strategy)
    if is_foreign(name):
        document["source"] = source_digest("strategy", name)
    return document


def strategy_sources(texts: Iterable[str]) -> dict[str, str]:
    """Source of the modules of the user's own classes, by module name (``clstudy.registry.foreign_sources``)."""
    return foreign_sources("strategy", [_parts(text)[0] for text in texts])


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
