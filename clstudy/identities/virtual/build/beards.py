"""Where beards grow, in the atlas."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from clstudy.identities.virtual.build.shapes import Shapes
from clstudy.identities.virtual.build.textures import Atlas

BEARDS = "moustache", "goatee", "full beard", "stubble"


def beard_maps(atlas: Atlas, shapes: Shapes) -> np.ndarray:
    """Density of each beard ``[4, ATLAS, ATLAS]`` in [0, 1]."""
    place = atlas.painted(shapes.mean, empty=-3.0)
    x, y = np.abs(place[..., 0]), place[..., 1]
    above_lip = (y < -0.84) & (y > -1.06 - 0.25 * x) & (x < 0.48)
    moustache = above_lip | ((x > 0.36) & (x < 0.52) & (y > -1.25) & (y < -0.95))
    chin = (y < -1.33) & (y > -1.86) & (x < 0.42)
    goatee = chin | moustache | ((x > 0.36) & (x < 0.54) & (y < -1.0) & (y > -1.6))
    cheek_line = -0.42 - 0.85 * np.clip(1.05 - x, 0, 0.6)
    jaw = (y < cheek_line) & (y > -1.9) & (x > 0.36)
    full = chin | moustache | jaw
    free = 1 - np.clip(atlas.masks.lips * 1.3, 0, 1)
    soft = [gaussian_filter(mask.astype(float), 1.5) * free for mask in (moustache, goatee, full)]
    return np.stack([*soft, 0.5 * soft[2]])
