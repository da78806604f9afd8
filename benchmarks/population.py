"""Who the virtual people are to the packaged networks: found, aligned, told apart, and how old they look.

    python -m benchmarks.population                       # 200 people, about two minutes on one core
    python -m benchmarks.population --first 216 --people 100   # those made of two portraits
    python -m benchmarks.population --people 20 --sheet sheet.png
    python -m benchmarks.population --people 8 --size 128 --ages ages.png

Every person is photographed on eight occasions, each with its own light, backdrop, clothes, expression and view within
30 degrees of the front. A photo counts as found where the packaged detector finds a face, and as aligned where its five
points are within a quarter of an eye distance of the true ones on average. Identity cosines are those of the photos as
they are, and, "realigned", of what the packaged detector and landmarks make of them.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from clstudy.faces.embedding import IdentityEmbedder
from clstudy.faces.face_finder import FaceFinder
from clstudy.faces.geometry import five_points
from clstudy.identities.virtual.backdrops import BACKDROPS
from clstudy.identities.virtual.clothes import NECKLINES
from clstudy.identities.virtual.moment import Backdrop, Clothes, Expression, Light, Moment, Pose
from clstudy.identities.virtual.person import draw_virtual_person
from clstudy.identities.virtual.photo import Photograph, Sitter
from clstudy.images import to_unit_range
from clstudy.seeding import derive_rng

OCCASIONS = 8
VIEWS = (-30, 6), (-20, -6), (-10, 4), (0, 0), (0, 8), (10, -5), (20, 6), (30, 0)
MOST_OFF = 0.25
"""Eye distances between found and true points, on average, up to which a face counts as aligned."""

_AGES = 20.0, 80.0
_RIDGE = 3.0


def occasion(seed: int, person: int, number: int, view: tuple[float, float], age: float | None = None) -> Moment:
    """A moment drawn at random, seen from a given side."""
    rng = derive_rng("population", seed, person, number)

    def colour(low: float, high: float) -> tuple[float, float, float]:
        brightness = low + (high - low) * rng.random() ** 2
        red, green, blue = np.minimum(brightness * (0.65 + 0.7 * rng.random(3)), 1.0).tolist()
        return red, green, blue

    def tint() -> tuple[float, float, float]:
        red, green, blue = (0.88 + 0.2 * rng.random(3)).tolist()
        return red, green, blue

    mood = rng.integers(0, 6)
    strength = float(0.3 + 0.6 * rng.random())
    expression = [
        Expression(),
        Expression(smile=strength, jaw=0.15 * strength),
        Expression(jaw=0.5 * strength, wide=0.4 * strength),
        Expression(brow_up=strength, jaw=0.2 * strength),
        Expression(frown=strength, brow_down=strength),
        Expression(squint=strength, smile=0.4 * strength),
    ][mood]
    return Moment(
        age=age,
        expression=expression,
        gaze=(float(20 * (rng.random() - 0.5)), float(12 * (rng.random() - 0.5))),
        pose=Pose(yaw=view[0], pitch=view[1], roll=float(4 * (rng.random() - 0.5))),
        light=Light(
            azimuth=float(130 * (rng.random() - 0.5)),
            elevation=float(55 * rng.random()),
            colour=tint(),
            ambient=float(0.3 + 0.4 * rng.random()),
            ambient_colour=tint(),
            strength=float(0.75 + 0.5 * rng.random()),
        ),
        backdrop=Backdrop(
            kind=list(BACKDROPS)[rng.integers(0, len(list(BACKDROPS)))],
            colour=colour(0.02, 0.7),
            second=colour(0.02, 0.7),
            seed=int(rng.integers(0, 1 << 30)),
        ),
        clothes=Clothes(
            neckline=list(NECKLINES)[rng.integers(0, len(list(NECKLINES)))],
            colour=colour(0.01, 0.6),
            second=colour(0.01, 0.6),
            stripes=float(3 * (rng.random() < 0.3)),
        ),
        hat=bool(rng.random() < 0.1),
        noise=2.0,
        noise_seed=int(rng.integers(0, 1 << 30)),
    )


@dataclass(frozen=True)
class Census:
    """What the networks make of the photos; one row per photo.

    Attributes:
        person: whose.
        found: whether the detector finds a face.
        off: eye distances between its five points and the true ones; NaN where none is found.
        embeddings, realigned: ``[n, 512]``; the second are NaN where no face is found.
    """

    person: np.ndarray
    found: np.ndarray
    off: np.ndarray
    embeddings: np.ndarray
    realigned: np.ndarray


def take_census(people: int, seed: int, first: int = 0) -> Census:
    """Photograph and examine so many people, from index ``first`` on."""
    finder, embedder = FaceFinder(), IdentityEmbedder()
    owner, found, off, embeddings, realigned = [], [], [], [], []
    for index in range(first, first + people):
        sitter = Sitter(draw_virtual_person(seed, index))
        photos = [
            sitter.photograph(occasion(seed, index, number, view), 64) for number, view in enumerate(VIEWS[:OCCASIONS])
        ]
        embeddings.append(_embedded(embedder, [photo.image for photo in photos]))
        for photo in photos:
            owner.append(index)
            again = finder.align(photo.image)
            found.append(again is not None)
            off.append(np.nan if again is None else _distance(again[1].points, photo))
            realigned.append(np.full(512, np.nan) if again is None else _embedded(embedder, [again[0]])[0])
    return Census(np.array(owner), np.array(found), np.array(off), np.concatenate(embeddings), np.stack(realigned))


def _embedded(embedder: IdentityEmbedder, images: list[np.ndarray]) -> np.ndarray:
    return np.asarray(embedder(to_unit_range(np.stack(images))).numpy())


def _distance(points: np.ndarray, photo: Photograph) -> float:
    true = five_points(photo.landmarks)
    return float(np.linalg.norm(points - true, axis=1).mean() / np.linalg.norm(true[0] - true[1]))


def told_apart(person: np.ndarray, embeddings: np.ndarray) -> tuple[float, float, float]:
    """Mean cosine of two photos of one person, of two people, and the area under the ROC curve."""
    cosines = embeddings @ embeddings.T
    upper = np.triu_indices(len(person), 1)
    same = (person[:, None] == person)[upper]
    alike, different = cosines[upper][same], np.sort(cosines[upper][~same])
    above = np.searchsorted(different, alike) / len(different)
    return float(alike.mean()), float(different.mean()), float(above.mean())


def age_error(people: int, seed: int) -> tuple[float, float]:
    """Years that a ridge regression on the embedding errs on held-out people, and that the mean age errs."""
    embedder = IdentityEmbedder()
    rows, ages, test = [], [], []
    for index in range(people):
        sitter = Sitter(draw_virtual_person(seed, index))
        rng = derive_rng("population ages", seed, index)
        for number in range(6):
            age = float(_AGES[0] + (_AGES[1] - _AGES[0]) * rng.random())
            photo = sitter.photograph(occasion(seed + 1, index, number, VIEWS[1 + number], age), 64)
            rows.append(photo.image)
            ages.append(age)
            test.append(index % 4 == 0)
    inputs, wanted, held_out = _embedded(embedder, rows), np.array(ages), np.array(test)
    centre, middle = inputs[~held_out].mean(0), wanted[~held_out].mean()
    x = inputs[~held_out] - centre
    weights = np.linalg.solve(x.T @ x + _RIDGE * np.eye(x.shape[1]), x.T @ (wanted[~held_out] - middle))
    guess = (inputs[held_out] - centre) @ weights + middle
    return float(np.abs(guess - wanted[held_out]).mean()), float(np.abs(middle - wanted[held_out]).mean())


def milliseconds(seed: int, size: int, photos: int = 40) -> float:
    """Processor time per photo, of one thread, without preparing the person."""
    sitters = [Sitter(draw_virtual_person(seed, index)) for index in range(4)]
    moments = [occasion(seed, 0, number, VIEWS[number % len(VIEWS)]) for number in range(photos)]
    for sitter in sitters:
        sitter.photograph(moments[0], size)
    start = time.process_time()
    for number, moment in enumerate(moments):
        sitters[number % len(sitters)].photograph(moment, size)
    return (time.process_time() - start) / photos * 1e3


def contact_sheet(seed: int, people: int, size: int) -> np.ndarray:
    """People down, occasions across: uint8."""
    rows = []
    for index in range(people):
        sitter = Sitter(draw_virtual_person(seed, index))
        rows.append(
            np.concatenate(
                [
                    sitter.photograph(occasion(seed, index, number, view), size, framing="embedded").image
                    for number, view in enumerate(VIEWS)
                ],
                axis=1,
            )
        )
    return np.concatenate(rows)


def ages_sheet(seed: int, people: int, size: int) -> np.ndarray:
    """People down, ages from 20 to 80 across: uint8."""
    rows = []
    for index in range(people):
        sitter = Sitter(draw_virtual_person(seed, index))
        moments = [Moment(age=float(age), pose=Pose(yaw=12.0)) for age in range(20, 81, 10)]
        rows.append(np.concatenate([sitter.photograph(m, size, framing="embedded").image for m in moments], axis=1))
    return np.concatenate(rows)


def main() -> None:
    """Print the figures, or draw the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="index of the first person that is told apart")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheet", type=Path, help="write a contact sheet instead: people x occasions")
    parser.add_argument("--ages", type=Path, help="write a contact sheet instead: people x ages")
    parser.add_argument("--size", type=int, default=64, help="pixels of the sheets' photos")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for path, sheet in ((options.sheet, contact_sheet), (options.ages, ages_sheet)):
        if path is not None:
            Image.fromarray(sheet(options.seed, options.people, options.size)).save(path)
    if options.sheet is not None or options.ages is not None:
        return
    census = take_census(options.people, options.seed, options.first)
    aligned = census.found & (census.off < MOST_OFF)
    print(f"photos {len(census.person)}, people {options.people}")
    print(f"found {census.found.mean():.2%}, aligned {aligned.mean():.2%}, off by {np.nanmedian(census.off):.3f}")
    for name, embeddings in (("as they are", census.embeddings), ("realigned", census.realigned)):
        usable = ~np.isnan(embeddings[:, 0])
        same, different, area = told_apart(census.person[usable], embeddings[usable])
        print(f"{name}: same {same:.3f}, different {different:.3f}, AUC {area:.4f}")
    error, guess = age_error(options.people, options.seed)
    print(f"age: mean error {error:.1f} years on held-out people; of the mean age {guess:.1f}")
    for size in (64, 128, 256):
        print(f"{size} px: {milliseconds(options.seed, size, 40 if size < 256 else 12):.1f} ms a photo")


if __name__ == "__main__":
    main()
