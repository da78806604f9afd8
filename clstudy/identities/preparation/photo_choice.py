"""Chooses the training and test photos of a timestamp, and checks whether there are enough."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from clstudy.identities.preparation.filters import faces_only
from clstudy.identities.preparation.perceptual import perceptual_distances
from clstudy.identities.preparation.scans import Scan
from clstudy.identities.preparation.selection import (
    LEAST_TEST,
    LEAST_TRAIN,
    Apart,
    Frames,
    Split,
    evenly,
    remedy,
    split,
    too_near,
)
from clstudy.identities.preparation.settings import PrepareSettings
from clstudy.identities.preparation.timestamps import (
    NEAR_DUPLICATE,
    NO_FACE,
    SOMEONE_ELSE,
    SPARE,
    TEST,
    TOO_NEAR,
    TRAIN,
    Stamp,
    Verdict,
)
from clstudy.seeding import derive_rng

_COMPARED = 1000  # good frames of a timestamp: their looks are compared pairwise


def choose(stamp: Stamp, scans: Sequence[Scan], settings: PrepareSettings) -> Stamp:
    """Decide for each good frame of a timestamp: training photo, test photo, or why neither (``selection.split``)."""
    good = [place for place, verdict in enumerate(stamp.verdicts) if not verdict.decision]
    compared = [good[place] for place in evenly(len(good), _COMPARED)]
    frames = _frames_of([stamp.verdicts[place] for place in compared], scans)

    def rng() -> np.random.Generator:
        return derive_rng("prepare split", settings.seed, settings.identity, stamp.source)

    chosen = split(frames, settings.wanted, settings.apart, rng())
    verdicts = [v if v.decision else replace(v, decision=SPARE) for v in stamp.verdicts]
    for place, (decision, like) in zip(compared, _decisions(frames, chosen, settings.apart), strict=True):
        detail = "" if like is None else f"to {_label(stamp.verdicts[compared[like]], scans)}"
        verdicts[place] = replace(verdicts[place], decision=decision, detail=detail)
    short = chosen.counts() != (settings.train, settings.test)
    return replace(
        stamp,
        verdicts=tuple(verdicts),
        nearest=_nearest(frames, chosen),
        lacking=remedy(frames, settings.wanted, settings.apart, chosen, rng) if short else "",
    )


def _frames_of(verdicts: Sequence[Verdict], scans: Sequence[Scan]) -> Frames:
    if not verdicts:
        return Frames(seconds=np.zeros(0), away=np.zeros((0, 0)))
    looks = np.stack([scans[verdict.occasion].looks[verdict.row] for verdict in verdicts])
    seconds = [scans[verdict.occasion].seconds[verdict.position] for verdict in verdicts]
    return Frames(seconds=np.array(seconds), away=perceptual_distances(faces_only(looks)))


def _label(verdict: Verdict, scans: Sequence[Scan]) -> str:
    return str(scans[verdict.occasion].labels[verdict.position])


def _decisions(frames: Frames, chosen: Split, apart: Apart) -> list[tuple[str, int | None]]:
    """What happens to each good frame, and which chosen frame it is too close to."""
    test, both = list(chosen.test), [*chosen.train, *chosen.test]
    near = too_near(frames, test, apart.min_gap)
    decided: list[tuple[str, int | None]] = []
    for frame in range(len(frames.seconds)):
        if frame in both:
            decided.append((TEST if frame in test else TRAIN, None))
        elif near[frame].any():
            decided.append((TOO_NEAR, test[int(near[frame].argmax())]))
        elif (frames.away[frame, test] < apart.min_difference).any():
            decided.append((NEAR_DUPLICATE, test[int(frames.away[frame, test].argmin())]))
        elif (frames.away[frame, both] < apart.min_variety).any():
            decided.append((NEAR_DUPLICATE, both[int(frames.away[frame, both].argmin())]))
        else:
            decided.append((SPARE, None))
    return decided


def _nearest(frames: Frames, chosen: Split) -> tuple[float, float]:
    if not chosen.train:
        return math.nan, math.nan
    pairs = np.ix_(chosen.train, chosen.test)
    gaps = np.abs(frames.seconds[:, None] - frames.seconds)[pairs]
    return float(gaps.min()), float(frames.away[pairs].min())


def usable(stamps: tuple[Stamp, ...], settings: PrepareSettings) -> tuple[tuple[Stamp, ...], str]:
    """The timestamps, renumbered if some are left out, and a message for the user if they are not sufficient."""
    few = [stamp for stamp in stamps if sum(stamp.counts()) < _least(settings)]
    if not few:
        return stamps, ""
    if settings.allow_fewer and len(few) < len(stamps):
        numbered, number = [], 0
        for stamp in stamps:
            if stamp in few:
                numbered.append(replace(stamp, name=f"left-out-{stamp.name[1:]}", left_out=True))
            else:
                numbered.append(replace(stamp, name=f"t{number:02d}"))
                number += 1
        return tuple(numbered), ""
    more = "" if settings.allow_fewer else " --allow-fewer keeps what there is (at least 2 + 1 photos of a timestamp)."
    return stamps, (
        f"too few good photos of {settings.identity!r}: wanted {_least(settings)} or more per timestamp, there are "
        f"{'; '.join(f'{stamp.name} ({stamp.source}): {tally(stamp)}' for stamp in stamps)}. {_advice(few)}{more}"
    )


def _least(settings: PrepareSettings) -> int:
    return LEAST_TRAIN + LEAST_TEST if settings.allow_fewer else settings.train + settings.test


def tally(stamp: Stamp) -> str:
    """How many photos a timestamp has, and why its other frames were dropped."""
    dropped = Counter(verdict.decision for verdict in stamp.verdicts)
    reasons = ", ".join(f"{reason} {count}" for reason, count in dropped.most_common() if reason not in (TRAIN, TEST))
    held = " + ".join(map(str, stamp.counts()))
    return held + (f", {stamp.lacking}" if stamp.lacking else "") + (f" (not taken: {reasons})" if reasons else "")


_ADVICE: Mapping[str, str] = {
    NO_FACE: "Most frames show no face: give footage in which it is larger and upright, or try --detector insightface.",
    SOMEONE_ELSE: "Most faces are someone else's: give several clear --reference photos of the person, or a lower "
    "--min-cosine, and look at the contact sheets.",
    "too small": "Most faces are too small for the photo: ask for a smaller --size, give footage with larger faces, or "
    "allow more enlargement (--limit max_upsampling=3).",
    "cut off": "Most faces reach out of the frame: give footage that shows the whole face, or allow it (--limit "
    "max_face_outside=0.1, max_outside=0.8); what is missing is mirrored.",
    "turned away": "Most faces are turned away: give footage from the front, or allow it (--limit max_yaw=0.4).",
    "blurred": "Most faces are blurred: give sharper footage or a smaller --size, or allow it (--limit "
    "min_sharpness=0.2).",
    "occluded": "Something lies over most faces, or looks so (hair, glasses, hard light): see the contact sheets; "
    "--limit min_symmetry=0.3 and max_unsteadiness=0.07 let more pass.",
}


_FEW = (
    "Give more or longer footage, look at more of its frames (--frames, --every), or ask for fewer photos (--train, "
    "--test)."
)


def _advice(few: Sequence[Stamp]) -> str:
    """The most common cause of loss among timestamps with too few photos."""
    lost = Counter(v.decision for stamp in few for v in stamp.verdicts if v.decision in _ADVICE)
    frames = sum(len(stamp.verdicts) for stamp in few)
    reason, count = lost.most_common(1)[0] if lost else ("", 0)
    return _ADVICE[reason] if 2 * count > frames else _FEW
