"""Makes a data set of categories: every identity is an order in which they are learned, every timestamp one of them.

The same images serve all orders. Of each category the first images, ``HELD_BACK`` of them, are for tests; no training
image, and no image that a packaged classifier was trained on, is among them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from clstudy.errors import UserError
from clstudy.identities.categories.sources import Categories
from clstudy.identities.conditions import FOR_ALL
from clstudy.identities.dataset import Photo
from clstudy.identities.virtual.stored_png import stored_png
from clstudy.seeding import derive_rng

HELD_BACK = 100
"""Images of each category that are for tests."""

LABEL = "label"
"""Condition of a photo: the number of its category, from 0 in the order of their names."""


@dataclass(frozen=True, kw_only=True)
class OrderSettings:
    """How many orders, how many categories of each, images of each category, and the seed of the orders."""

    orders: int
    timestamps: int
    train: int
    test: int
    data_seed: int


def order_name(index: int) -> str:
    """Folder of an order."""
    return f"order_{index:02d}"


def order_of(index: int, categories: int, timestamps: int, data_seed: int) -> list[int]:
    """Labels in the order in which they are learned."""
    return [int(label) for label in derive_rng("order of categories", data_seed, index).permutation(categories)][
        :timestamps
    ]


def require_images(source: Categories, settings: OrderSettings, what: str) -> None:
    """Refuse settings that the images do not suffice for.

    Raises:
        UserError: fewer categories than timestamps, or too few images of one.
    """
    if settings.timestamps > len(source.names):
        raise UserError(
            f"{what}: {settings.timestamps} timestamps, and there are {len(source.names)} categories; ask for fewer"
        )
    if settings.test > HELD_BACK:
        raise UserError(f"{what}: test = {settings.test}; {HELD_BACK} images of each category are held back for tests")
    for name, images in zip(source.names, source.images, strict=True):
        if settings.train > len(images) - HELD_BACK:
            raise UserError(
                f"{what}: train = {settings.train}, and category {name!r} has {len(images)} images, of which "
                f"{HELD_BACK} are held back for tests; ask for at most {max(len(images) - HELD_BACK, 0)}"
            )


def make_orders(root: Path, source: Categories, settings: OrderSettings, what: str) -> None:
    """Write ``root/order_00/t00_<name>/{train,test}/000.png`` with the label in ``conditions.json``, and the manifest.

    Raises:
        UserError: as ``require_images``.
    """
    require_images(source, settings, what)
    stored = {
        (label, split): [stored_png(image) for image in images]
        for label, of_category in enumerate(source.images)
        for split, images in (
            ("test", of_category[: settings.test]),
            ("train", of_category[HELD_BACK : HELD_BACK + settings.train]),
        )
    }
    photos: dict[str, dict[str, str]] = {}
    for index in range(settings.orders):
        for t, label in enumerate(order_of(index, len(source.names), settings.timestamps, settings.data_seed)):
            folder = f"{order_name(index)}/t{t:02d}_{_safe(source.names[label])}"
            for split in ("train", "test"):
                (root / folder / split).mkdir(parents=True, exist_ok=True)
                for number, content in enumerate(stored[label, split]):
                    name = f"{folder}/{split}/{number:03d}.png"
                    (root / name).write_bytes(content)
                    photos[name] = _entry(root / name, content, label)
            (root / folder / FOR_ALL).write_text(json.dumps({LABEL: label}) + "\n")
    manifest = {"data_set": what, "settings": asdict(settings), "categories": list(source.names), "photos": photos}
    (root / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


def training_images(source: Categories) -> tuple[np.ndarray, np.ndarray]:
    """All images but those that are held back for tests, uint8 ``[n, s, s, 3]``, and their labels."""
    kept = [images[HELD_BACK:] for images in source.images]
    return np.concatenate(kept), np.repeat(np.arange(len(kept)), [len(images) for images in kept])


def held_back_images(source: Categories) -> tuple[np.ndarray, np.ndarray]:
    """Those, likewise."""
    kept = [images[:HELD_BACK] for images in source.images]
    return np.concatenate(kept), np.repeat(np.arange(len(kept)), [len(images) for images in kept])


def _safe(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in name)[:40]


def _entry(path: Path, content: bytes, label: int) -> dict[str, str]:
    photo = Photo(path, hashlib.sha256(content).hexdigest(), {LABEL: (float(label),)})
    return {"sha256": photo.file_digest, "digest": photo.digest}
