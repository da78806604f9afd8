"""From videos or dated photos of a person to a photo folder for a study: ``python -m clstudy.identities prepare``.

``prepare`` tells the story. Every occasion (one video, or the photos of one day) becomes a timestamp: sample frames,
find faces, keep the person asked for, drop what is too small, cut off, turned away, blurred, occluded or someone else,
choose training and test photos that are no near-duplicates (``selection``), and align them. A report says what became
of every frame.

Files: ``OUT/<identity>/t00/{train,test}/*.png`` with ``OUT/<identity>/prepared.json`` and ``OUT/prepared.json`` (which
alignment); ``OUT-report/<identity>/`` (``report.md``, ``frames.csv``, ``t00.png`` …); ``OUT/.prepare/`` holds finished
scans, so that a run that was stopped goes on, and goes when it is done: it has pictures and embeddings of everybody in
the footage. The same source and settings give the same bytes.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import re
import shutil
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.sparse.csgraph import connected_components

from clstudy.assets import manifest as asset_manifest
from clstudy.assets import sha256_file
from clstudy.errors import UserError, nearest
from clstudy.faces.alignments import TRANSFORMS, aligned_photo, usual_alignment
from clstudy.faces.detectors import detector_key, detector_title, open_detector, parse_detector
from clstudy.faces.embedding import IdentityEmbedder
from clstudy.faces.face_finder import Face, FaceDetector
from clstudy.identities.preparation.contact_sheet import Strip, contact_sheet
from clstudy.identities.preparation.filters import (
    LOOK_SIZE,
    FilterSettings,
    Measures,
    drop_reason,
    faces_only,
    look,
    measure,
    portrait,
)
from clstudy.identities.preparation.perceptual import perceptual_distances
from clstudy.identities.preparation.selection import (
    LEAST_TEST,
    LEAST_TRAIN,
    Apart,
    Frames,
    Split,
    Wanted,
    evenly,
    remedy,
    split,
    too_near,
)
from clstudy.identities.preparation.video import (
    FILE_DATES,
    PHOTO_SUFFIXES,
    Found,
    Frame,
    Occasion,
    Sampling,
    find_occasions,
    read_photo,
)
from clstudy.images import to_unit_range
from clstudy.safe_text import csv_cell, markdown
from clstudy.seeding import derive_rng
from clstudy.storage.documents import read_json
from clstudy.storage.file_lock import file_lock, holder
from clstudy.storage.places import require_writable, write_atomically

PREPARE_VERSION = 2
"""Raised by hand whenever the same source and settings give other photos."""

TRAIN, TEST, SPARE = "train", "test", "not needed"
NO_FACE, SOMEONE_ELSE = "no face", "someone else"
NEAR_DUPLICATE, TOO_NEAR = "near-duplicate", "too near in time"

_SAME_PERSON = 0.5
_SHOWN = 60
_NAMED = 10
_SAY_EVERY_S = 10.0
_COMPARED = 1000  # good frames of a timestamp: their looks are compared pairwise


@dataclass(frozen=True, kw_only=True)
class PrepareSettings:
    """What is wanted; checked when it is made.

    Raises:
        UserError: an impossible name, size, count or unknown choice.
    """

    identity: str
    size: int = 64
    train: int = 20
    test: int = 10
    alignment: str | None = None
    """``embedded`` or ``ffhq``; None: the usual one for the size."""
    detector: str = "packaged"
    sampling: Sampling = field(default_factory=Sampling)
    segments: int | None = None
    """Cut the only video into so many timestamps."""
    allow_fewer: bool = False
    """Keep timestamps with fewer photos than wanted, if there are at least 2 + 1; leave out the others, and files that
    cannot be read."""
    seed: int = 0
    limits: FilterSettings = field(default_factory=FilterSettings)
    apart: Apart = field(default_factory=Apart)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w[\w .-]*", self.identity):
            raise UserError(f"identity {self.identity!r}; expected a folder name of letters, digits, '_', '-', '.'")
        least = {"size": (self.size, 32), "train": (self.train, 2), "test": (self.test, 1)}
        least["frames"] = (self.sampling.frames, 1)
        if self.segments is not None:
            least["segments"] = (self.segments, 1)
        for name, (given, expected) in least.items():
            if given < expected:
                raise UserError(f"prepare with {name} = {given}; expected at least {expected}")
        if self.sampling.every is not None and not 0 < self.sampling.every < math.inf:
            raise UserError(f"prepare with every = {self.sampling.every} seconds; expected a positive number")
        if not -1 <= self.limits.min_cosine <= 1:
            raise UserError(f"prepare with min-cosine = {self.limits.min_cosine}; expected a number from -1 to 1")
        for name, distance in asdict(self.apart).items():
            if not 0 <= distance < math.inf:
                raise UserError(f"prepare with {name.replace('_', '-')} = {distance}; expected a number from 0")
        if self.alignment is not None and self.alignment not in TRANSFORMS:
            raise UserError(
                f"unknown alignment {self.alignment!r}.{nearest(self.alignment, TRANSFORMS)} Known: "
                f"{', '.join(TRANSFORMS)}."
            )

    @property
    def wanted(self) -> Wanted:
        """Photos of a timestamp."""
        return Wanted(train=self.train, test=self.test)

    @property
    def aligned(self) -> str:
        """The alignment that is used."""
        return self.alignment or usual_alignment(self.size)


@dataclass(frozen=True, kw_only=True)
class Scan:
    """Everything known about an occasion's n sampled frames and the m faces in them."""

    labels: np.ndarray
    """Frame names, str ``[n]``."""
    numbers: np.ndarray
    """Frame numbers, int ``[n]``, ascending."""
    seconds: np.ndarray
    """``Frame.seconds``, float64 ``[n]``."""
    thumbnails: np.ndarray
    """Whole frames, uint8 ``[n, 64, 64, 3]``."""
    frame: np.ndarray
    """Position of a face's frame, int ``[m]``, ascending."""
    landmarks: np.ndarray
    """float64 ``[m, 68, 2]`` in source pixels."""
    scores: np.ndarray
    """Detector scores, float64 ``[m]``."""
    measures: np.ndarray
    """``Measures.values()``, float64 ``[m, 8]``."""
    embeddings: np.ndarray
    """Unit identity embeddings, float32 ``[m, 512]``."""
    unreadable: np.ndarray
    """What was said of files that could not be read, str ``[k]``."""
    looks: np.ndarray
    """``filters.look``, uint8 ``[m, 64, 64, 3]``."""

    def face(self, row: int) -> Measures:
        """The measures of one face."""
        names = [field.name for field in fields(Measures)]
        return Measures(**dict(zip(names, self.measures[row].tolist(), strict=True)))


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Who is kept: a unit embedding ``[512]`` and how it was found."""

    embedding: np.ndarray
    said: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What became of one frame."""

    occasion: int
    position: int
    """Place among the occasion's sampled frames."""
    row: int | None
    """The face that was judged; None if the frame has none."""
    cosine: float
    """Identity cosine of that face to the reference; NaN where there is no face or no reference."""
    decision: str
    """``train``, ``test``, ``not needed``, or the reason to drop the frame; empty while it is still in the running."""
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
    """What stands in the way of the photos that were wanted."""
    left_out: bool = False
    """It has too few photos, and the others go on without it."""

    def decided(self, *decisions: str) -> list[Verdict]:
        """The frames with one of these decisions."""
        return [verdict for verdict in self.verdicts if verdict.decision in decisions]

    def counts(self) -> tuple[int, int]:
        """Training and test photos."""
        return len(self.decided(TRAIN)), len(self.decided(TEST))


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Where the photos and the report are, and the timestamps with what became of every frame."""

    photos: Path
    report: Path
    stamps: tuple[Stamp, ...]


def prepare(
    source: Path,
    out: Path,
    settings: PrepareSettings,
    *,
    references: Sequence[Path] = (),
    manifest: Path | None = None,
    keep_scans: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Prepared:
    """Make ``out/<identity>`` and its report from a source; goes on where a stopped run was.

    Args:
        source: see ``video.find_occasions``; nothing is written into it.
        out: data folder, may hold other identities of the same size and alignment.
        references: photos of the person asked for (none: whoever is seen on most occasions).
        manifest: names of the occasions in order.
        keep_scans: leave this run's scans, for other limits or another person of the same footage.
        say: called with lines for the user.

    Raises:
        UserError: bad source, reference, output folder or settings; another process prepares this person there; or too
            few good photos (the report is written before that is said, and photos of an earlier run are left as they
            are).
    """
    report = out.with_name(out.name + "-report") / settings.identity
    _require_place(source, out, report, settings)
    found = find_occasions(source, manifest)
    _require_segments(found, settings)
    for folder in (out, report):
        require_writable(folder, "the folder", "name another OUT, or mend its permissions")
    with _only_one(out, settings.identity):
        return _prepare(found, out, report, settings, references, keep_scans, say)


def _prepare(
    found: Found,
    out: Path,
    report: Path,
    settings: PrepareSettings,
    references: Sequence[Path],
    keep_scans: bool,
    say: Callable[[str], None],
) -> Prepared:
    if found.ignored:
        kinds = ", ".join(sorted(PHOTO_SUFFIXES))
        more = f", … ({len(found.ignored)} in all)" if len(found.ignored) > _NAMED else ""
        say(f"not looked at: {', '.join(found.ignored[:_NAMED])}{more}; photos may be {kinds}")
    if len(found.occasions) > 1:
        say(f"order, by {found.order}: {', '.join(occasion.label for occasion in found.occasions)}")
        if found.order == FILE_DATES:
            say("copying changes the dates of files: if that is not the order, write the names into a --manifest")
    tools = _Tools(settings.detector)
    asked = reference_of(references, tools)
    scans = [_scan_once(occasion, out / ".prepare", settings, tools, say) for occasion in found.occasions]
    reference = asked or most_seen(scans, settings)
    judged = [verdict for number, scan in enumerate(scans) for verdict in judge(number, scan, reference, settings)]
    chosen = tuple(choose(stamp, scans, settings) for stamp in into_timestamps(found, scans, judged, settings))
    stamps, short = _usable(chosen, settings)
    for stamp in stamps:
        if stamp.left_out:
            say(f"left out: {stamp.source}: {_held(stamp)}")
    building = out / ".prepare" / f"building-{settings.identity}"
    photos = write_photos(building, found, scans, stamps, reference, settings)
    write_report(report, found, scans, stamps, reference, photos, short, settings)
    if short:
        scans_left = f"{out / '.prepare'} keeps everybody's faces from the footage, so that the next try starts there"
        raise UserError(f"{short} What became of every frame: {report / 'report.md'}. {scans_left}")
    _put_in_place(building, out, settings)
    if keep_scans:
        say(f"{out / '.prepare'} keeps pictures and embeddings of everybody in the footage; remove it in the end")
    else:
        _remove_scans(out / ".prepare", found, settings)
    return Prepared(photos=out / settings.identity, report=report / "report.md", stamps=stamps)


# --- looking at the frames ---------------------------------------------------------------------------------------


class _Tools:
    """The networks, opened when they are first needed."""

    def __init__(self, detector: str):
        self._name = detector
        parse_detector(detector)  # an unknown name is said before any work

    @cached_property
    def detector(self) -> FaceDetector:
        return open_detector(self._name)

    @cached_property
    def embedder(self) -> IdentityEmbedder:
        return IdentityEmbedder()

    def embed(self, image: np.ndarray, face: Face) -> np.ndarray:
        """Unit identity embedding float32 ``[512]`` of one face."""
        return self.embedder(to_unit_range(portrait(image, face)[None]))[0].numpy()


def scan(
    occasion: Occasion, settings: PrepareSettings, tools: _Tools, say: Callable[[str], None] = lambda line: None
) -> Scan:
    """Find and measure every face of every sampled frame.

    Raises:
        UserError: a file is unreadable, and not ``allow_fewer``.
    """
    unreadable: list[str] = []

    def leave(error: UserError) -> None:
        unreadable.append(str(error))
        say(f"left out: {error}")

    said = time.monotonic()
    frames: list[tuple[str, int, float, np.ndarray]] = []
    faces: list[tuple[Any, ...]] = []
    for position, frame in enumerate(occasion.frames(settings.sampling, leave if settings.allow_fewer else None)):
        if time.monotonic() - said > _SAY_EVERY_S:
            said = time.monotonic()
            say(f"{occasion.label}: {position} frames so far, {len(faces)} faces, at {frame.label}")
        frames.append((frame.label, frame.index, frame.seconds, _thumbnail(frame.image)))
        for face in tools.detector.faces(frame.image):
            if not _plausible(face):
                continue
            transform = TRANSFORMS[settings.aligned](face.landmarks, settings.size)
            measures = measure(frame.image, face, transform, settings.size, tools.detector)
            embedding = tools.embed(frame.image, face)
            picture = look(frame.image, face)
            faces.append((position, face.landmarks, face.score, measures.values(), embedding, picture))
    labels, numbers, seconds, thumbnails = zip(*frames, strict=True) if frames else ((),) * 4
    columns = list(zip(*faces, strict=True)) or [()] * 6
    return Scan(
        labels=np.array(labels, str),
        numbers=np.array(numbers, int),
        seconds=np.array(seconds, float),
        thumbnails=np.array(thumbnails, np.uint8).reshape(-1, LOOK_SIZE, LOOK_SIZE, 3),
        unreadable=np.array(unreadable, str),
        frame=np.array(columns[0], int),
        landmarks=np.array(columns[1], float).reshape(-1, 68, 2),
        scores=np.array(columns[2], float),
        measures=np.array(columns[3], float).reshape(-1, len(fields(Measures))),
        embeddings=np.array(columns[4], np.float32).reshape(-1, 512),
        looks=np.array(columns[5], np.uint8).reshape(-1, LOOK_SIZE, LOOK_SIZE, 3),
    )


def _plausible(face: Face) -> bool:
    """Whether the landmarks span anything: a box at the frame's border can shrink to a line."""
    points = face.points
    return bool(
        np.linalg.norm(points[1] - points[0]) > 2 and np.linalg.norm(points[3:].mean(0) - points[:2].mean(0)) > 2
    )


