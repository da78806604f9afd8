"""The section of the HTML report with the figures, which are embedded in the page."""

from __future__ import annotations

import base64
import io

from PIL import Image

from clstudy.analysis.figures import Drawing, Gallery
from clstudy.analysis.pages.blocks import Block, Bullets, Files, Folded, Heading, Picture, Section
from clstudy.images import opened_picture

WEBP = "image/webp"
_SVG_UP_TO = 600_000
"""Largest size in bytes of a drawing that is embedded as SVG; larger ones are embedded as WebP."""
MOST_FOLDED = 400_000
"""Bytes of the figures that a page embeds folded away, all together."""
_NARROWEST = 0.62
"""Below this share of its natural width a figure scrolls instead of shrinking, so that its text stays readable."""
_LARGER = 1.3
"""Largest factor by which a figure grows on a wide screen."""


def glance_section(gallery: Gallery) -> list[Section]:
    """The figures that a reader should see first, if there are any."""
    blocks = tuple(picture(drawing) for drawing in gallery.drawings if drawing.first)
    return [Section(anchor="glance", title="At a glance", blocks=blocks)] if blocks else []


def figure_section(gallery: Gallery) -> Section:
    """All other figures with captions, then what could not be drawn and why.

    Of figures that are folded away as many are embedded as there is room for; the files of the others are linked.
    """
    blocks: list[Block] = []
    no_room: list[str] = []
    room = MOST_FOLDED
    for drawing in gallery.drawings:
        if drawing.first:
            continue
        if not drawing.folded:
            blocks.append(picture(drawing))
            continue
        shown = picture(drawing)
        room -= len(shown.source)
        if room >= 0:
            blocks.append(Folded(title=drawing.title, blocks=(shown,)))
        else:
            no_room += shown.files
    if no_room:
        blocks.append(Folded(title="Figures without room on this page, as files", blocks=(Files(tuple(no_room)),)))
    if gallery.skipped:
        blocks += [Heading("Not drawn"), Bullets(tuple(f"{s.title}: {s.reason}" for s in gallery.skipped))]
    return Section(anchor="figures", title="Figures", blocks=tuple(blocks))


def picture(drawing: Drawing) -> Picture:
    """A drawing as a block of a page."""
    kind, content, width = embedded(drawing)
    return Picture(
        name=drawing.name,
        title=drawing.title,
        caption=drawing.caption,
        alt=drawing.alt,
        source=data_address(kind, content),
        files=tuple(f"{drawing.name}.{kind}" for kind in sorted(drawing.files, reverse=True)),
        narrowest=min(width, round(width * _NARROWEST)),
        widest=round(width * _LARGER),
    )


def embedded(drawing: Drawing) -> tuple[str, bytes, int]:
    """A drawing as it is embedded in the page: media type, bytes, natural width in CSS pixels.

    Lines and text stay SVG; photos, and drawings with very many elements, become WebP; what moves stays GIF.
    """
    with opened_picture(drawing.files["png"], ("PNG",)) as image:
        width = round(image.width * 96 / drawing.dpi)
        if drawing.moving:
            return "image/gif", drawing.files["gif"], width
        if not drawing.photographic and len(drawing.files["svg"]) <= _SVG_UP_TO:
            return "image/svg+xml", drawing.files["svg"], width
        return WEBP, webp(image.convert("RGB"), quality=86), width


def webp(image: Image.Image, *, quality: int) -> bytes:
    """A picture as WebP."""
    sink = io.BytesIO()
    image.save(sink, "WEBP", quality=quality, method=4)
    return sink.getvalue()


def data_address(kind: str, content: bytes) -> str:
    """The ``data:`` address of a picture of this media type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
