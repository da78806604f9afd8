"""One picture of the people that a strategy reconstructs best and worst, for the README.

    python benchmarks/faces.py runs/orl er_hull --buffer-size 3 --to faces.png

writes a PNG: for the best and then for the worst person, the first test photo of every timestamp above and its
reconstruction by the model after the last timestamp below; and prints who they are and their final scores. People are
ranked by that strategy's final score in the study's main metric, averaged over seeds; the pictures are the first
seed's. ``--metric lpips_eyes_mouth`` ranks by another metric of the study.

    python benchmarks/faces.py runs/selection er_rand --buffer-size 3 --oldest person_18 person_19 --to faces.png

shows for each of these people the first test photo of timestamp 0 and its reconstruction after every timestamp, by
``lower`` above and by the strategy below.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from clstudy.analysis.figures.faces import cell_side, oldest_photo, resized
from clstudy.analysis.printed import panel_title
from clstudy.analysis.report_data import Arm, ReportData, gather
from clstudy.analysis.study_folder import stage_faces
from clstudy.analysis.summary import summarise
from clstudy.errors import UserError
from clstudy.images import encode_png

MOST_BYTES = 150_000
_GAP = 8


def ranked_people(material: ReportData, arm: Arm, panel: tuple[str, str]) -> list[tuple[str, float]]:
    """Every person and the arm's final score of them, from best to worst, equal scores by name.

    Raises:
        UserError: the study has no such strategy, or no value of that metric for it.
    """
    values = material.identity_values(panel, lambda r: r[-1].mean()).get(arm)
    if not values:
        known = "; ".join(found.label for found in material.arms)
        title, folder = panel_title(material.metrics, panel), material.summary.study.folder
        raise UserError(f"no {title} of {arm.label} in {folder}; it has: {known}")
    sign = -1 if material.metrics[panel[1]].higher_is_better else 1
    return sorted(((name, float(score)) for name, score in values.items()), key=lambda each: (sign * each[1], each[0]))


def last_faces(material: ReportData, arm: Arm, identity: str) -> np.ndarray:
    """Photos above, reconstructions below: uint8 ``[2 s, T s, 3]``.

    Raises:
        UserError: the study's folder does not hold them.
    """
    trial = material.trial_of(arm, identity)
    faces = None if trial is None else stage_faces(material.stages[trial][-1])
    if faces is None:
        raise UserError(f"no pictures of {identity} under {arm.label}: the study's folder lacks the stage's faces.png")
    side = cell_side(4 * len(faces[0]), faces[0].shape[1])
    return np.concatenate([np.concatenate([resized(face, side) for face in row], axis=1) for row in faces])


def oldest_faces(material: ReportData, arm: Arm, identity: str) -> np.ndarray:
    """The first photo of timestamp 0, then its reconstruction after every timestamp: uint8 ``[s, (T + 1) s, 3]``.

    Raises:
        UserError: the study's folder does not hold them.
    """
    trial = material.trial_of(arm, identity)
    over_time = None if trial is None else oldest_photo(material.stages[trial])
    if over_time is None:
        raise UserError(f"no pictures of {identity} under {arm.label}: the study's folder lacks a stage's faces.png")
    photos, made = over_time
    return np.concatenate([photos[0], *made], axis=1)


def picture(people: list[np.ndarray]) -> np.ndarray:
    """The people below each other on white, a gap between them; a person of fewer timestamps is filled with white."""
    width = max(faces.shape[1] for faces in people)
    rows = [np.full((_GAP, width, 3), 255, np.uint8)]
    for faces in people:
        filled = np.pad(faces, ((0, 0), (0, width - faces.shape[1]), (0, 0)), constant_values=255)
        rows += [filled, rows[0]]
    return np.concatenate(rows[1:-1])


def small_png(pixels: np.ndarray) -> bytes:
    """A PNG of at most ``MOST_BYTES``, made smaller until it fits."""
    content = encode_png(pixels)
    while len(content) > MOST_BYTES:
        height, width = (int(0.8 * length) for length in pixels.shape[:2])
        pixels = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS))
        content = encode_png(pixels)
    return content


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("study", type=Path)
    parser.add_argument("strategy")
    parser.add_argument("--buffer-size", type=int, help="of a strategy that stores photos")
    parser.add_argument("--metric", help="rank by this reconstruction metric (by default the study's main one)")
    parser.add_argument("--oldest", nargs="+", metavar="IDENTITY", help="show these people's oldest photo over time")
    parser.add_argument("--to", type=Path, default=Path("faces.png"))
    args = parser.parse_args()
    material = gather(summarise(args.study))
    arm = Arm(args.strategy, args.buffer_size)
    panel = ("reconstruction", args.metric) if args.metric else material.panel
    if panel is None:
        raise UserError(f"{args.study} has no finished trial")
    if args.oldest:
        arms = (Arm("lower", None), arm)
        both = [np.concatenate([oldest_faces(material, each, name) for each in arms]) for name in args.oldest]
        args.to.write_bytes(content := small_png(picture(both)))
        print(f"{args.to}: {len(content) / 1000:.0f} kB")
        return
    people = ranked_people(material, arm, panel)
    chosen = people if len(people) == 1 else [people[0], people[-1]]
    content = small_png(picture([last_faces(material, arm, name) for name, _ in chosen]))
    args.to.write_bytes(content)
    for place, (name, score) in zip(("best", "worst"), chosen, strict=False):
        which = f"{place} of {len(people)} people" if len(people) > 1 else "the only person"
        print(f"{which}, {arm.label}: {name}, {panel_title(material.metrics, panel)} {score:.4f}")
    print(f"{args.to}: {len(content) / 1000:.0f} kB")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from error