def _thumbnail(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((LOOK_SIZE, LOOK_SIZE), Image.Resampling.BOX))


def _scan_once(
    occasion: Occasion, folder: Path, settings: PrepareSettings, tools: _Tools, say: Callable[[str], None]
) -> Scan:
    """Read the finished scan of the same files under the same settings, or make it."""
    path = folder / f"scan-{_scan_key(occasion, settings)}.npz"
    try:
        found = stored_scan(path)
        if len(found.unreadable) and not settings.allow_fewer:
            raise UserError(f"{found.unreadable[0]}; --allow-fewer leaves it out")
        say(f"{occasion.label}: {len(found.labels)} frames were looked at before")
        return found
    except (OSError, ValueError):
        pass  # not there yet, or damaged
    found = scan(occasion, settings, tools, say)
    content = io.BytesIO()
    np.savez(content, **{field.name: getattr(found, field.name) for field in fields(Scan)})
    write_atomically(path, content.getvalue())
    say(f"{occasion.label}: {len(found.labels)} frames, {len(found.frame)} faces")
    return found


def _remove_scans(folder: Path, found: Found, settings: PrepareSettings) -> None:
    """Remove what this run was told by; scans of other runs, which may have been stopped, stay."""
    for occasion in found.occasions:
        (folder / f"scan-{_scan_key(occasion, settings)}.npz").unlink(missing_ok=True)


