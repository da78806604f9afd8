"""HTML pages from the templates beside this module (Jinja2).

Every value that a template prints passes through ``escaped`` automatically, so no template can forget it. Equal values
give equal bytes.
"""

from __future__ import annotations

import html
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from clstudy.safe_text import printable, redacted

# Nothing may be loaded from anywhere, even if a name should ever get past the escaping.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def render(template: str, **values: Any) -> str:
    """A complete page.

    Args:
        template: its file's name under ``templates``.
        values: the values that it prints.

    Raises:
        jinja2.UndefinedError: the template prints a value that is not given.
    """
    return environment().get_template(template).render(values, policy=_POLICY, style=_style()) + "\n"


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
def _style() -> Markup:
    """The page's style sheet, the only text that is already markup."""
    return Markup(files("clstudy.analysis.pages").joinpath("report.css").read_text(encoding="utf-8"))
