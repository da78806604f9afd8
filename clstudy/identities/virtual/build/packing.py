"""Everything the renderer reads, as integer arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clstudy.identities.virtual.build import beards, covers, glasses, textures
from clstudy.identities.virtual.build.ageing import WRINKLES, openness, wrinkle_maps
from clstudy.identities.virtual.build.fitting import fit_head
from clstudy.identities.virtual.build.makehuman import MakeHuman
from clstudy.identities.virtual.build.portraits import Portraits
from clstudy.identities.virtual.build.shapes import EXPRESSION_UNITS, Shapes, head_shapes
from clstudy.identities.virtual.rasteriser import rasterise

POSITION, SHAPE, EXPRESSION = 1 << 12, 1 << 16, 1 << 15
"""Steps per eye distance of positions, of shape and ageing, and of expressions."""

_SKIN, _TEETH = 1, 3
_TEETH_DOWN = np.array([0.0, 0.07, 0.02])
"""The upper teeth are moved down and back: MakeHuman's hide behind the lips of an open mouth."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which portraits become people.

    Attributes:
        most: people to keep.
        worst_fit: pixels (rms) between the fitted head's landmarks and the portrait's.
        least_seen: share of the face that shows skin.
        clean: share of the others that is kept, those with the fewest flaws (``textures.Skin``).
    """

    most: int = 216
    worst_fit: float = 1.12
    least_seen: float = 0.70
    clean: float = 0.72


def packed(data: Path, portraits: Portraits, choice: Choice, seed: int) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays by name, and the names of their rows."""
    head = MakeHuman(data)
    shapes = head_shapes(head, seed)
    skin = head.triangles[head.parts == _SKIN]
    atlas = textures.Atlas(shapes, skin)
    arrays = {
        **_head(head, shapes, skin),
        **_atlas(atlas, shapes, seed),
        **_people(portraits, choice, shapes, skin, atlas),
        **_worn(head),
    }
    names = {
        "expressions": ",".join(EXPRESSION_UNITS),
        "wrinkles": ",".join(WRINKLES),
        "beards": ",".join(beards.BEARDS),
        "hair": ",".join(covers.HAIR),
        "hats": ",".join(covers.HATS),
        "glasses": ",".join(glasses.SHAPES),
    }
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}, names


def _head(head: MakeHuman, shapes: Shapes, skin: np.ndarray) -> dict[str, np.ndarray]:
    mean = shapes.mean
    is_skin = head.vertices_of(_SKIN)
    lashes = _outline_distance(mean, [shapes.landmarks[36:42], shapes.landmarks[42:48]])
    head_share = np.clip((mean[:, 1] + 2.9) / 1.2, 0, 1)
    normals = vertex_normals(mean, skin)
    return {
        "head.mean": _integers(mean - head.vertices_of(_TEETH)[:, None] * _TEETH_DOWN, POSITION, np.int16),
        "head.components": _integers(shapes.components, SHAPE, np.int16),
        "head.expressions": _integers(shapes.expressions, EXPRESSION, np.int16),
        "head.ageing": _integers(shapes.ageing, SHAPE, np.int16),
        "head.triangles": head.triangles.astype(np.int16),
        "head.parts": head.parts.astype(np.uint8),
        "head.landmarks": shapes.landmarks.astype(np.int16),
        "head.atlas": _integers(textures.atlas_coordinates(mean), 65535, np.uint16),
        "head.openness": _integers(openness(mean, normals, skin), 255, np.uint8),
        "head.cavity": _integers(_cavity(mean, head.triangles, is_skin), 255, np.uint8),
        "head.lashes": _integers(np.clip(1.3 - lashes / 0.05, 0, 1) * is_skin, 255, np.uint8),
        "head.turning": _integers(head_share**2 * (3 - 2 * head_share), 255, np.uint8),
    }


def _outline_distance(mean: np.ndarray, outlines: list[np.ndarray]) -> np.ndarray:
    """Distance of every vertex from the eyes' outlines, polygons of landmarks."""
    steps = np.linspace(0, 1, 6, endpoint=False)[:, None]
    points = [
        mean[a] * (1 - steps) + mean[b] * steps
        for ring in outlines
        for a, b in zip(ring, np.roll(ring, -1), strict=True)
    ]
    along = np.concatenate(points)
    return np.asarray(np.sqrt(((mean[:, None] - along) ** 2).sum(-1)).min(1))


