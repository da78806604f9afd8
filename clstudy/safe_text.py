"""Text that is safe to show: addresses without credentials, and names from files that cannot steer what displays them.

Names of people, photos and spaces, messages of failures and of libraries come from files and servers that may be
anybody's. Each kind of output has one function here, called by what writes that kind: ``printable`` for a terminal
(``clstudy.cli.clean_output``), ``markdown`` for Markdown documents, ``printable`` before the escaping of LaTeX and
HTML, ``csv_cell`` for CSV. Standard library only.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable
from urllib.parse import quote, quote_plus, unquote, unquote_plus

HIDDEN = "***"
"""Stands where a secret was."""

_ADDRESS = re.compile(r"\b[A-Za-z][A-Za-z0-9+.-]*://[^\s\"'<>`]+")
_SECRET_OPTION = re.compile(r"pass|pwd|secret|token|key|sig|cred|auth|sas|code", re.IGNORECASE)
"""Names of options (``?name=value``) whose values are hidden: rather one too many than one too few."""
_OPTION = re.compile(r"([?&;#])([^=?&;#\s]*)=([^&;#\s]*)")
_SECRET_VARIABLES = (
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AZURE_STORAGE_ACCESS_KEY",
    "RAY_AUTH_TOKEN",
)
_ADDRESS_VARIABLES = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "RAY_ADDRESS")
_SHORTEST_SECRET = 6
"""Shorter ones are hidden in addresses, but not looked for elsewhere: they occur in ordinary words."""


# --- secrets ---------------------------------------------------------------------------------------------------------


def shown_address(address: str) -> str:
    """Return an address without user, password and tokens: ``https://***@host/path?token=***``.

    What is no address (a path, for instance) comes back as it is.
    """
    scheme, separator, rest = address.partition("://")
    if not separator:
        return address
    who, rest = _parted(rest)
    hidden = _OPTION.sub(lambda found: _shown_option(*found.groups()), rest)
    return f"{scheme}://{HIDDEN + '@' if who else ''}{hidden}"


def _parted(rest: str) -> tuple[str, str]:
    """Who an address logs in as, and what is left of it (both after ``://``).

    By hand: urlsplit takes a password with a ``/`` or ``#`` in it for the end of the host, and would show it. What may
    be a password or a port (``user:5000/x@host``) is hidden.
    """
    host = re.split(r"[/?#]", rest, maxsplit=1)[0]
    login = rest if ":" in host else host  # a password may hold anything, also an @
    who, _, _ = login.rpartition("@")
    return who, rest[len(who) + 1 :] if who else rest


def _shown_option(sign: str, name: str, value: str) -> str:
    return f"{sign}{name}={HIDDEN if _SECRET_OPTION.search(name) else value}"


def has_credentials(address: str) -> bool:
    """Whether ``shown_address`` would hide something of an address."""
    return shown_address(address) != address


def redacted(text: str) -> str:
    """Return a text with every address in it as ``shown_address`` shows it, and without the environment's secrets.

    The latter because a library's message may quote a password on its own.
    """
    if "://" in text:
        text = _ADDRESS.sub(lambda found: _in_sentence(found.group()), text)
    for secret in _environment_secrets():
        text = text.replace(secret, HIDDEN)
    return text


def _in_sentence(found: str) -> str:
    """An address without the sentence's own signs behind it."""
    address = found.rstrip(".,;:!)]}")
    return shown_address(address) + found[len(address) :]


def _environment_secrets() -> list[str]:
    """Passwords and tokens of the environment in the spellings that messages have, longest first."""
    found = {os.environ.get(name, "") for name in _SECRET_VARIABLES}
    for name in _ADDRESS_VARIABLES:
        found |= _secrets_of(os.environ.get(name, ""))
    spelled = {form for one in found for form in (one, quote(one, safe=""), quote_plus(one), repr(one)[1:-1])}
    return sorted((one for one in spelled if len(one) >= _SHORTEST_SECRET), key=len, reverse=True)


def _secrets_of(address: str) -> set[str]:
    """The password (or the token that stands in the user's place) and the hidden options of an address."""
    who, rest = _parted(address.partition("://")[2])
    user, colon, password = who.partition(":")
    found = {password if colon else user}
    found |= {value for _, name, value in _OPTION.findall(rest) if _SECRET_OPTION.search(name)}
    return found | {unquote_plus(one) for one in found} | {unquote(one) for one in found}


# --- terminals -------------------------------------------------------------------------------------------------------

_KEPT = "\n\t"
_JOINERS = "\u200c\u200d\ufeff\u00ad"
"""Format characters that ordinary words and emoji have (and the byte order mark); they move and hide nothing."""


def printable(text: str) -> str:
    r"""Return a text in which control characters are spelled out (``\x1b``), so that none reaches a terminal.

    Line breaks and tabs stay. Escape sequences, backspaces, carriage returns, characters that turn the direction of
    writing (which show another order than the text has), line separators and lone surrogates do not.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(sign if _harmless(sign) else _spelled(sign) for sign in text)


def _harmless(sign: str) -> bool:
    return sign in _KEPT or sign in _JOINERS or unicodedata.category(sign) not in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _spelled(sign: str) -> str:
    code = ord(sign)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def one_line(text: str) -> str:
    """Return a text as one printable line."""
    return printable(" ".join(text.split()))


# --- documents -------------------------------------------------------------------------------------------------------


def markdown(lines: Iterable[str]) -> str:
    """Return a Markdown document of these lines, in which nothing that came from a file acts.

    A line stays one line (so that no name begins a heading or a table), tags are shown instead of obeyed, links and
    pictures are shown as they are written, control characters are spelled out and secrets hidden. Emphasis, code and
    bars are left to the caller.
    """
    return "\n".join(_markdown_line(line) for line in lines)


def _markdown_line(line: str) -> str:
    text = redacted(one_line(line))
    text = re.sub(r"&(?=#?\w+;)", "&amp;", text).replace("<", "&lt;")
    text = text.replace("](", "]\\(").replace("][", "]\\[")
    return re.sub(r"^(\[[^\]]*\]):", r"\1\\:", text)  # would define where links of that name lead


def csv_cell(text: str) -> str:
    """Return a text that a spreadsheet does not take for a formula: an apostrophe before ``=``, ``+``, ``-``, ``@``.

    Numbers stay numbers; control characters are spelled out.
    """
    text = redacted(printable(text))
    if text.lstrip()[:1] not in tuple("=+-@|%") or _is_number(text):
        return text
    return f"'{text}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
