"""Reads videos and dated photos as occasions: the contents of a source folder, their order, and their frames.

Nothing is ever written into the source. Videos are read with PyAV (the extra ``clstudy[video]``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image, ImageOps

from clstudy.errors import UserError, nearest
from clstudy.images import PHOTO_FORMATS, opened_picture, require_heif
from clstudy.storage.documents import DocumentError, read_text

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v"})
HEIF_SUFFIXES = frozenset({".heic", ".heif", ".hif"})
PHOTO_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".tif", ".tiff"}) | HEIF_SUFFIXES
SOURCE_FORMATS = (*PHOTO_FORMATS, "WEBP", "TIFF")
"""Pillow's names of the formats that source photos may have; ``HEIF`` is added for files named so."""

# A playlist named clip.mp4 must not make ffmpeg read other files or addresses: only containers, only this file.
_CONTAINERS = {"format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi", "protocol_whitelist": "file"}

_DATE = re.compile(r"(?<!\d)((?:19|20)\d\d)[-_.]?(\d\d)[-_.]?(\d\d)(?!\d)")
_EXIF_BLOCK = 0x8769
_TAKEN = 36867
_CHANGED = 306


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Which frames of a video are sampled: one every so many seconds, or at most so many, evenly spread."""

    every: float | None = None
    frames: int = 300


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One picture."""

    index: int
    """Its number in the video, or among the photos."""
    label: str
    seconds: float
    """Since the video's first frame, or since midnight of the day on which a photo was taken (EXIF); NaN if unknown."""
    image: np.ndarray
    """uint8 RGB ``[h, w, 3]``."""


@dataclass(frozen=True, kw_only=True)
class Occasion:
    """The source of one timestamp: one video, or the photos of one day."""

    label: str
    files: tuple[Path, ...]

    def is_video(self) -> bool:
        """Whether the occasion is a video."""
        return self.files[0].suffix.lower() in VIDEO_SUFFIXES

    def frames(self, sampling: Sampling, unreadable: Callable[[UserError], None] | None = None) -> Iterator[Frame]:
        """Read the sampled frames of a video, or all photos.

        Args:
            unreadable: called for each file that cannot be read to its end, which is then skipped (None: it raises).

        Raises:
            UserError: a file is unreadable, or PyAV is not installed.
        """
        if self.is_video():
            _pyav()
        for index, path in enumerate(self.files):
            try:
                if self.is_video():
                    yield from video_frames(path, sampling)
                else:
                    pixels, taken = _read(path)
                    yield Frame(index=index, label=path.name, seconds=_second_of_day(taken), image=pixels)
            except UserError as error:
                if unreadable is None:
                    raise
                unreadable(error)


FILE_DATES = "the files' dates"
_NAMED = 5
_LARGEST_MANIFEST = 10_000_000  # bytes


@dataclass(frozen=True, kw_only=True)
class Found:
    """The occasions of a source in time order, how the order was determined, and files that were left out."""

    occasions: tuple[Occasion, ...]
    order: str
    ignored: tuple[str, ...]


# --- finding sources ---------------------------------------------------------------------------------------------


def find_occasions(source: Path, manifest: Path | None = None) -> Found:
    """List the occasions of a source, earliest first.

    A source is one video; a folder of videos (ordered by the dates in their names, otherwise by the recording times
    they carry, otherwise by their files' dates); or a folder of photos: folders named ``YYYY-MM-DD…``, photos whose
    EXIF data or names give the day, or, where there is neither, folders named by year or month (``2019``, ``2019-05``)
    or by number (``t00``, ``session 2``). A manifest decides instead: one video or folder of photos per line, earliest
    first (``#`` starts a comment).

    Raises:
        UserError: nothing usable, videos and photos together, a photo without a date, two videos of the same time, a
            manifest that names something that does not exist, or HEIC photos without the package that reads them.
    """
    found = _find(source, manifest)
    if any(path.suffix.lower() in HEIF_SUFFIXES for occasion in found.occasions for path in occasion.files):
        require_heif()
    return found


