"""The blocks that make up a page's sections: paragraphs, lists, tables, figures, foldable parts.

All of them hold plain text. Only the templates write HTML (``clstudy.analysis.pages.render``), one per kind of block,
and they escape every text, so names of studies and people and error messages may contain anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Code:
    """A part of a sentence to type or copy verbatim."""

    text: str


@dataclass(frozen=True)
class Paragraph:
    """A paragraph; ``soft``: an explanation beside the numbers, in a quieter colour."""

    template: ClassVar[str] = "paragraph.html.j2"
    spans: tuple[str | Code, ...]
    soft: bool = False


@dataclass(frozen=True)
class Heading:
    """A heading within a section."""

    template: ClassVar[str] = "heading.html.j2"
    text: str


@dataclass(frozen=True)
class Bullets:
    """A list of sentences; ``soft`` as in ``Paragraph``."""

    template: ClassVar[str] = "bullets.html.j2"
    texts: tuple[str, ...]
    soft: bool = False


@dataclass(frozen=True, kw_only=True)
class TableCell:
    """A cell of a table.

    Attributes:
        small: a second line, for instance an interval; None: no second line.
        kind: its look: "better", "worse" or "long" (running text); None: ordinary.
    """

    text: str
    small: str | None = None
    kind: str | None = None


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """A row of a table; ``spans``: it has no cells, and its label is the heading of the rows below it."""

    label: str
    cells: tuple[TableCell, ...] = ()
    spans: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table in a box that scrolls by itself; the first column labels the rows.

    ``name``: what a screen reader calls the box of a table without a caption.
    """

    template: ClassVar[str] = "table.html.j2"
    caption: str
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure as it is embedded in the page.

    Attributes:
        name: stem of its files beside the page.
        alt: what it shows, for readers who cannot see it.
        source: its ``data:`` address.
        files: names of its files beside the page.
        narrowest, widest: limits of its width in CSS pixels.
    """

    template: ClassVar[str] = "picture.html.j2"
    name: str
    title: str
    caption: str
    alt: str
    source: str
    files: tuple[str, ...]
    narrowest: int
    widest: int


@dataclass(frozen=True)
class Files:
    """Links to files beside the page; names are made of letters, digits, ``.``, ``-`` and ``_``."""

    template: ClassVar[str] = "files.html.j2"
    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Face:
    """A small picture in a table of faces; ``source``: its ``data:`` address; ``said``: lines under it."""

    source: str
    alt: str
    said: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FaceRow:
    """A row of faces with its label; a row may be shorter than the table."""

    label: str
    faces: tuple[Face, ...]


@dataclass(frozen=True, kw_only=True)
class FaceMoment:
    """The rows after training on timestamp t."""

    t: int
    rows: tuple[FaceRow, ...]


@dataclass(frozen=True, kw_only=True)
class FaceTable:
    """Photos, and what models made of them after every timestamp; the page's script shows one moment at a time."""

    template: ClassVar[str] = "faces.html.j2"
    caption: str
    photos: FaceRow
    moments: tuple[FaceMoment, ...]


@dataclass(frozen=True, kw_only=True)
class Folded:
    """Blocks under a title that a click unfolds; ``opened``: they are shown from the start."""

    template: ClassVar[str] = "folded.html.j2"
    title: str
    blocks: tuple[Block, ...]
    opened: bool = False


Block = Paragraph | Heading | Bullets | Table | Picture | Files | FaceTable | Folded


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page; ``anchor`` is its id, made of letters, digits and hyphens."""

    anchor: str
    title: str
    blocks: tuple[Block, ...]


def paragraph(*spans: str | Code) -> Paragraph:
    """A paragraph of text, parts of which may be code."""
    return Paragraph(spans)


def soft_paragraph(*spans: str | Code) -> Paragraph:
    """As ``paragraph``, in a quieter colour."""
    return Paragraph(spans, soft=True)


def text_table(
    caption: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, long: bool = False, name: str = ""
) -> Table:
    """A table of strings, one sequence per row: its label, then its cells; ``long``: these are running text."""
    kind = "long" if long else None
    return Table(
        caption=caption,
        columns=tuple(columns),
        rows=tuple(
            TableRow(label=label, cells=tuple(TableCell(text=text, kind=kind) for text in texts))
            for label, *texts in rows
        ),
        name=name,
    )


def rows_section(
    anchor: str, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()
) -> Section:
    """A section of one table of strings and notes under it; the first column labels the rows.

    Use it for statistics that are computed elsewhere: pass the section to ``study_page`` as ``extra``.
    """
    table = [text_table("", columns, rows, name=f"{title}, table")] if rows else []
    return Section(anchor=anchor, title=title, blocks=(*table, *map(soft_paragraph, notes)))
