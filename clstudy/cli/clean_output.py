"""Terminal output: streams and a rich console that show text from files without obeying its control characters.

Output is cleaned here once instead of at every ``print``: control characters are spelled out and secrets hidden in
everything that is written (``clstudy.safe_text``), including log records, warnings and tracebacks.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from clstudy.safe_text import printable, redacted

_LABEL = re.compile(r"\[(bold|red|yellow|green|dim)\]([^\[\]]*)\[/\1\]")


class CleanStream:
    """A text stream that makes text printable, hides secrets in it, and passes it to the wrapped stream."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        self.rich_proxied_file = stream
        """The stream for rich consoles, which write their own escape sequences (``CleanConsole`` cleans the text)."""

    def write(self, text: str) -> int:
        """Write; returns the length of the given text, as the wrapped stream would."""
        self._stream.write(printable(redacted(text)))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several lines."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def clean_streams() -> Iterator[None]:
    """Standard output and error are clean for as long as the block runs."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (_cleaned(stream) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _cleaned(stream: Any) -> Any:
    return stream if stream is None or isinstance(stream, CleanStream) else CleanStream(stream)


class CleanConsole(Console):
    """A rich console for text that may come from files.

    Only a leading label of a string is styled (``[bold]plan[/bold] …``; bold, red, yellow, green or dim); brackets
    after it are shown as they are. Pass a ``rich.text.Text`` for more style.
    """

    def __init__(self, **options: Any):
        self._given: IO[str] | None = options.get("file")  # first, because rich's constructor uses it
        super().__init__(**options)

    @property
    def file(self) -> IO[str]:
        """The stream to write to: bypasses ``CleanStream``, even when a live display has replaced standard output."""
        stream: Any = self._given or (sys.stderr if self.stderr else sys.stdout)
        while (inner := getattr(stream, "rich_proxied_file", None)) is not None:
            stream = inner
        place: IO[str] = stream
        return place

    @file.setter
    def file(self, stream: IO[str]) -> None:
        self._given = stream

    def render_str(self, text: str, **options: Any) -> Text:
        text = printable(redacted(text))
        label = _LABEL.match(text)
        style = options.pop("style", "")
        if label is None or options.get("markup") is False:
            return super().render_str(text, **{**options, "markup": False, "style": style})
        rest = super().render_str(text[label.end() :], **{**options, "markup": False, "style": style})
        return Text.assemble(Text(label[2], style=label[1]), rest)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        if isinstance(renderable, Text):
            renderable = _clean_text(renderable)
        for segment in super().render(renderable, options):
            if segment.control or segment.text == "\n":
                yield segment
            else:
                yield Segment(printable(segment.text), segment.style)


def _clean_text(text: Text) -> Text:
    clean = printable(redacted(text.plain))
    if clean == text.plain:
        return text
    whole = Text(clean, style=text.style, justify=text.justify, overflow=text.overflow, no_wrap=text.no_wrap)
    whole.end = text.end
    return whole  # without the spans, whose positions no longer match
