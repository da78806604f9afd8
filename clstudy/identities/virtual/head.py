"""The head of a person at an age and with an expression: integer sums of packaged displacements."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clstudy.identities.virtual.assets import EXPRESSION_STEPS, POSITION_STEPS, SHAPE_STEPS, virtual_assets
from clstudy.identities.virtual.exact import cross, share, unit
from clstudy.identities.virtual.moment import Expression
from clstudy.identities.virtual.person import Person

_STEPS = 1 << 24
"""Integer steps per eye distance in which displacements are added."""

_MATURE, _AGED = 25.0, 80.0


def years_of_ageing(age: float) -> float:
    """0 at 25 years, 1 at 80; slightly negative before."""
    return (age - _MATURE) / (_AGED - _MATURE)


def head_shape(person: Person, age: float) -> np.ndarray:
    """Vertices int64 ``[n, 3]`` of the resting face in 2^-24 eye distances."""
    assets = virtual_assets()
    total = assets["head.mean"].astype(np.int64) * (_STEPS // POSITION_STEPS)
    for coefficient, component in zip(person.shape, assets["head.components"], strict=True):
        total += component.astype(np.int64) * coefficient
    ageing = round(years_of_ageing(age) * (_STEPS // SHAPE_STEPS))
    return np.asarray(total + assets["head.ageing"].astype(np.int64) * ageing)


def with_expression(shape: np.ndarray, expression: Expression) -> np.ndarray:
    """Vertices float64 ``[n, 3]`` in eye distances."""
    assets = virtual_assets()
    total = shape
    weights = expression.weights()
    for name, moved in zip(assets.rows["expressions"], assets["head.expressions"], strict=True):
        steps = round(weights[name] * (_STEPS // EXPRESSION_STEPS))
        if steps:
            total = total + moved.astype(np.int64) * steps
    return np.asarray(total / _STEPS)


@dataclass(frozen=True)
class Neighbours:
    """The triangles around each vertex: ``table`` int ``[n, k]``, padded with the number of triangles."""

    triangles: np.ndarray
    table: np.ndarray

    @classmethod
    def of(cls, triangles: np.ndarray, vertices: int) -> Neighbours:
        """For triangles ``[t, 3]`` of a mesh with so many vertices."""
        corners = triangles.ravel()
        order = np.argsort(corners, kind="stable")
        counts = np.bincount(corners, minlength=vertices)
        start = np.cumsum(counts) - counts
        place = np.arange(len(corners)) - np.repeat(start, counts)
        table = np.full((vertices, max(int(counts.max()), 1)), len(triangles))
        table[corners[order], place] = order // 3
        return cls(triangles, table)

    def normals(self, vertices: np.ndarray) -> np.ndarray:
        """Unit normals ``[n, 3]``; the triangles' own are added in their order."""
        first, second, third = (vertices[self.triangles[:, k]] for k in range(3))
        across = np.concatenate([cross(second - first, third - first), np.zeros((1, 3))])
        total = across[self.table[:, 0]]
        for column in self.table.T[1:]:
            total = total + across[column]
        return unit(total)


def grey_share(person: Person, age: float) -> float:
    """Share of hairs that are grey, in [0, 0.95]."""
    return 0.95 * share(age, person.grey_from, person.grey_from + 32)
