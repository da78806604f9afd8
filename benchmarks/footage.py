"""How photos of an occasion lie to each other and to those of other occasions: virtual people beside real footage.

    python -m benchmarks.footage [--people 20] [--seed 1] [--only strong,carphone] [--clip FILE:RATE] [--cache FOLDER]

For every preset of occasions, for ``synthetic`` and for real clips, in LPIPS at 64 px: test photos to the nearest, the
mean and the farthest training photo of their occasion, to the mean training photo of other occasions (across), the
ratio of mean to across, and by how much the best of 200 random choices of three training photos covers an occasion's
test photos better than the median choice (distance of each to the nearest chosen one). Each number is the mean over
people, with the standard deviation over them. Of a real clip there is one person: its occasions are three equal parts,
and the deviation is over them.

Virtual people: 3 occasions, 20 training and 10 test photos each, by frequency. Clips: frames at a rate that gives each
part at least 20 (printed), found and aligned as ``prepare`` does, and divided by the same rule: of ten frames the first
four may be training photos, the seventh and eighth test photos. ``real_video`` is the data set as it is made. Clips
come from pinned PyPI wheels; needs PyAV (``clstudy[video]``).
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.spatial.distance import cdist

from clstudy.errors import UserError
from clstudy.faces.face_finder import FaceFinder
from clstudy.identities.catalogue import open_data_set
from clstudy.identities.dataset import Identity
from clstudy.identities.preparation.perceptual import perceptual_vectors
from clstudy.identities.preparation.video import Sampling, video_frames
from clstudy.identities.real_video import CLIPS, fetch_clip
from clstudy.identities.virtual.occasions import Frame, Occasion
from clstudy.identities.virtual.person import draw_virtual_person
from clstudy.identities.virtual.photo import Sitter
from clstudy.identities.virtual.presets import PRESETS, Preset

TIMESTAMPS, TRAIN, TEST = 3, 20, 10
CHOICES, KEPT = 200, 3
RATES = {"carphone": 15.0, "single_face": 30.0, "langer": 5.0}
"""Frames a second that are looked at."""


class Photos(NamedTuple):
    """Photos of an occasion, uint8 ``[n, 64, 64, 3]``."""

    train: np.ndarray
    test: np.ndarray


class Distances(NamedTuple):
    """What is printed of an occasion."""

    nearest: float
    mean: float
    farthest: float
    across: float
    ratio: float
    gain: float


def measured(occasions: Sequence[Photos], rng: np.random.Generator) -> list[Distances]:
    """The distances of each of one person's occasions."""
    sizes = [len(part) for photos in occasions for part in photos]
    vectors = np.split(
        perceptual_vectors(np.concatenate([p for photos in occasions for p in photos])), np.cumsum(sizes)
    )
    train, test = vectors[0:-1:2], vectors[1:-1:2]
    rows = []
    for t, tested in enumerate(test):
        away = [cdist(tested, trained, "sqeuclidean") for trained in train]
        within = away[t]
        across = np.mean([one.mean() for s, one in enumerate(away) if s != t])
        chosen = [rng.choice(within.shape[1], KEPT, replace=False) for _ in range(CHOICES)]
        covered = np.array([within[:, kept].min(1).mean() for kept in chosen])
        rows.append(
            Distances(
                nearest=float(within.min(1).mean()),
                mean=float(within.mean()),
                farthest=float(within.max(1).mean()),
                across=float(across),
                ratio=float(within.mean() / across),
                gain=float(1 - covered.min() / np.median(covered)),
            )
        )
    return rows


def virtual(preset: Preset, people: int, seed: int = 1) -> Iterator[list[Photos]]:
    """The people of a preset."""
    for index in range(people):
        sitter = Sitter(draw_virtual_person(seed, index))

        def taken(frames: list[Frame], sitter: Sitter = sitter) -> np.ndarray:
            return np.stack([sitter.photograph(frame.moment).image for frame in frames])

        occasions = [Occasion(sitter.person, preset, seed, t) for t in range(TIMESTAMPS)]
        yield [Photos(taken(occasion.train(TRAIN)), taken(occasion.test(TEST))) for occasion in occasions]


