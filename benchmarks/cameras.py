"""How well cameras are estimated from photos: virtual people, whose cameras are known.

    python -m benchmarks.cameras                 # 20 people of data seed 31, two occasions each; half a minute
    python -m benchmarks.cameras --size 128

Prints errors of yaw and pitch in degrees, of the focal length in percent, and of the place of the face in shares
of the photo's side, from the packaged detector's landmarks and, as a bound, from the true ones.
"""

from __future__ import annotations

import argparse

import numpy as np

from clstudy.faces.face_finder import FaceFinder
from clstudy.identities.camera_estimation import steady_landmarks
from clstudy.identities.cameras import view_angles
from clstudy.identities.head_pose import head_pose
from clstudy.identities.virtual.occasions import Occasion
from clstudy.identities.virtual.person import draw_virtual_person
from clstudy.identities.virtual.photo import Photograph, Sitter
from clstudy.identities.virtual.presets import PRESETS


def photographs(people: int, size: int, *, seed: int, occasions: int = 2, photos: int = 6) -> list[Photograph]:
    """Photos of the preset with the strongest drift, whose views vary most."""
    taken = []
    for index in range(people):
        sitter, occasion = Sitter(draw_virtual_person(seed, index)), None
        for t in range(occasions):
            occasion = Occasion(sitter.person, PRESETS["strong"], seed, t, before=occasion)
            taken += [sitter.photograph(frame.moment, size) for frame in occasion.train(photos)]
    return taken


def errors(landmarks: list[np.ndarray], truth: list[Photograph], size: int) -> np.ndarray:
    """Errors ``[n, 4]``: yaw and pitch in degrees, focal length as a share, principal point in shares of the side."""
    found = np.stack([head_pose(points).camera(size) for points in landmarks])
    true = np.stack([photo.camera for photo in truth])
    angles = view_angles(found) - view_angles(true)
    focal = found[:, [16]] / true[:, [16]] - 1
    return np.hstack([angles, focal, np.abs(found[:, [18, 21]] - true[:, [18, 21]]).max(1, keepdims=True)])


def main() -> None:
    """Print a line for detected and one for true landmarks."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--people", type=int, default=20)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=31)
    options = parser.parse_args()
    finder = FaceFinder()
    taken = photographs(options.people, options.size, seed=options.seed)
    faces = [finder.find(photo.image) for photo in taken]
    seen = [photo for photo, face in zip(taken, faces, strict=True) if face is not None]
    detected = [
        steady_landmarks(finder, photo.image, face.box)
        for photo, face in zip(taken, faces, strict=True)
        if face is not None
    ]
    print(f"{len(seen)} of {len(taken)} faces found, {options.size} px")
    for name, landmarks in (("detected", detected), ("true", [photo.landmarks for photo in seen])):
        off = errors(landmarks, seen, options.size)
        middle, high = np.quantile(np.abs(off), [0.5, 0.9], axis=0)
        print(
            f"{name:<9} landmarks, median (90%) error: yaw {middle[0]:.1f} ({high[0]:.1f}) degrees, "
            f"pitch {middle[1]:.1f} ({high[1]:.1f}) degrees, focal length {middle[2]:.1%} ({high[2]:.1%}), "
            f"place {middle[3]:.3f} ({high[3]:.3f})"
        )


if __name__ == "__main__":
    main()
