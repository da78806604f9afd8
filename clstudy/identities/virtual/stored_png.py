"""PNG files whose bytes depend on their pixels alone.

What a compressor writes depends on its version (zlib and zlib-ng differ), so nothing is compressed here: the pixels are
in "stored" blocks, and both checksums are defined by the standards (RFC 1950, RFC 1951, ISO/IEC 15948).
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_LARGEST_BLOCK = 65535


def stored_png(pixels: np.ndarray) -> bytes:
    """A PNG of uint8 RGB pixels ``[h, w, 3]``.

    Raises:
        ValueError: another type or shape.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"expected uint8 pixels [h, w, 3], got {pixels.dtype} {list(pixels.shape)}")
    height, width = pixels.shape[:2]
    # each row begins with the number of its filter: none
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, width * 3)], axis=1).tobytes()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", _stored(rows)) + _chunk(b"IEND", b"")


def _stored(data: bytes) -> bytes:
    starts = range(0, len(data), _LARGEST_BLOCK)
    blocks = [data[start : start + _LARGEST_BLOCK] for start in starts]
    framed = [
        struct.pack("<BHH", number == len(blocks) - 1, len(block), len(block) ^ 0xFFFF) + block
        for number, block in enumerate(blocks)
    ]
    return b"\x78\x01" + b"".join(framed) + struct.pack(">I", zlib.adler32(data))


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