def stored_scan(path: Path) -> Scan:
    """A scan that an earlier run stored.

    Raises:
        OSError: there is none.
        ValueError: it is damaged, or no scan.
    """
    if not path.is_file():
        raise FileNotFoundError(path)
    try:
        with zipfile.ZipFile(path) as archive:
            # np.savez does not compress; a few bytes that unpack to gigabytes are no scan
            entries = archive.infolist()
            if any(entry.compress_type for entry in entries) or sum(entry.file_size for entry in entries) > (
                path.stat().st_size
            ):
                raise ValueError("it is compressed, or its entries overlap")
        with np.load(path) as stored:
            found = Scan(**{field.name: stored[field.name] for field in fields(Scan)})
    except (KeyError, EOFError, SyntaxError, TypeError, NotImplementedError, RuntimeError, zipfile.BadZipFile) as error:
        raise ValueError(f"it is damaged ({type(error).__name__})") from error
    frames, faces, side = found.labels.shape, found.frame.shape, LOOK_SIZE
    shapes = {
        "numbers": frames,
        "seconds": frames,
        "thumbnails": (*frames, side, side, 3),
        "landmarks": (*faces, 68, 2),
        "scores": faces,
        "measures": (*faces, len(fields(Measures))),
        "looks": (*faces, side, side, 3),
    }
    if (
        any(getattr(found, name).shape != shape for name, shape in shapes.items())
        or found.embeddings.shape[:1] != faces
        or found.unreadable.ndim != 1
        or (len(found.frame) and not 0 <= found.frame.min() <= found.frame.max() < len(found.labels))
    ):
        raise ValueError("its arrays do not fit each other")
    return found


