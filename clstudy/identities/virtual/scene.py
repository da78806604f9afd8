"""A person at a moment as one mesh: head, eyes, teeth, hair, hat, glasses."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from clstudy.identities.virtual.assets import ATLAS_SIDE, POSITION_STEPS, virtual_assets
from clstudy.identities.virtual.exact import cosine_and_sine, turned
from clstudy.identities.virtual.head import Neighbours, head_shape, with_expression
from clstudy.identities.virtual.moment import Moment
from clstudy.identities.virtual.person import Person
from clstudy.identities.virtual.worn import glasses_points, grid, hair_and_hat

SKIN, EYE, TEETH, HAIR, HAIR_INSIDE, HAT, HAT_INSIDE, FRAME = 1, 2, 3, 4, 5, 6, 7, 8
"""What a triangle belongs to; the first three are the numbers in the packaged file."""

_NECK_AXIS = -1.3


@dataclass(frozen=True)
class Scene:
    """The mesh.

    Attributes:
        vertices: ``[n, 3]`` in eye distances from between the eyes, head upright.
        normals: ``[n, 3]``.
        attributes: ``[n, 6]``. Of the head: column and row in the atlas in texels, openness, inside of the mouth,
            lashes, 0. Of hair and hat: column and row in the grid, thickness, 0, 0, 0.
        triangles: ``[t, 3]``.
        parts: what each triangle belongs to, ``[t]``.
        landmarks: ``[68, 3]``.
        eyes: centres of the eyeballs ``[2, 3]``, that with the smaller x first.
    """

    vertices: np.ndarray
    normals: np.ndarray
    attributes: np.ndarray
    triangles: np.ndarray
    parts: np.ndarray
    landmarks: np.ndarray
    eyes: np.ndarray


@dataclass(frozen=True)
class _HeadMesh:
    neighbours: Neighbours
    parts: np.ndarray
    attributes: np.ndarray
    turning: np.ndarray
    eyes: tuple[np.ndarray, np.ndarray]


@cache
def _head_mesh() -> _HeadMesh:
    assets = virtual_assets()
    triangles = assets["head.triangles"].astype(np.int64)
    count = len(assets["head.mean"])
    attributes = np.zeros((count, 6))
    attributes[:, :2] = assets["head.atlas"] / 65535.0 * ATLAS_SIDE - 0.5
    for column, name in ((2, "openness"), (3, "cavity"), (4, "lashes")):
        attributes[:, column] = assets[f"head.{name}"] / 255.0
    of_eyes = np.unique(triangles[assets["head.parts"] == EYE])
    right = assets["head.mean"][of_eyes, 0] < 0
    return _HeadMesh(
        Neighbours.of(triangles, count),
        assets["head.parts"].astype(np.int64),
        attributes,
        assets["head.turning"] / 255.0,
        (of_eyes[right], of_eyes[~right]),
    )


@dataclass(frozen=True)
class Resting:
    """A resting head at an age: integer shape, and its vertices in eye distances."""

    shape: np.ndarray
    vertices: np.ndarray

    @classmethod
    def of(cls, person: Person, age: float) -> Resting:
        """The head of a person without an expression."""
        shape = head_shape(person, age)
        return cls(shape, shape / float(1 << 24))


def scene_of(person: Person, resting: Resting, moment: Moment, age: float) -> Scene:
    """Everything that the camera may see of a person at a moment."""
    mesh, cells = _head_mesh(), grid()
    vertices = with_expression(resting.shape, moment.expression)
    vertices = _shoulders_turned(vertices, mesh.turning, moment)
    hair, hat = hair_and_hat(person, resting.vertices, age, moment.hat)
    points, normals, attributes = [vertices], [mesh.neighbours.normals(vertices)], [mesh.attributes]
    triangles, parts = [mesh.neighbours.triangles], [mesh.parts]
    start = len(vertices)
    for cover, outside, inside in ((hair, HAIR, HAIR_INSIDE), (hat, HAT, HAT_INSIDE)):
        if cover is None:
            continue
        extra = np.zeros((len(cover.points), 6))
        extra[:, 0], extra[:, 1], extra[:, 2] = cells.columns, cells.rows, cover.thickness
        points.append(cover.points)
        normals.append(cells.outside.normals(cover.points))
        attributes.append(extra)
        triangles += [cells.outside.triangles + start, cells.inside + start]
        parts += [np.full(len(cells.outside.triangles), outside), np.full(len(cells.inside), inside)]
        start += len(cover.points)
    if person.wears_glasses if moment.glasses is None else moment.glasses:
        pair = glasses_points(person, resting.vertices)
        points.append(pair)
        normals.append(np.zeros_like(pair) + np.array([0.0, 0.0, 1.0]))
        attributes.append(np.zeros((len(pair), 6)))
        triangles.append(virtual_assets()["glasses.triangles"].astype(np.int64) + start)
        parts.append(np.full(len(triangles[-1]), FRAME))
    return Scene(
        vertices=np.concatenate(points),
        normals=np.concatenate(normals),
        attributes=np.concatenate(attributes),
        triangles=np.concatenate(triangles),
        parts=np.concatenate(parts),
        landmarks=vertices[virtual_assets()["head.landmarks"].astype(np.int64)],
        eyes=np.stack([_middle(vertices[each]) for each in mesh.eyes]),
    )


def _middle(points: np.ndarray) -> np.ndarray:
    """Centre of the box around points ``[n, 3]``."""
    return np.asarray((points.min(axis=0) + points.max(axis=0)) / 2)


def _shoulders_turned(vertices: np.ndarray, turning: np.ndarray, moment: Moment) -> np.ndarray:
    """Vertices whose shoulders have stayed behind the head's turn."""
    cosine, sine = cosine_and_sine(-moment.pose.yaw * moment.pose.shoulders)
    back = np.array([[cosine, 0.0, sine], [0.0, 1.0, 0.0], [-sine, 0.0, cosine]])
    axis = np.array([0.0, 0.0, _NECK_AXIS])
    stayed = turned(back, vertices - axis) + axis
    return np.asarray(stayed + (vertices - stayed) * turning[:, None])


def mean_points(indices: np.ndarray) -> np.ndarray:
    """The same vertices of the mean head, ``[..., 3]`` in eye distances."""
    return np.asarray(virtual_assets()["head.mean"][indices] / float(POSITION_STEPS))
