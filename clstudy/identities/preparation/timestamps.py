"""Records the outcome of every frame, and groups frames into timestamps: one per occasion, or runs of one video."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from clstudy.errors import UserError
from clstudy.identities.preparation.filters import drop_reason
from clstudy.identities.preparation.reference import Reference
from clstudy.identities.preparation.scans import Scan
from clstudy.identities.preparation.settings import PrepareSettings
from clstudy.identities.preparation.video import Found

TRAIN, TEST, SPARE = "train", "test", "not needed"
NO_FACE, SOMEONE_ELSE = "no face", "someone else"
NEAR_DUPLICATE, TOO_NEAR = "near-duplicate", "too near in time"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The outcome of one frame."""

    occasion: int
    position: int
    """Index among the occasion's sampled frames."""
    row: int | None
    """The face that was judged; None if the frame has none."""
    cosine: float
    """Identity cosine of that face to the reference; NaN if there is no face or no reference."""
    decision: str
    """``train``, ``test``, ``not needed``, or the reason to drop the frame; empty while it is undecided."""
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """One timestamp: where it comes from, and its frames in order."""

    name: str
    source: str
    verdicts: tuple[Verdict, ...]
    nearest: tuple[float, float] = (math.nan, math.nan)
    """Least distance between a training and a test photo: seconds, LPIPS."""
    lacking: str = ""
    """What prevents the wanted number of photos."""
    left_out: bool = False
    """Whether it is left out because it has too few photos."""

    def decided(self, *decisions: str) -> list[Verdict]:
        """The frames with one of these decisions."""
        return [verdict for verdict in self.verdicts if verdict.decision in decisions]

    def counts(self) -> tuple[int, int]:
        """Training and test photos."""
        return len(self.decided(TRAIN)), len(self.decided(TEST))


def require_segments(found: Found, settings: PrepareSettings) -> None:
    """Check that segments, if any are wanted, can be cut from the source.

    Raises:
        UserError: it is not exactly one video.
    """
    if settings.segments is None:
        return
    if len(found.occasions) != 1 or not found.occasions[0].is_video():
        raise UserError(
            f"--segments {settings.segments} with {len(found.occasions)} occasions; segments of one video stand in for "
            "timestamps, so give one video"
        )


def judge(number: int, scan: Scan, reference: Reference | None, settings: PrepareSettings) -> list[Verdict]:
    """One verdict per frame, by the face in it that is most like the reference."""
    verdicts = []
    for position in range(len(scan.labels)):
        rows = np.flatnonzero(scan.frame == position)
        verdict = Verdict(occasion=number, position=position, row=None, cosine=math.nan, decision=NO_FACE)
        if len(rows):
            cosines = scan.embeddings[rows] @ reference.embedding if reference else np.full(len(rows), math.nan)
            row = int(rows[int(cosines.argmax())])
            cosine = float(cosines.max())
            reason = drop_reason(scan.face(row), settings.limits, settings.size)
            if reason is None and not cosine >= settings.limits.min_cosine:
                reason = SOMEONE_ELSE
            verdict = replace(verdict, row=row, cosine=cosine, decision=reason or "")
        verdicts.append(verdict)
    return verdicts


def into_timestamps(
    found: Found, scans: Sequence[Scan], verdicts: Sequence[Verdict], settings: PrepareSettings
) -> list[Stamp]:
    """One timestamp per occasion, or ``segments`` runs of frames of the only one with equally many good frames.

    Runs of one video are as far apart as training and test photos must be: a moment that is in one timestamp's training
    photos must not be in another's test photos.
    """
    if settings.segments is not None:
        return _runs(found, scans[0], verdicts, settings.segments, settings.apart.min_gap)
    groups = [tuple(verdict for verdict in verdicts if verdict.occasion == number) for number in range(len(scans))]
    return [
        Stamp(name=f"t{number:02d}", source=found.occasions[number].label, verdicts=group)
        for number, group in enumerate(groups)
    ]


def _runs(found: Found, scan: Scan, verdicts: Sequence[Verdict], segments: int, gap: float) -> list[Stamp]:
    good = np.array([verdict.position for verdict in verdicts if not verdict.decision], int)
    borders = [int(run[0]) for run in np.array_split(good, segments)[1:] if len(run)]
    stamps = []
    for number, (first, end) in enumerate(zip([0, *borders], [*borders, len(scan.labels)], strict=True)):
        group = list(verdicts[first:end])
        before = [place for place in good if place < first]
        for place, verdict in enumerate(group):
            if before and not verdict.decision and scan.seconds[verdict.position] - scan.seconds[before[-1]] < gap:
                detail = f"to {scan.labels[before[-1]]} of the timestamp before"
                group[place] = replace(verdict, decision=TOO_NEAR, detail=detail)
        source = f"{found.occasions[0].label}, {scan.labels[first]} to {scan.labels[end - 1]}"
        stamps.append(Stamp(name=f"t{number:02d}", source=source, verdicts=tuple(group)))
    empty = [Stamp(name=f"t{number:02d}", source="nothing", verdicts=()) for number in range(len(stamps), segments)]
    return stamps + empty
