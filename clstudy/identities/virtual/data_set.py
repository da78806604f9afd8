"""The ``virtual`` data sets: frames of occasions of virtual people, each with its truth in a sidecar.

Training photos and, under even numbers, test photos show modes as often as the walk does; test photos under odd numbers
are balanced over modes and marked by the condition ``balanced``. No network judges or chooses anything.

The same settings give the same bytes on every machine. That rests on: arithmetic whose rounding IEEE 754 fixes
(``exact``), numpy's PCG64 with ``random`` and ``integers``, PNG files without compression (``stored_png``), and
Python's shortest decimal form of a float.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from clstudy.errors import UserError
from clstudy.identities.dataset import Photo
from clstudy.identities.virtual.occasions import Frame, Occasion
from clstudy.identities.virtual.person import draw_virtual_person
from clstudy.identities.virtual.photo import LARGEST, SMALLEST, Photograph, Sitter, photograph
from clstudy.identities.virtual.presets import PRESETS, Preset
from clstudy.identities.virtual.stored_png import stored_png
from clstudy.settings.metric_facts import BALANCED_PHOTO

GENERATOR_VERSION = 1
"""Increased by hand whenever the photos of given settings change."""

MOST = 1000
"""Largest number of timestamps, and of photos of a kind per timestamp: names have three digits."""

_PIXEL_PLACES, _CAMERA_PLACES, _PLACES = 3, 9, 6


@dataclass(frozen=True, kw_only=True)
class VirtualSettings:
    """What the photos depend on, besides the packaged heads and skins.

    Attributes:
        people: how many, counted from the first.
        timestamps: occasions of each.
        train: training photos of each occasion.
        test: test photos of each, half of them balanced over modes (of an odd number the smaller half).
        data_seed: which people.
        image_size: side of a photo in pixels, even, 64 to 256.
        preset: a name in ``presets.PRESETS``.

    Raises:
        UserError: a number is outside its range, or the preset is unknown.
    """

    people: int
    timestamps: int
    train: int
    test: int
    data_seed: int
    image_size: int
    preset: str

    def __post_init__(self) -> None:
        if self.people < 1:
            raise UserError(f"virtual data set: people = {self.people}; expected at least 1")
        for name in ("timestamps", "train", "test"):
            value = getattr(self, name)
            if not 1 <= value <= MOST:
                raise UserError(f"virtual data set: {name} = {value}; expected 1 to {MOST}")
        if not (SMALLEST <= self.image_size <= LARGEST and self.image_size % 2 == 0):
            raise UserError(
                f"virtual data set: photos of {self.image_size} px; expected an even number from {SMALLEST} to "
                f"{LARGEST}. Use a profile whose photos are of such a size, or give a folder of photos"
            )
        PRESETS[self.preset]  # refuses an unknown one

    @property
    def numbers(self) -> Preset:
        """The preset itself."""
        return PRESETS[self.preset]


def make_virtual(root: Path, settings: VirtualSettings) -> None:
    """Write ``root/person_00/t000/{train,test}/000.png`` with ``000.json`` beside it …, and ``root/manifest.json``.

    The manifest holds the settings and the preset's numbers, each photo's sha256 and digest, per timestamp what its
    frames share, and the totals.

    Raises:
        UserError: a person would be too old at some timestamp.
    """
    photos: dict[str, dict[str, str]] = {}
    stamps: dict[str, Any] = {}
    modes: Counter[str] = Counter()
    for index in range(settings.people):
        sitter, occasion = Sitter(draw_virtual_person(settings.data_seed, index)), None
        for t in range(settings.timestamps):
            occasion = Occasion(sitter.person, settings.numbers, settings.data_seed, t, before=occasion)
            folder = _folder(index, t)
            stamps[folder] = {"age": occasion.age, **asdict(occasion.setting)}
            for name, frame in _chosen(occasion, settings):
                taken = sitter.photograph(frame.moment, settings.image_size)
                path = root / folder / f"{name}.png"
                photos[f"{folder}/{name}.png"] = _written(path, taken, truth(taken, frame))
                modes[f"{name.split('/')[0]}, mode {frame.mode}"] += 1
    totals = {"photos": len(photos), "of_modes": dict(sorted(modes.items()))}
    _write_manifest(root, "virtual", settings, {"totals": totals, "timestamps": stamps}, photos)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A data set of the same people in which more is known of a photo than in ``virtual``.

    Attributes:
        name: of the data set.
        version: its own, under the name that keys and manifest give it; beside ``GENERATOR_VERSION``.
        check: raises a UserError for settings that it does not have.
        photographed: person's number, settings -> each photo: place without suffix, below the person's folder; its
            frame; the photo; conditions beyond ``truth``, of which the landmarks are left out to make room.
        facts: settings -> what else the manifest says.
    """

    name: str
    version: Mapping[str, int]
    check: Callable[[VirtualSettings], None]
    photographed: Callable[[int, VirtualSettings], Iterator[tuple[str, Frame, Photograph, Mapping[str, Any]]]]
    facts: Callable[[VirtualSettings], Mapping[str, Any]] = field(default=lambda settings: {})


