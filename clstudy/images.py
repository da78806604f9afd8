"""Pictures: the one place that opens image files; sizes and rows for a person to look at (numpy and Pillow only)."""

from __future__ import annotations

import errno
import io
import os
import stat
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, UnidentifiedImageError

from clstudy.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

PHOTO_FORMATS = ("PNG", "JPEG")
"""What a photo of a data set may be. Pillow knows some forty formats and goes by content; one of them starts
Ghostscript, whatever the file is called."""

MOST_PIXELS = 80_000_000
"""Of a picture that is decoded (240 MB as RGB); its header says how many there are."""

MOST_BYTES = 500_000_000
"""Of a picture's file."""


def read_picture_file(path: Path) -> bytes:
    """The bytes of a regular file. A pipe or device is refused and never waited for.

    Raises:
        OSError: there is none, it cannot be read, is no regular file, or holds more than ``MOST_BYTES``; ``strerror``
            says which.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # opening a pipe would wait for a writer
    with open(descriptor, "rb") as handle:
        found = os.fstat(descriptor)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is a pipe, socket or device, not a file", str(path))
        if found.st_size > MOST_BYTES:
            said = f"it has {found.st_size / 1e6:,.0f} MB, a picture may have {MOST_BYTES / 1e6:,.0f} MB"
            raise OSError(errno.EFBIG, said, str(path))
        return handle.read(MOST_BYTES + 1)


def require_heif() -> None:
    """Let Pillow know HEIF, the format of iPhone photos. It is tried only where it is asked for by name.

    Raises:
        UserError: the package for it is not installed.
    """
    try:
        import pillow_heif
    except ImportError as error:
        raise UserError(
            "reading HEIC photos needs pillow-heif, which is not installed; `pip install 'clstudy[heic]'`, convert "
            "them to JPEG, or take them out of the folder"
        ) from error
    pillow_heif.register_heif_opener()


_PLUGINS: Mapping[str, Callable[[], None]] = {"HEIF": require_heif}


@contextmanager
def opened_picture(source: bytes | Path, formats: Sequence[str] = PHOTO_FORMATS) -> Iterator[Image.Image]:
    """Open an image for the length of a block. Nothing is decoded yet, and no format but the named ones is tried.

    Args:
        source: a file's bytes, or a file.
        formats: as Pillow names them.

    Raises:
        ValueError: the picture is of no such format, has more than ``MOST_PIXELS``, or is damaged; also where the
            block finds that out.
        OSError: the file cannot be read (``read_picture_file``).
        UserError: a format needs a package that is not installed.
    """
    for name in formats:
        if name in _PLUGINS:
            _PLUGINS[name]()
    content = read_picture_file(source) if isinstance(source, Path) else source
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is below Pillow's
            opened = Image.open(io.BytesIO(content), formats=tuple(formats))
        with opened as image:
            if image.width * image.height > MOST_PIXELS:
                size, limit = f"{image.width}x{image.height} pixels", f"{MOST_PIXELS / 1e6:g} million"
                raise ValueError(f"too large ({size}; a picture may have {limit}): make it smaller")
            yield image
    except ValueError:
        raise
    except UnidentifiedImageError as error:
        known = " or ".join((", ".join(formats[:-1]), formats[-1]) if len(formats) > 1 else formats)
        raise ValueError(f"unreadable image (it is no {known} file, whatever its name says)") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"too large ({error}; a picture may have {MOST_PIXELS / 1e6:g} million)") from error
    except Exception as error:  # Pillow raises OSError, SyntaxError, struct.error, ... on damaged files
        raise ValueError(f"unreadable image ({error or type(error).__name__})") from error


def decode_png(content: bytes) -> np.ndarray:
    """Picture ``[h, w, 3]`` of a PNG file's bytes.

    Raises:
        ValueError: it is none, or damaged.
    """
    with opened_picture(content, ("PNG",)) as image:
        return np.asarray(image.convert("RGB"))


def shown_size(photos: np.ndarray, most: int = 256) -> np.ndarray:
    """Photos ``[n, s, s, 3]`` averaged down to at most ``most`` pixels a side: pictures are for looking at."""
    factor = -(-photos.shape[1] // most)
    if factor <= 1:
        return photos
    return np.stack([np.asarray(Image.fromarray(photo).reduce(factor)) for photo in photos])


def photo_row(photos: Sequence[np.ndarray]) -> np.ndarray:
    """Photos ``[s, s, 3]`` side by side, at a size for looking at."""
    return np.concatenate(list(shown_size(np.stack(photos))), axis=1)


def enlarged(image: np.ndarray, least: int = 256) -> np.ndarray:
    """Repeat the pixels of a small picture ``[h, w, 3]`` so that a person can see it on the tracking page."""
    factor = max(1, least // image.shape[0])
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def to_unit_range(photos: np.ndarray) -> Tensor:
    """uint8 RGB ``[n, h, w, 3]`` -> float32 ``[n, 3, h, w]`` in [-1, 1]."""
    import torch  # here, so that what reads pictures for a report needs no torch

    return torch.tensor(photos).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def to_uint8(images: Tensor) -> np.ndarray:
    """float ``[n, 3, h, w]`` in [-1, 1] -> uint8 RGB ``[n, h, w, 3]``."""
    scaled = images.detach().float().add(1).mul(127.5).round().clamp(0, 255)
    return scaled.byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()


def encode_png(pixels: np.ndarray) -> bytes:
    """Return an image as PNG.

    Args:
        pixels: uint8 [h, w] (grey) or [h, w, 3] (RGB).

    Raises:
        ValueError: another type or shape.
    """
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise ValueError(f"expected uint8 pixels [h, w] or [h, w, 3], got {pixels.dtype} {list(pixels.shape)}")
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="PNG")
    return buffer.getvalue()