def _scan_key(occasion: Occasion, settings: PrepareSettings) -> str:
    """Hash of everything a scan depends on; limits are not among it, so that other limits cost no new scan."""
    networks = {name: entry["sha256"] for name, entry in asset_manifest().items() if name.startswith("face_")}
    everything = [
        PREPARE_VERSION,
        [(path.name, sha256_file(path)) for path in occasion.files],
        asdict(settings.sampling),
        [detector_key(settings.detector), settings.aligned, settings.size],
        networks,
    ]
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()[:20]


# --- who it is ---------------------------------------------------------------------------------------------------


def reference_of(photos: Sequence[Path], tools: _Tools) -> Reference | None:
    """The person on the reference photos (mean of their embeddings), or None without photos.

    Raises:
        UserError: a photo is unreadable or shows no face or several, or two photos show different people.
    """
    if not photos:
        return None
    rows = []
    for path in photos:
        image = read_photo(path)
        faces = tools.detector.faces(image)
        if len(faces) != 1:
            raise UserError(
                f"reference photo {str(path)!r} shows {len(faces) or 'no'} face{'s' if len(faces) > 1 else ''}; "
                "expected exactly one. Crop it to the person, or give another photo"
            )
        rows.append(tools.embed(image, faces[0]))
    vectors = np.stack(rows)
    cosines = vectors @ vectors.T
    least = FilterSettings().min_cosine
    if cosines.min() < least:
        one, other = (photos[int(place)].name for place in np.unravel_index(cosines.argmin(), cosines.shape))
        raise UserError(
            f"reference photos {one} and {other} seem to show different people (cosine {cosines.min():.2f}, expected "
            f"at least {least}); give photos of one person"
        )
    return Reference(embedding=_unit(vectors.mean(0)), said=f"{len(photos)} reference photo(s)")