def clip(path: Path, rate: float) -> list[Photos]:
    """Three equal parts of a clip."""
    finder = FaceFinder(threads=1)
    found = [finder.align(frame.image) for frame in video_frames(path, Sampling(every=1 / rate))]
    faces = [each[0] for each in found if each is not None]
    parts = [faces[len(faces) * t // TIMESTAMPS : len(faces) * (t + 1) // TIMESTAMPS] for t in range(TIMESTAMPS)]
    print(f"  {path.name}: {len(faces)} faces in {len(found)} frames, {rate:g} a second", flush=True)
    return [
        Photos(
            np.stack([face for place, face in enumerate(part) if place % 10 < 4][:TRAIN]),
            np.stack([face for place, face in enumerate(part) if place % 10 in (6, 7)][:TEST]),
        )
        for part in parts
    ]


def packaged(name: str, people: int, seed: int, cache: Path) -> Iterator[list[Photos]]:
    """The people of a data set of the catalogue."""
    counts = {"identities": people, "timestamps": TIMESTAMPS, "train": TRAIN, "test": TEST}
    data = open_data_set(name, **counts, data_seed=seed, cache=cache)
    yield from map(photos_of, data.identities)


def photos_of(identity: Identity) -> list[Photos]:
    """A person's photos, read."""
    return [
        Photos(np.stack([p.read() for p in stamp.train]), np.stack([p.read() for p in stamp.test]))
        for stamp in identity.timestamps
    ]


def row(name: str, people: Sequence[Sequence[Distances]]) -> str:
    """A line of the table: over people, or over the occasions of one."""
    values = np.array(people[0] if len(people) == 1 else [np.mean(person, axis=0) for person in people])
    cells = [
        f"{mean:.{places}f} ± {deviation:.{places}f}"
        for mean, deviation, places in zip(values.mean(0), values.std(0, ddof=1), (3, 3, 3, 3, 2, 2), strict=True)
    ]
    return f"| {name} | {len(people)} | " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--people", type=int, default=20)
    parser.add_argument(
        "--seed", type=int, default=1, help="which people (1, by default: those settings are chosen on)"
    )
    parser.add_argument("--only", help="rows by name, separated by commas (all by default)")
    parser.add_argument("--clip", action="append", default=[], help="another video of one person, FILE:FRAMES-A-SECOND")
    parser.add_argument("--cache", type=Path, help="folder for fetched clips and made data sets (a temporary one)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cache = args.cache or Path(folder)
        rows: dict[str, Callable[[], Iterator[list[Photos]]]] = {
            name: lambda preset=preset: virtual(preset, args.people, args.seed) for name, preset in PRESETS.items()
        }
        rows["synthetic"] = lambda: packaged("synthetic", args.people, args.seed, cache)
        rows["real_video"] = lambda: packaged("real_video", 1, args.seed, cache)
        for name in CLIPS:
            rows[name] = lambda name=name: iter([clip(fetch_clip(name, cache), RATES[name])])
        for text in args.clip:
            path, _, rate = text.rpartition(":")
            rows[Path(path).stem] = lambda path=path, rate=rate: iter([clip(Path(path), float(rate))])
        chosen = args.only.split(",") if args.only else list(rows)
        if unknown := set(chosen) - set(rows):
            raise UserError(f"unknown rows {', '.join(sorted(unknown))}; known: {', '.join(rows)}")
        print("| | people | nearest | mean | farthest | across | mean / across | gain at K = 3 |\n" + "|---" * 8 + "|")
        for name in chosen:
            rng = np.random.default_rng(0)
            print(row(name, [measured(occasions, rng) for occasions in rows[name]()]), flush=True)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from error