def _find(source: Path, manifest: Path | None) -> Found:
    if not source.exists():
        raise UserError(
            f"source {str(source)!r} does not exist; expected a video, or a folder of videos or dated photos"
        )
    if source.is_file():
        if source.suffix.lower() not in VIDEO_SUFFIXES:
            raise UserError(
                f"source {str(source)!r} is not a video ({', '.join(sorted(VIDEO_SUFFIXES))}); give a video, or the "
                "folder that holds the photos"
            )
        return Found(occasions=(Occasion(label=source.name, files=(source,)),), order="the only video", ignored=())
    if manifest is not None:
        return _from_manifest(source, manifest)
    videos, photos = _files(source, VIDEO_SUFFIXES), _files(source, PHOTO_SUFFIXES)
    groups = [folder for folder in _folders(source) if _files(folder, PHOTO_SUFFIXES)]
    days = [folder for folder in groups if _day_in(folder.name)]
    if not (videos or photos or days) and groups:
        days = groups
    if videos and (photos or days):
        raise UserError(
            f"source {str(source)!r} holds videos ({videos[0].name}, …) and photos ({(photos or days)[0].name}, …); "
            "put them into separate folders, or select with --manifest what to use"
        )
    others = tuple(
        entry.name for entry in _entries(source) if entry not in {*videos, *photos, *days} and not _is_plain(entry)
    ) + tuple(name for day in days for name in _left_out(day))
    if videos:
        occasions, order = _videos_in_order(videos)
    elif days and not _day_in(days[0].name):
        occasions, order = _groups(days)
    elif photos or days:
        occasions, order = _days(photos, days)
    else:
        raise UserError(
            f"source {str(source)!r} holds neither videos ({', '.join(sorted(VIDEO_SUFFIXES))}) nor dated photos; "
            "expected one video per occasion, folders of photos named YYYY-MM-DD, 2019 or t00, or photos with a date"
        )
    return Found(occasions=occasions, order=order, ignored=others)


def _from_manifest(source: Path, manifest: Path) -> Found:
    try:
        lines = read_text(manifest, _LARGEST_MANIFEST).splitlines()
    except (OSError, DocumentError) as error:
        raise UserError(f"manifest {str(manifest)!r} cannot be read ({error}); expected a text file") from error
    names = [name for name in (line.split("#", 1)[0].strip() for line in lines) if name]
    there = {entry.name: entry for entry in (*_folders(source), *_files(source, VIDEO_SUFFIXES))}
    problems = [
        f"{name!r} is not in {source.name}.{nearest(name, there)}" for name in dict.fromkeys(names) if name not in there
    ] + [f"{name!r} is named {names.count(name)} times" for name in dict.fromkeys(names) if names.count(name) > 1]
    if problems or not names:
        said = "; ".join(problems) or "it names nothing"
        raise UserError(
            f"manifest {str(manifest)!r}: {said}. Expected one video or photo folder of {str(source)!r} per line, "
            "earliest first"
        )
    occasions = tuple(_occasion(there[name]) for name in names)
    used = [there[name] for name in names]
    ignored = tuple(sorted(there.keys() - set(names))) + tuple(n for entry in used for n in _left_out(entry))
    return Found(occasions=occasions, order=f"the manifest {manifest.name}", ignored=ignored)


def _occasion(entry: Path) -> Occasion:
    files = tuple(_files(entry, PHOTO_SUFFIXES)) if entry.is_dir() else (entry,)
    if not files:
        raise UserError(f"folder {str(entry)!r} of the manifest holds no photo ({', '.join(sorted(PHOTO_SUFFIXES))})")
    return Occasion(label=entry.name, files=files)


def _videos_in_order(videos: list[Path]) -> tuple[tuple[Occasion, ...], str]:
    kinds: Mapping[str, Callable[[Path], date | datetime | None]] = {
        "the dates in the files' names": lambda path: _day_in(path.name),
        "the recording times inside the files": _recorded,
        FILE_DATES: lambda path: datetime.fromtimestamp(path.stat().st_mtime),
    }
    for order, when in kinds.items():
        times = {path: when(path) for path in videos}
        # the same kind of date for all: a mixture has no meaningful order
        if all(times.values()) and (len(set(times.values())) == len(videos) or order == list(kinds)[-1]):
            break
    by_time = sorted(videos, key=lambda path: (str(times[path]), path.name))
    for earlier, later in zip(by_time, by_time[1:], strict=False):
        if times[earlier] == times[later]:
            raise UserError(
                f"{earlier.name} and {later.name} have the same date ({times[later]}); their order is unknown. Write "
                "the names into a text file, one per line and earliest first, and give it as --manifest"
            )
    return tuple(Occasion(label=path.name, files=(path,)) for path in by_time), order