def most_seen(scans: Sequence[Scan], settings: PrepareSettings) -> Reference | None:
    """The person seen on most occasions, then in most frames: the medoid of the largest cluster of good faces.

    Two faces are of one cluster if a chain of cosines of at least 0.5 joins them. None if there is no good face.
    """
    good = [
        (number, row)
        for number, scan in enumerate(scans)
        for row in range(len(scan.frame))
        if drop_reason(scan.face(row), settings.limits, settings.size) is None
    ]
    if not good:
        return None
    vectors = np.stack([scans[number].embeddings[row] for number, row in good])
    cosines = vectors @ vectors.T
    count, labels = connected_components(cosines >= _SAME_PERSON, directed=False)
    occasions = np.array([number for number, _ in good])
    sizes = [(len(np.unique(occasions[labels == one])), int((labels == one).sum()), -one) for one in range(count)]
    members = np.flatnonzero(labels == -max(sizes)[2])
    medoid = members[cosines[np.ix_(members, members)].mean(1).argmax()]
    number, row = good[medoid]
    others = f"; {count - 1} other group(s) of faces are left out" if count > 1 else ""
    return Reference(
        embedding=vectors[medoid],
        said=f"no reference photo was given: the face seen most, {scans[number].labels[scans[number].frame[row]]} of "
        f"occasion {number} (the medoid of {len(members)} of {len(good)} good faces{others})",
    )


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


# --- what is kept ------------------------------------------------------------------------------------------------


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

    Runs of one video keep the gap that training and test photos keep: what is trained at one timestamp must not be the
    moment that is tested at another.
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


def choose(stamp: Stamp, scans: Sequence[Scan], settings: PrepareSettings) -> Stamp:
    """Decide the good frames of a timestamp: training photo, test photo, or why not (``selection.split``)."""
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
    """What becomes of each good frame, and beside which chosen one it has no place."""
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


def _usable(stamps: tuple[Stamp, ...], settings: PrepareSettings) -> tuple[tuple[Stamp, ...], str]:
    """The timestamps, numbered anew where some are left out, and what to tell the user if they do not do."""
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
        f"{'; '.join(f'{stamp.name} ({stamp.source}): {_held(stamp)}' for stamp in stamps)}. {_advice(few)}{more}"
    )


def _least(settings: PrepareSettings) -> int:
    return LEAST_TRAIN + LEAST_TEST if settings.allow_fewer else settings.train + settings.test


