"""Contact sheets: one PNG with the photos kept for training and for testing, and those dropped, with reasons."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

TILE = 96
"""Side of a picture on the sheet, in pixels."""

_COLUMNS = 12
_LINE = 13
_GAP = 6
_INK = (20, 20, 20)
_PAPER = (255, 255, 255)


@dataclass(frozen=True, kw_only=True)
class Strip:
    """A titled run of pictures: uint8 RGB of any size, each with a caption of a few lines."""

    title: str
    tiles: Sequence[tuple[np.ndarray, Sequence[str]]]


def contact_sheet(title: str, strips: Sequence[Strip]) -> bytes:
    """Return the PNG bytes of a sheet; the same pictures give the same bytes.

    Args:
        title: first line.
        strips: drawn below each other; empty ones show their title only.
    """
    width = _COLUMNS * (TILE + _GAP) + _GAP
    heights = [_strip_height(strip) for strip in strips]
    sheet = Image.new("RGB", (width, 2 * _LINE + sum(heights) + _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, 3), title, fill=_INK, font=ImageFont.load_default(13))
    top = 2 * _LINE
    for strip, height in zip(strips, heights, strict=True):
        _draw_strip(sheet, draw, strip, top)
        top += height
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def _row_height(strip: Strip) -> int:
    lines = max((len(caption) for _, caption in strip.tiles), default=0)
    return TILE + lines * _LINE + _GAP


def _strip_height(strip: Strip) -> int:
    rows = -(-len(strip.tiles) // _COLUMNS)
    return 2 * _LINE + rows * _row_height(strip)


def _draw_strip(sheet: Image.Image, draw: ImageDraw.ImageDraw, strip: Strip, top: int) -> None:
    draw.text((_GAP, top + 5), strip.title, fill=_INK, font=ImageFont.load_default(12))
    small = ImageFont.load_default(10)
    for number, (pixels, caption) in enumerate(strip.tiles):
        row, column = divmod(number, _COLUMNS)
        x, y = _GAP + column * (TILE + _GAP), top + 2 * _LINE + row * _row_height(strip)
        sheet.paste(Image.fromarray(pixels).resize((TILE, TILE), Image.Resampling.BICUBIC), (x, y))
        for line, text in enumerate(caption):
            draw.text((x, y + TILE + line * _LINE), text, fill=_INK, font=small)
