"""FID and KID from features: distances between two sets of images, as pure functions of arrays.

Fréchet distance of Gaussians fitted to the features (M. Heusel et al., "GANs Trained by a Two Time-Scale Update Rule
Converge to a Local Nash Equilibrium", 1706.08500, equation 6) and kernel distance (M. Bińkowski et al., "Demystifying
MMD GANs", 1801.01401, section 4). Both equal clean-fid's on the same features where its definition involves neither
chance nor rounding; elsewhere the docstrings state the difference.

**Small samples.** The protocol compares 20 generated images with 10 photos in 2048 dimensions. FID is then biased
upward, by an amount that depends on both counts: it only compares cells of equal counts (neither studies with other
counts nor published figures). KID is unbiased at any count, but noisy, and may come out negative.
"""

from __future__ import annotations

import numpy as np
from scipy import linalg


def frechet_distance(
    mean_a: np.ndarray, covariance_a: np.ndarray, mean_b: np.ndarray, covariance_b: np.ndarray, *, eps: float = 1e-6
) -> float:
    """Squared Fréchet distance between Gaussians: |ma - mb|² + tr(Ca + Cb - 2 (Ca Cb)^½), means ``[d]``.

    As clean-fid and pytorch-fid compute it from statistics: where the product has no finite root, ``eps`` is added to
    both diagonals; a small imaginary part is dropped. From features, ``fid`` is exact and cheaper.

    Raises:
        ValueError: shapes that do not fit, or an imaginary part that is not small.
    """
    shapes = mean_a.shape, mean_b.shape, covariance_a.shape, covariance_b.shape
    size = mean_a.shape[0] if mean_a.ndim == 1 else 0
    if shapes != ((size,), (size,), (size, size), (size, size)):
        raise ValueError(f"expected two means [d] and two covariances [d, d], got {[list(shape) for shape in shapes]}")
    root = linalg.sqrtm(covariance_a @ covariance_b)
    if not np.isfinite(root).all():
        offset = eps * np.eye(size)
        root = linalg.sqrtm((covariance_a + offset) @ (covariance_b + offset))
    if np.iscomplexobj(root):
        if not np.allclose(np.diagonal(root).imag, 0, atol=1e-3):
            raise ValueError(
                f"the root of the covariances' product is not real: imaginary part {abs(root.imag).max():g}"
            )
        root = root.real
    difference = mean_a - mean_b
    return float(difference @ difference + np.trace(covariance_a) + np.trace(covariance_b) - 2 * np.trace(root))


def fid(features_a: np.ndarray, features_b: np.ndarray) -> float:
    """Fréchet distance between the Gaussians of features ``[n, d]`` and ``[m, d]``; 0 for equal sets, lower is closer.

    Biased upward for small sets (module docstring). Covariances divide by n - 1, as clean-fid's do. With centred
    features A/√(n-1), B/√(m-1), the eigenvalues of Ca Cb are those of (A Bᵀ)(A Bᵀ)ᵀ, so the trace of the root is the
    sum of the singular values of the n x m matrix A Bᵀ: exact for covariances without full rank (n <= d), which a
    matrix root is not, and much cheaper.

    Raises:
        ValueError: fewer than 2 rows, or different numbers of features.
    """
    _check(features_a, features_b)
    a, b = _scaled(features_a), _scaled(features_b)
    difference = features_a.mean(axis=0, dtype=np.float64) - features_b.mean(axis=0, dtype=np.float64)
    cross = linalg.svdvals(_at_most_square(a) @ _at_most_square(b).T).sum()
    squared = difference @ difference + np.square(a).sum() + np.square(b).sum() - 2 * cross
    return max(float(squared), 0.0)  # rounding alone takes it below


def kid(features_a: np.ndarray, features_b: np.ndarray) -> float:
    """Unbiased squared MMD with the kernel (x·y / d + 1)³ between features ``[n, d]`` and ``[m, d]``.

    About 0 for sets of one distribution (and then often negative), lower is closer. All pairs are used; clean-fid
    averages over random subsets of the size of the smaller set (at most 1000), whose expectation this is.

    Raises:
        ValueError: fewer than 2 rows, or different numbers of features.
    """
    _check(features_a, features_b)
    return float(_other_pairs(features_a) + _other_pairs(features_b) - 2 * _kernel(features_a, features_b).mean())


def _kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    values: np.ndarray = (a.astype(np.float64) @ b.astype(np.float64).T / a.shape[1] + 1) ** 3
    return values


def _other_pairs(features: np.ndarray) -> float:
    """Mean kernel value over pairs of different rows."""
    values = _kernel(features, features)
    count = len(features)
    return float((values.sum() - np.trace(values)) / (count * (count - 1)))


def _scaled(features: np.ndarray) -> np.ndarray:
    """Rows whose product with themselves (AᵀA) is the covariance."""
    centred = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    scaled: np.ndarray = centred / np.sqrt(len(features) - 1)
    return scaled


def _at_most_square(rows: np.ndarray) -> np.ndarray:
    """A matrix of at most d rows with the same AᵀA: the triangle of a QR decomposition where there are more rows."""
    return linalg.qr(rows, mode="r")[0][: rows.shape[1]] if rows.shape[0] > rows.shape[1] else rows


def _check(a: np.ndarray, b: np.ndarray) -> None:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(
            f"expected features [n, d] and [m, d] of at least 2 images each, got {list(a.shape)} and {list(b.shape)}"
        )
