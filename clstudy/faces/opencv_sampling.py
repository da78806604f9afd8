"""Bilinear resampling of 8-bit images with OpenCV's rounding, in numpy: the networks were trained on its output.

Equal to OpenCV 5.0 on x86 to the last bit (tests, where it is installed). OpenCV 4's ``warpAffine`` rounds positions to
1/32 of a pixel first: by that rule, rebuilt in numpy, up to a fifth of a noisy picture's values differ, by 4 of 255 at
most.
"""

from __future__ import annotations

import numpy as np

_COEFFICIENT_BITS = 11


def resize_bilinear(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """``cv2.resize(image, (width, height))`` of uint8 ``[h, w, 3]``: fixed point, no antialiasing."""
    left, right, first, second = _taps(width, image.shape[1], clamp_weights=True)
    pixels = image.astype(np.int32)
    rows = (pixels[:, left] * first[:, None] + pixels[:, right] * second[:, None]) >> 4
    above, below, first, second = _taps(height, image.shape[0], clamp_weights=False)
    total = ((rows[above] * first[:, None, None]) >> 16) + ((rows[below] * second[:, None, None]) >> 16)
    resized: np.ndarray = ((total + 2) >> 2).clip(0, 255).astype(np.uint8)
    return resized


def _taps(wanted: int, given: int, *, clamp_weights: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Indices of the two pixels that each output pixel mixes, and their integer weights (2048 stands for 1).

    Beyond the border OpenCV repeats the last pixel; along rows its weight becomes one, along columns both weights stay
    and are rounded separately.
    """
    positions = ((np.arange(wanted) + 0.5) * (given / wanted) - 0.5).astype(np.float32)
    index = np.floor(positions).astype(int)
    share = positions - index.astype(np.float32)
    if clamp_weights:
        share[(index < 0) | (index >= given - 1)] = 0
    one = 1 << _COEFFICIENT_BITS
    weights = np.rint((np.float32(1) - share) * one).astype(np.int32), np.rint(share * one).astype(np.int32)
    return index.clip(0, given - 1), (index + 1).clip(0, given - 1), *weights


def warp_bilinear(image: np.ndarray, inverse: np.ndarray, size: int) -> np.ndarray:
    """``cv2.warpAffine`` of uint8 ``[h, w, 3]`` into a square: black beyond the image.

    Args:
        inverse: ``[2, 3]``, from the output's pixels to the image's.
    """
    (a, b, x0), (c, d, y0) = inverse.astype(np.float32)
    x, y = np.meshgrid(*[np.arange(size, dtype=np.float32)] * 2)
    columns, rows = _fused(x, a, y * b + x0), _fused(x, c, y * d + y0)
    left, top = np.floor(columns).astype(int), np.floor(rows).astype(int)
    across = (columns - left.astype(np.float32))[..., None]
    down = (rows - top.astype(np.float32))[..., None]

    def pixels(y: np.ndarray, x: np.ndarray) -> np.ndarray:
        inside = (y >= 0) & (y < image.shape[0]) & (x >= 0) & (x < image.shape[1])
        found = image[y.clip(0, image.shape[0] - 1), x.clip(0, image.shape[1] - 1)]
        return np.where(inside[..., None], found, 0).astype(np.float32)

    upper, lower = pixels(top, left), pixels(top + 1, left)
    upper = _fused(across, pixels(top, left + 1) - upper, upper)
    lower = _fused(across, pixels(top + 1, left + 1) - lower, lower)
    warped: np.ndarray = np.rint(_fused(down, lower - upper, upper)).clip(0, 255).astype(np.uint8)
    return warped


def _fused(a: np.ndarray, b: np.ndarray | np.floating, c: np.ndarray) -> np.ndarray:
    """a * b + c of float32, rounded once, like the processor's fused multiply-add."""
    rounded: np.ndarray = (a.astype(np.float64) * b + c).astype(np.float32)
    return rounded