def _held(stamp: Stamp) -> str:
    """What a timestamp has, and where the rest of its frames went."""
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
    """By what most of the timestamps that have too few photos lost."""
    lost = Counter(v.decision for stamp in few for v in stamp.verdicts if v.decision in _ADVICE)
    frames = sum(len(stamp.verdicts) for stamp in few)
    reason, count = lost.most_common(1)[0] if lost else ("", 0)
    return _ADVICE[reason] if 2 * count > frames else _FEW


# --- writing -----------------------------------------------------------------------------------------------------


def write_photos(
    folder: Path,
    found: Found,
    scans: Sequence[Scan],
    stamps: Sequence[Stamp],
    reference: Reference | None,
    settings: PrepareSettings,
) -> dict[str, Path]:
    """Align the chosen frames into ``folder`` and describe them in its ``prepared.json``; ``t00/3`` -> photo file."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    paths, described = {}, {}
    for number, occasion in enumerate(found.occasions):
        chosen = {
            int(scans[number].numbers[verdict.position]): (stamp, verdict)
            for stamp in stamps
            for verdict in stamp.decided(TRAIN, TEST)
            if verdict.occasion == number and not stamp.left_out
        }
        for frame in _frames(occasion, chosen.keys(), settings):
            stamp, verdict = chosen.pop(frame.index)
            path = folder / stamp.name / verdict.decision / f"{frame.index:06d}.png"
            png = _png(frame.image, scans[number].landmarks[verdict.row], settings)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png)
            paths[f"{stamp.name}/{verdict.position}"] = path
            described[path.relative_to(folder).as_posix()] = {
                "sha256": hashlib.sha256(png).hexdigest(),
                "source": f"{occasion.label}, {frame.label}"
                if occasion.is_video()
                else f"{occasion.label}/{frame.label}",
                "identity_cosine": round(verdict.cosine, 4),
            }
        if chosen:
            raise UserError(f"{occasion.label} was changed while it was prepared; run prepare again")
    record = _record(settings) | {
        "identity": settings.identity,
        "reference": reference.said if reference else None,
        "settings": asdict(replace(settings, alignment=settings.aligned)),
        "timestamps": {stamp.name: stamp.source for stamp in stamps if not stamp.left_out},
        "photos": dict(sorted(described.items())),
    }
    write_atomically(folder / "prepared.json", (json.dumps(record, indent=1) + "\n").encode())
    return paths


def _frames(occasion: Occasion, wanted: Any, settings: PrepareSettings) -> list[Frame] | Any:
    """What is unreadable was said when the frames were looked at; none of it was chosen."""
    leave = (lambda error: None) if settings.allow_fewer else None
    frames = occasion.frames(settings.sampling, leave)
    return (frame for frame in frames if frame.index in wanted) if wanted else ()


def _png(image: np.ndarray, landmarks: np.ndarray, settings: PrepareSettings) -> bytes:
    transform = TRANSFORMS[settings.aligned](landmarks, settings.size)
    buffer = io.BytesIO()
    Image.fromarray(aligned_photo(image, transform, settings.size)).save(buffer, "PNG")
    return buffer.getvalue()


def _record(settings: PrepareSettings) -> dict[str, Any]:
    return {"prepare_version": PREPARE_VERSION, "alignment": settings.aligned, "size": settings.size}


def write_report(
    folder: Path,
    found: Found,
    scans: Sequence[Scan],
    stamps: Sequence[Stamp],
    reference: Reference | None,
    photos: dict[str, Path],
    short: str,
    settings: PrepareSettings,
) -> None:
    """Write ``report.md``, ``frames.csv`` and one contact sheet per timestamp."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in (*folder.glob("t*.png"), *folder.glob("left-out-*.png")):
        old.unlink()
    write_atomically(folder / "report.md", report_text(found, scans, stamps, reference, short, settings).encode())
    write_atomically(folder / "frames.csv", _frames_table(scans, stamps).encode())
    for stamp in stamps:
        write_atomically(folder / f"{stamp.name}.png", _sheet(scans, stamp, photos, settings))


