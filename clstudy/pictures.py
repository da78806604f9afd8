"""Pictures a person looks at: reading PNGs, small and large sizes, rows (numpy and Pillow only)."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image


def decode_png(content: bytes) -> np.ndarray:
    """Picture ``[h, w, 3]`` of a PNG file's bytes."""
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


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