def _groups(folders: list[Path]) -> tuple[tuple[Occasion, ...], str]:
    """Order folders without a day in their names: all by year and month, or all by their last number."""
    for order, key in _GROUP_KEYS.items():
        keys = {folder: key(folder.name) for folder in folders}
        if None not in keys.values() and len(set(keys.values())) == len(folders):
            in_order = sorted(folders, key=lambda folder: keys[folder] or ())
            return tuple(_occasion(folder) for folder in in_order), order
    named = ", ".join(folder.name for folder in folders[:_NAMED])
    raise UserError(
        f"folders of photos whose order their names do not say ({named}); expected YYYY-MM-DD, years or months (2019, "
        "2019-05), or different numbers (t00, session 2). Rename them, or write the names into a text file, one per "
        "line and earliest first, and give it as --manifest"
    )


def _month_in(name: str) -> tuple[int, ...] | None:
    found = re.search(r"(?<!\d)((?:19|20)\d\d)(?:[-_.]?(0[1-9]|1[0-2]))?(?!\d)", name)
    return (int(found[1]), int(found[2] or 0)) if found else None


def _number_in(name: str) -> tuple[int, ...] | None:
    found = re.findall(r"\d+", name)
    return (int(found[-1]),) if found else None


_GROUP_KEYS: Mapping[str, Callable[[str], tuple[int, ...] | None]] = {
    "the years and months in the folders' names": _month_in,
    "the numbers in the folders' names": _number_in,
}


def _days(photos: list[Path], folders: list[Path]) -> tuple[tuple[Occasion, ...], str]:
    by_day: dict[tuple[str, str], list[Path]] = {}
    for folder in folders:
        by_day[str(_day_in(folder.name)), folder.name] = _files(folder, PHOTO_SUFFIXES)
    undated = []
    for path in photos:
        day = _taken(path) or _day_in(path.name)
        if day is None:
            undated.append(path.name)
        else:
            by_day.setdefault((str(day), str(day)), []).append(path)
    if undated:
        raise UserError(
            f"{len(undated)} photo(s) without a date in their EXIF data or name ({', '.join(undated[:5])}"
            f"{', …' if len(undated) > 5 else ''}); put them into folders named YYYY-MM-DD (file dates are not "
            "trusted: copying changes them)"
        )
    occasions = tuple(Occasion(label=key[1], files=tuple(by_day[key])) for key in sorted(by_day))
    return occasions, "the photos' days"


def _entries(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def _files(folder: Path, suffixes: frozenset[str]) -> list[Path]:
    return [entry for entry in _entries(folder) if entry.is_file() and entry.suffix.lower() in suffixes]


def _folders(folder: Path) -> list[Path]:
    return [entry for entry in _entries(folder) if entry.is_dir()]


def _left_out(folder: Path) -> list[str]:
    """Other files in a folder of photos, so that a photo of another format is not dropped silently."""
    if not folder.is_dir():
        return []
    used = set(_files(folder, PHOTO_SUFFIXES))
    return [f"{folder.name}/{e.name}" for e in _entries(folder) if e not in used and not _is_plain(e)]


def _is_plain(entry: Path) -> bool:
    """Whether a file is of a kind that nobody would expect to be used."""
    return entry.is_file() and entry.suffix.lower() in {".txt", ".json", ".md", ".csv"}


def _day_in(name: str) -> date | None:
    for match in _DATE.finditer(name):
        try:
            return date(*(int(part) for part in match.groups()))
        except ValueError:
            continue
    return None


def _taken(path: Path) -> date | None:
    try:
        with opened_picture(path, _formats(path)) as image:
            return datetime.strptime(_exif_time(image)[:10], "%Y:%m:%d").date()
    except (OSError, ValueError):  # an unreadable photo is reported when it is read
        return None


def _second_of_day(exif_time: str) -> float:
    """When a photo was taken, in seconds from midnight; NaN if its EXIF data do not say."""
    try:
        taken = datetime.strptime(exif_time[:19], "%Y:%m:%d %H:%M:%S")
    except ValueError:
        return math.nan
    return float(taken.hour * 3600 + taken.minute * 60 + taken.second)


def _exif_time(image: Image.Image) -> str:
    try:
        exif = image.getexif()
        return str(exif.get_ifd(_EXIF_BLOCK).get(_TAKEN) or exif.get(_CHANGED))
    except Exception:  # Pillow raises many kinds on damaged EXIF data, which are no reason to lose the photo
        return ""


# --- reading -----------------------------------------------------------------------------------------------------


def read_photo(path: Path) -> np.ndarray:
    """Return uint8 RGB ``[h, w, 3]`` of a photo, rotated as its EXIF data say; 16 bits become 8.

    Raises:
        UserError: it is unreadable.
    """
    return _read(path)[0]


def _read(path: Path) -> tuple[np.ndarray, str]:
    """A photo's pixels, and the time it was taken according to its EXIF data."""
    try:
        with opened_picture(path, _formats(path)) as image:
            taken = _exif_time(image)
            return np.asarray(_eight_bits(ImageOps.exif_transpose(image)).convert("RGB")), taken
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"photo {str(path)!r} is unreadable ({said}); replace it or take it out of the folder"
        ) from error


