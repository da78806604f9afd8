"""Moments that show everything the renderer can draw, and the sha256 of their photos."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys

from clstudy.identities.virtual.moment import Backdrop, Clothes, Expression, Light, Moment, Pose
from clstudy.identities.virtual.person import draw_virtual_person
from clstudy.identities.virtual.photo import Photograph, photograph

MOMENTS = {
    "plain": (0, 64, Moment()),
    "everything": (
        5,
        64,
        Moment(
            age=71.5,
            expression=Expression(smile=0.7, jaw=0.3, squint=0.4, brow_up=0.2),
            gaze=(11.0, -7.0),
            pose=Pose(yaw=-27.3, pitch=8.1, roll=3.7, zoom=0.8, shift=(0.03, -0.02)),
            light=Light(azimuth=71, elevation=33, colour=(1.0, 0.9, 0.7), ambient=0.35, strength=1.2),
            backdrop=Backdrop(kind="lights", seed=3),
            clothes=Clothes(neckline="turtleneck", stripes=2.0),
            glasses=True,
            hat=True,
            noise=3.0,
            blur=0.6,
            noise_seed=9,
        ),
    ),
    "blended": (300, 96, Moment(pose=Pose(yaw=19), backdrop=Backdrop(kind="clouds", seed=1))),
    "large": (11, 256, Moment(age=40, backdrop=Backdrop(kind="window", seed=2), clothes=Clothes(neckline="v-neck"))),
}
"""Name -> (index of the person of seed 0, size, moment)."""


def digest(photo: Photograph) -> str:
    """sha256 over everything that a photo holds."""
    found = hashlib.sha256()
    for each in dataclasses.fields(photo):
        value = getattr(photo, each.name)
        found.update(repr(value).encode() if isinstance(value, float) else value.tobytes())
    return found.hexdigest()


def digests() -> dict[str, str]:
    """Name -> sha256 of every moment's photo."""
    return {
        name: digest(photograph(draw_virtual_person(0, index), moment, size))
        for name, (index, size, moment) in MOMENTS.items()
    }


if __name__ == "__main__":
    json.dump(digests(), sys.stdout)
