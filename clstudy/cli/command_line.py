"""Decorators that declare commands: click's own, plus ``-h``, ``--version`` and several values after one option."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem

from clstudy.errors import UserError
from clstudy.settings.version import __version__

_CONTEXT: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 120}
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def _say_version(context: click.Context, option: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        click.echo(f"clstudy {__version__}")
        context.exit()


def _version_option() -> click.Option:
    return click.Option(
        ["--version"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_say_version,
        help="Show the version and exit.",
    )


class Several(click.Option):
    """An option followed by one or more values (``--reference a.jpg b.jpg``), which click does not support."""


class Command(click.Command):
    """A command with ``-h``, ``--version`` and ``Several``."""

    def __init__(self, name: str | None, **settings: Any):
        context = {**_CONTEXT, **settings.pop("context_settings", {})}
        super().__init__(name, context_settings=context, **settings)
        self.params.append(_version_option())

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        names = {name for option in self.params if isinstance(option, Several) for name in option.opts}
        return super().parse_args(ctx, repeated(args, names))


class Group(click.Group):
    """Commands under one name, with ``-h`` and ``--version``."""

    command_class = Command

    def __init__(self, name: str | None = None, **settings: Any):
        super().__init__(name, **{"context_settings": dict(_CONTEXT), "no_args_is_help": False, **settings})
        self.params.append(_version_option())


class FolderType(click.ParamType[str, str]):
    """A folder or its URI. Any text is accepted; shells complete folder names."""

    name = "folder"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(incomplete, type="dir")]


FOLDER = FolderType()


def repeated(arguments: Sequence[str], names: Iterable[str]) -> list[str]:
    """Repeat the option before each of its values: ``-x a b`` becomes ``-x a -x b``. What follows ``--`` stays."""
    known, spelled, current, values = set(names), list[str](), "", 0
    for place, word in enumerate(arguments):
        if word == "--":
            return [*spelled, *arguments[place:]]
        if word.startswith("-") and len(word) > 1:
            current, values = (word if word in known else ""), 0
        elif current and (values := values + 1) > 1:
            spelled.append(current)
        spelled.append(word)
    return spelled


def command(name: str | None = None, **settings: Any) -> Callable[[Callable[..., Any]], Command]:
    """A standalone command; ``help`` and ``epilog`` as in click."""
    return click.command(name, cls=Command, **settings)


def group(name: str | None = None, **settings: Any) -> Callable[[Callable[..., Any]], Group]:
    """A group of commands under one name; its decorator ``command`` adds them."""
    return click.group(name, cls=Group, **settings)


def option(*names: str, **settings: Any) -> Decorator:
    """As ``click.option``, but the help shows a value as its option's name in capitals, not as its type."""
    if not settings.get("is_flag") and not isinstance(settings.get("type"), click.Choice):
        settings.setdefault("metavar", names[0].lstrip("-").replace("-", "_").upper())
    return click.option(*names, **settings)


def flag(*names: str, **settings: Any) -> Decorator:
    """An option without a value."""
    return click.option(*names, is_flag=True, **settings)


def verbatim(text: str) -> str:
    """A help text whose lines stay as they are."""
    return "\n\n".join(f"\b\n{paragraph}" for paragraph in text.strip().split("\n\n"))


def typed_command(text: str, option: str, expected: str) -> tuple[str, ...]:
    """A command that was typed as the value of an option, as words.

    Raises:
        UserError: an open quote, or nothing; ``expected`` says what should be there.
    """
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise UserError(f"{option} is {text!r}, which is not a command: {error}") from None
    if not words:
        raise UserError(f"{option} is empty; expected {expected}")
    return words


def completing(names: Callable[[], Iterable[str]]) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """For ``shell_complete=``: completes to one of these names, which are looked up only on completion."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
        return [name for name in names() if name.startswith(incomplete)]

    return complete


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of equally many cells as lines: every column but the last as wide as its widest cell."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    return ["  ".join([*map(str.ljust, row[:-1], widths), row[-1]]) for row in rows]