def _formats(path: Path) -> tuple[str, ...]:
    """Formats to try: phones may share JPEG files under the name .heic, so the usual formats are tried, too."""
    return (*SOURCE_FORMATS, "HEIF") if path.suffix.lower() in HEIF_SUFFIXES else SOURCE_FORMATS


def _eight_bits(image: Image.Image) -> Image.Image:
    """Reduce to 8 bits: Pillow would clip a 16-bit grey photo at 255, which makes it white."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image, np.int64).clip(0, 65535) / 257).round().astype(np.uint8))


def video_frames(path: Path, sampling: Sampling) -> Iterator[Frame]:
    """Read the sampled frames of a video, rotated as the file says.

    Raises:
        UserError: PyAV is not installed, or the file is not a readable video.
    """
    av = _pyav()
    try:
        times = _frame_times(av, path)
        wanted = set(sampled(times, sampling))
        with av.open(str(path), options=_CONTAINERS) as container:
            taken = False
            for number, frame in enumerate(container.decode(video=0)):
                if number in wanted:
                    seconds = times[min(number, len(times) - 1)]
                    image = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90) % 4)
                    label = f"frame {number} ({seconds:.2f} s)"
                    yield Frame(index=number, label=label, seconds=seconds, image=np.ascontiguousarray(image))
                    taken = True
    except (av.error.FFmpegError, IndexError, OSError) as error:
        raise UserError(
            f"video {str(path)!r} is unreadable ({error or type(error).__name__}); expected a file that ffmpeg can "
            "decode. Re-encode or replace it, or take it out of the folder"
        ) from error
    if not taken:
        raise UserError(f"video {str(path)!r} has no frame; replace it or take it out of the folder")


def sampled(times: list[float], sampling: Sampling) -> list[int]:
    """Indices of the frames to sample, for frames shown at ``times`` (seconds, ascending)."""
    if sampling.every is None:
        count = min(sampling.frames, len(times))
        return [(2 * place + 1) * len(times) // (2 * count) for place in range(count)]
    # steps are counted from the first frame, so that rounding does not add up
    steps = [int((time - times[0]) / sampling.every + 1e-6) for time in times]
    return [number for number, step in enumerate(steps) if number == 0 or step > steps[number - 1]]


def _frame_times(av: ModuleType, path: Path) -> list[float]:
    """Times of all frames that are shown, in seconds from the first of them, read without decoding.

    A video that was cut without re-encoding begins with frames before the cut, at negative times: the first shown
    frame depends on them, and players do not show them.
    """
    with av.open(str(path), options=_CONTAINERS) as container:
        stream = container.streams.video[0]
        stamps = sorted(
            packet.pts if packet.pts is not None else packet.dts or 0
            for packet in container.demux(stream)
            if packet.size and not packet.is_discard
        )
        unit = float(stream.time_base or 1)
    return [(stamp - stamps[0]) * unit for stamp in stamps]


def _recorded(path: Path) -> datetime | None:
    av = _pyav()
    try:
        with av.open(str(path), options=_CONTAINERS) as container:
            text = container.metadata.get("creation_time", "")
        return datetime.fromisoformat(text.replace("Z", "+00:00"))
    except (av.error.FFmpegError, OSError, ValueError):
        return None


def _pyav() -> ModuleType:
    try:
        import av
    except ImportError as error:
        raise UserError("reading videos needs PyAV, which is not installed; `pip install 'clstudy[video]'`") from error
    return av