def _cavity(mean: np.ndarray, triangles: np.ndarray, is_skin: np.ndarray) -> np.ndarray:
    """Skin vertices behind the closed lips."""
    side = 384
    points = np.stack([(mean[:, 0] / 4 + 0.5) * side, (0.5 - (mean[:, 1] + 0.6) / 4) * side], 1)
    fragments = rasterise(points, 10 - mean[:, 2], triangles, side)
    depth = np.full(side * side, np.inf)
    depth[fragments.pixels] = fragments.depths
    column, row = np.clip(points.astype(int), 0, side - 1).T
    hidden = 10 - mean[:, 2] > depth[row * side + column] + 0.06
    x, y, z = mean.T
    return np.asarray(is_skin & hidden & (np.abs(x) < 0.55) & (y < -0.6) & (y > -1.7) & (z > -2.6), float)


def _atlas(atlas: textures.Atlas, shapes: Shapes, seed: int) -> dict[str, np.ndarray]:
    return {
        "atlas.brows": _integers(atlas.masks.brows, 255, np.uint8),
        "atlas.lips": _integers(atlas.masks.lips, 255, np.uint8),
        "atlas.wrinkles": _integers(wrinkle_maps(atlas, seed), 255, np.uint8),
        "atlas.beards": _integers(beards.beard_maps(atlas, shapes), 255, np.uint8),
    }


def _people(
    portraits: Portraits, choice: Choice, shapes: Shapes, skin: np.ndarray, atlas: textures.Atlas
) -> dict[str, np.ndarray]:
    """The usable and cleanest portraits' people; of too many, those that are least like the others on average."""
    rows: dict[str, list[np.ndarray]] = {"shape": [], "brightness": [], "differences": [], "tone": []}
    usable, flaws = [], []
    for number, (photo, landmarks) in enumerate(zip(portraits.photos, portraits.landmarks, strict=True)):
        fit = fit_head(shapes, landmarks)
        texture = textures.skin_texture(atlas, fit, photo, vertex_normals(fit.facing, skin))
        if fit.rms > choice.worst_fit or texture.seen < choice.least_seen:
            continue
        usable.append(number)
        flaws.append(texture.flaws)
        brightness, differences = textures.stored(texture.colours)
        rows["shape"].append(_integers(fit.shape, 32, np.int8))
        rows["brightness"].append(brightness)
        rows["differences"].append(differences)
        rows["tone"].append(_integers(np.sqrt(texture.tone), 255, np.uint8))
    clean = np.flatnonzero(np.array(flaws) <= np.quantile(flaws, choice.clean))
    chosen = clean[least_alike(portraits.embeddings[np.array(usable)[clean]], choice.most)]
    return {f"people.{name}": np.stack(values)[chosen] for name, values in rows.items()}


def least_alike(embeddings: np.ndarray, most: int) -> np.ndarray:
    """Sorted indices of the rows that are left when the one most like the others goes, again and again."""
    left = np.arange(len(embeddings))
    cosines = embeddings @ embeddings.T
    while len(left) > most:
        left = np.delete(left, cosines[np.ix_(left, left)].sum(1).argmax())
    return left


def _worn(head: MakeHuman) -> dict[str, np.ndarray]:
    skull = covers.grid_on(head, np.flatnonzero(head.vertices_of(_SKIN)))
    hidden, _ = covers.placed(skull, covers.HAIR["bald"](skull))
    arrays = {
        "grid.bound": skull.bound.astype(np.int16),
        "grid.hidden": _integers(hidden, POSITION, np.int16),
    }
    for name, registry in (("hair", covers.HAIR), ("hats", covers.HATS)):
        made = [covers.placed(skull, style(skull)) for _, style in registry.items()]
        arrays[f"{name}.points"] = _integers(np.stack([points for points, _ in made]), POSITION, np.int16)
        arrays[f"{name}.thickness"] = _integers(np.stack([thick for _, thick in made]).clip(-1, 0.99), 128, np.int8)
    pairs = [glasses.glasses(*shape) for shape in glasses.SHAPES.values()]
    arrays["glasses.points"] = _integers(np.stack([pair.points for pair in pairs]), POSITION, np.int16)
    arrays["glasses.triangles"] = pairs[0].triangles.astype(np.int16)
    return arrays


def vertex_normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Unit normals ``[n, 3]``."""
    corners = vertices[triangles]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    total = np.zeros_like(vertices)
    for k in range(3):
        np.add.at(total, triangles[:, k], across)
    return np.asarray(total / (np.linalg.norm(total, axis=1, keepdims=True) + 1e-12))


def _integers(values: np.ndarray, steps: int, kind: type[np.integer]) -> np.ndarray:
    """``values * steps``, rounded.

    Raises:
        ValueError: they do not fit.
    """
    scaled = np.rint(np.asarray(values, float) * steps)
    limits = np.iinfo(kind)
    if scaled.min() < limits.min or scaled.max() > limits.max:
        raise ValueError(f"values from {scaled.min()} to {scaled.max()} do not fit {kind.__name__}")
    return np.asarray(scaled.astype(kind))