def report_text(
    found: Found,
    scans: Sequence[Scan],
    stamps: Sequence[Stamp],
    reference: Reference | None,
    short: str,
    settings: PrepareSettings,
) -> str:
    """The report in Markdown."""
    reasons = Counter(verdict.decision for stamp in stamps for verdict in stamp.verdicts)
    dropped = sorted(reasons.keys() - {TRAIN, TEST, SPARE}, key=lambda reason: (-reasons[reason], reason))
    lines = [
        f"# {settings.identity}: {settings.size} px, alignment `{settings.aligned}`",
        "",
        *([f"**Not made:** {short}", ""] if short else []),
        f"- Who: {reference.said if reference else 'nobody: no face passed the filters'}.",
        f"- Detector: {detector_title(settings.detector)}. Order of the occasions: {found.order}.",
    ]
    if settings.segments is not None:
        lines.append(
            f"- **Stand-ins**: {settings.segments} contiguous runs of one video stand in for timestamps, cut so "
            "that each has equally many good frames. They were taken within one recording: light, clothes and age do "
            "not change."
        )
    if found.ignored:
        lines.append(f"- Not looked at: {', '.join(found.ignored)}.")
    lines += [f"- Left out: {said}" for scan in scans for said in scan.unreadable]
    header = ["timestamp", "from", "frames", "train", "test", "made up", "least gap", "difference", "cosine min"]
    header += ["median", SPARE, *dropped]
    rows = []
    for stamp in stamps:
        counts = Counter(verdict.decision for verdict in stamp.verdicts)
        cosines = [verdict.cosine for verdict in stamp.decided(TRAIN, TEST)]
        lowest, middle = (f"{np.min(cosines):.3f}", f"{np.median(cosines):.3f}") if cosines else ("", "")
        numbers = [str(counts[reason]) for reason in (SPARE, *dropped)]
        train, test = stamp.counts()
        nearest = [
            "" if math.isnan(value) else f"{value:{form}}"
            for value, form in zip(stamp.nearest, (".2f", ".4f"), strict=True)
        ]
        about = [stamp.name, stamp.source, str(len(stamp.verdicts)), str(train), str(test), _made_up(stamp, scans)]
        rows.append([*about, *nearest, lowest, middle, *numbers])
    lines += ["", *_table(header, rows), ""]
    lines += [
        "Made up: the share of a photo that lies outside its frame (median): mirrored and blurred. Least gap (seconds) "
        "and difference (LPIPS of the faces): between a training and a test photo.",
        "",
    ]
    lines += [f"- {stamp.name}: {stamp.lacking}." for stamp in stamps if stamp.lacking]
    lines += ["", "Every frame with its measures is in `frames.csv`. Limits:", ""]
    lines += [f"- {name} = {value}" for name, value in (asdict(settings.limits) | asdict(settings.apart)).items()]
    return markdown(lines) + "\n"


