"""HTML pages from the templates beside this module (Jinja2).

Every value that a template prints passes through ``escaped`` automatically, so no template can forget it. Equal values
give equal bytes.
"""

from __future__ import annotations

import base64
import hashlib
import html
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from clstudy.safe_text import printable, redacted


def render(template: str, **values: Any) -> str:
    """A complete page.

    Args:
        template: its file's name under ``templates``.
        values: the values that it prints.

    Raises:
        jinja2.UndefinedError: the template prints a value that is not given.
    """
    page = environment().get_template(template).render(values, policy=_policy(), style=_style(), script=_script())
    return page + "\n"


@cache
def environment() -> Environment:
    """The environment of the templates: printed values are escaped, and a missing value is an error."""
    return Environment(
        loader=PackageLoader("clstudy.analysis.pages", "templates"),
        autoescape=True,
        finalize=escaped,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def escaped(value: Any) -> Markup:
    """A value escaped for HTML: tags, quotes and control characters have no effect, and secrets are hidden.

    Jinja2's own escaping, which comes after this, leaves ``Markup`` as it is; it would not handle control characters
    and secrets.
    """
    if isinstance(value, Markup):
        return value
    return Markup(html.escape(printable(redacted(str(value)))))


@cache
def _policy() -> str:
    """Nothing may be loaded from anywhere and only our own script may run, even if a name gets past the escaping."""
    digest = base64.b64encode(hashlib.sha256(_script().encode()).digest()).decode("ascii")
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


@cache
def _style() -> Markup:
    """The page's style sheet; it and the script are the only texts that are already markup."""
    return _packaged("report.css")


@cache
def _script() -> Markup:
    """The page's script. Everything can be read without it."""
    return _packaged("report.js")


def _packaged(name: str) -> Markup:
    return Markup(files("clstudy.analysis.pages").joinpath(name).read_text(encoding="utf-8"))