def make_variant(root: Path, settings: VirtualSettings, variant: Variant) -> None:
    """Write the folder of a variant, laid out as by ``make_virtual``.

    Raises:
        UserError: settings that it does not have; or a person would be too old at some timestamp.
    """
    variant.check(settings)
    photos = {}
    for index in range(settings.people):
        for place, frame, taken, more in variant.photographed(index, settings):
            known = truth(taken, frame)
            del known["landmarks"]
            name = f"{person_name(index)}/{place}.png"
            photos[name] = _written(root / name, taken, {**known, **more})
    _write_manifest(root, variant.name, settings, {**variant.version, **variant.facts(settings)}, photos)


def _write_manifest(
    root: Path, data_set: str, settings: VirtualSettings, facts: Mapping[str, Any], photos: Mapping[str, Any]
) -> None:
    """Write ``root/manifest.json``."""
    manifest = {
        "data_set": data_set,
        "generator_version": GENERATOR_VERSION,
        "settings": asdict(settings),
        "preset": asdict(settings.numbers),
        **facts,
        "photos": photos,
    }
    (root / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


def taken_again(settings: VirtualSettings, name: str) -> Photograph:
    """A photo of a data set with what is not stored of it: depth and mask.

    Args:
        settings: of the data set, as its manifest has them.
        name: of the photo, as in the manifest: ``person_00/t000/train/000.png``.

    Raises:
        UserError: the data set has no such photo.
    """
    for index in range(settings.people):
        for t in range(settings.timestamps):
            folder = _folder(index, t)
            if not name.startswith(f"{folder}/"):
                continue
            person = draw_virtual_person(settings.data_seed, index)
            frames = dict(_chosen(Occasion(person, settings.numbers, settings.data_seed, t), settings))
            frame = frames.get(name.removeprefix(f"{folder}/").removesuffix(".png"))
            if frame is not None:
                return photograph(person, frame.moment, settings.image_size)
    raise UserError(
        f"photo {name!r} is not in this virtual data set; expected a name of its manifest, such as "
        f"{_folder(0, 0)}/train/000.png"
    )


def _folder(index: int, timestamp: int) -> str:
    return f"{person_name(index)}/t{timestamp:03d}"


def person_name(index: int) -> str:
    """Folder of a person."""
    return f"person_{index:02d}"


def truth(taken: Photograph, frame: Frame) -> dict[str, float | list[float]]:
    """What is true of a photo, as its sidecar has it.

    ``camera`` (25 numbers), ``landmarks`` (68 times x and y in pixels), ``age`` in years, ``expression`` (weights in
    the order of ``Expression``), ``gaze``, ``pose`` (yaw, pitch, roll, zoom, shift right and down), ``light`` (azimuth,
    elevation, colour, ambient share, ambient colour, strength), ``mode``, and ``balanced`` (0 or 1).
    """
    moment = frame.moment
    pose, light = moment.pose, moment.light
    return {
        "camera": _rounded(taken.camera.tolist(), _CAMERA_PLACES),
        "landmarks": _rounded(taken.landmarks.ravel().tolist(), _PIXEL_PLACES),
        "age": round(taken.age, _PLACES),
        "expression": _rounded(list(moment.expression.weights().values()), _PLACES),
        "gaze": _rounded(list(moment.gaze), _PLACES),
        "pose": _rounded([pose.yaw, pose.pitch, pose.roll, pose.zoom, *pose.shift], _PLACES),
        "light": _rounded(
            [light.azimuth, light.elevation, *light.colour, light.ambient, *light.ambient_colour, light.strength],
            _PLACES,
        ),
        "mode": frame.mode,
        BALANCED_PHOTO: int(frame.number is None),
    }


def _chosen(occasion: Occasion, settings: VirtualSettings) -> Iterator[tuple[str, Frame]]:
    """Place of each photo in the occasion's folder, without suffix, and its frame."""
    for number, frame in enumerate(occasion.train(settings.train)):
        yield f"train/{number:03d}", frame
    for turn, frame in enumerate(occasion.test((settings.test + 1) // 2)):
        yield f"test/{2 * turn:03d}", frame
    for turn, frame in enumerate(occasion.balanced(settings.test // 2)):
        yield f"test/{2 * turn + 1:03d}", frame


def _written(path: Path, taken: Photograph, conditions: Mapping[str, float | list[float]]) -> dict[str, str]:
    """Write a photo and its sidecar; the photo's entry in the manifest."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = stored_png(taken.image)
    path.write_bytes(content)
    path.with_suffix(".json").write_text(json.dumps(conditions) + "\n")
    numbers = {name: tuple(value) if isinstance(value, list) else (value,) for name, value in conditions.items()}
    photo = Photo(path, hashlib.sha256(content).hexdigest(), numbers)
    return {"sha256": photo.file_digest, "digest": photo.digest}


def _rounded(values: list[float], places: int) -> list[float]:
    return [round(value, places) for value in values]