def _made_up(stamp: Stamp, scans: Sequence[Scan]) -> str:
    shares = [scans[v.occasion].face(v.row).outside for v in stamp.decided(TRAIN, TEST) if v.row is not None]
    return f"{np.median(shares):.0%}" if shares else ""


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    shown = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return ["| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *shown)]


def _frames_table(scans: Sequence[Scan], stamps: Sequence[Stamp]) -> str:
    buffer = io.StringIO()
    table = csv.writer(buffer, lineterminator="\n")
    names = [field.name for field in fields(Measures)]
    table.writerow(["timestamp", "occasion", "frame", "decision", "detail", "cosine", "detector score", *names])
    for stamp in stamps:
        for verdict in stamp.verdicts:
            scan = scans[verdict.occasion]
            numbers = [""] * (len(names) + 2)
            if verdict.row is not None:
                found = [verdict.cosine, scan.scores[verdict.row], *scan.measures[verdict.row]]
                numbers = [f"{value:.4f}" for value in found]
            label, detail = csv_cell(str(scan.labels[verdict.position])), csv_cell(verdict.detail)
            table.writerow([stamp.name, verdict.occasion, label, verdict.decision, detail, *numbers])
    return buffer.getvalue()


def _sheet(scans: Sequence[Scan], stamp: Stamp, photos: dict[str, Path], settings: PrepareSettings) -> bytes:
    def tile(verdict: Verdict) -> tuple[np.ndarray, list[str]]:
        scan = scans[verdict.occasion]
        label = str(scan.labels[verdict.position]).split(" (")[0][-16:]
        path = photos.get(f"{stamp.name}/{verdict.position}")
        if path is not None:
            return read_photo(path), [label, f"cosine {verdict.cosine:.2f}"]
        if verdict.row is None:
            return scan.thumbnails[verdict.position], [label, verdict.decision]
        return scan.looks[verdict.row], [label, verdict.decision]

    strips = [
        Strip(title=f"{split}: {len(stamp.decided(split))}", tiles=[tile(v) for v in stamp.decided(split)])
        for split in (TRAIN, TEST)
    ]
    others = {SPARE: stamp.decided(SPARE)}
    others["dropped"] = [v for v in stamp.verdicts if v.decision not in (TRAIN, TEST, SPARE)]
    for title, verdicts in others.items():
        shown = evenly(len(verdicts), _SHOWN)
        part = f" ({len(shown)} of them shown)" if len(shown) < len(verdicts) else ""
        strips.append(Strip(title=f"{title}: {len(verdicts)}{part}", tiles=[tile(verdicts[place]) for place in shown]))
    return contact_sheet(f"{settings.identity}, {stamp.name}: {stamp.source}", strips)


def _put_in_place(building: Path, out: Path, settings: PrepareSettings) -> None:
    """Swap the finished photos in; a stop between the two renames is mended by :func:`_mend`."""
    target, replaced = out / settings.identity, _replaced(out, settings.identity)
    _require_one_kind(out, settings)  # somebody else may have been prepared meanwhile
    shutil.rmtree(replaced, ignore_errors=True)
    if target.exists():
        target.rename(replaced)
    building.rename(target)
    shutil.rmtree(replaced, ignore_errors=True)
    write_atomically(out / "prepared.json", (json.dumps(_record(settings), indent=1) + "\n").encode())


def _replaced(out: Path, identity: str) -> Path:
    return out / ".prepare" / f"replaced-{identity}"


@contextmanager
def _only_one(out: Path, identity: str) -> Iterator[None]:
    """Hold a person's place for as long as the block runs: of two runs for one person the second is told."""
    scans = out / ".prepare"

    def busy(card: Mapping[str, Any]) -> UserError:
        return UserError(
            f"another process prepares {identity!r} in {str(out)!r} ({holder(card)}); wait until it ends, stop it, or "
            "give another --identity or output folder"
        )

    try:
        with file_lock(scans / f"{identity}.lock", busy, remove=True):
            _mend(out, identity)
            yield
    finally:
        with suppress(OSError):  # scans are in it, or somebody else is at work
            scans.rmdir()


def _mend(out: Path, identity: str) -> None:
    """Put the photos back that a run was about to replace when it was killed."""
    if _replaced(out, identity).exists() and not (out / identity).exists():
        _replaced(out, identity).rename(out / identity)


# --- checks ------------------------------------------------------------------------------------------------------


def _require_place(source: Path, out: Path, report: Path, settings: PrepareSettings) -> None:
    inside = source.resolve() if source.is_dir() else source.resolve().parent
    for folder in (out.resolve(), report.resolve()):
        if folder == inside or (source.is_dir() and (inside in folder.parents or folder in inside.parents)):
            raise UserError(
                f"output folder {str(out)!r} and source {str(source)!r} lie inside each other; the source is never "
                "written to. Give an output folder elsewhere"
            )
    target = out / settings.identity
    if target.exists() and not (target / "prepared.json").is_file():
        raise UserError(
            f"{str(target)!r} exists and was not made by prepare; it is left alone. Choose another --identity or "
            "output folder"
        )
    _require_one_kind(out, settings)


def _require_one_kind(out: Path, settings: PrepareSettings) -> None:
    """All people of a folder have one size and alignment."""
    target = out / settings.identity
    try:
        there = read_json(out / "prepared.json")
    except (OSError, ValueError):
        return
    if not isinstance(there, dict):
        return
    differing = {
        name: (there.get(name), wanted)
        for name, wanted in (("alignment", settings.aligned), ("size", settings.size))
        if there.get(name) != wanted
    }
    others = [entry.name for entry in out.iterdir() if (entry / "prepared.json").is_file() and entry != target]
    if differing and others:
        said = ", ".join(f"{name} {have}, wanted {wanted}" for name, (have, wanted) in differing.items())
        raise UserError(
            f"output folder {str(out)!r} holds photos prepared otherwise ({said}: {', '.join(sorted(others))}); a data "
            "set has one size and alignment. Give another output folder"
        )


def _require_segments(found: Found, settings: PrepareSettings) -> None:
    if settings.segments is None:
        return
    if len(found.occasions) != 1 or not found.occasions[0].is_video():
        raise UserError(
            f"--segments {settings.segments} with {len(found.occasions)} occasions; segments of one video stand in for "
            "timestamps, so give one video"
        )
