"""``python -m clstudy.generators.pretraining``: draws faces and trains the packaged generator on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from clstudy.cli.command_line import Decorator, group, option
from clstudy.cli.entry_point import invoke
from clstudy.errors import UserError
from clstudy.faces.ages import AgeEstimator
from clstudy.generators.pretraining.age_estimator import AgeSettings, train_ages
from clstudy.generators.pretraining.aged_faces import AgedFaces, collect_ages, held_out_ages
from clstudy.generators.pretraining.classifier import write_classifier
from clstudy.generators.pretraining.train import PretrainSettings, pretrain
from clstudy.generators.pretraining.train_3d import Pretrain3DSettings, pretrain_3d
from clstudy.generators.pretraining.train_age_prior import PriorSettings, train_age_prior
from clstudy.generators.pretraining.training_faces import (
    PHOTOS_OF_HELD_OUT,
    Faces,
    collect,
    drawn_chunk,
    held_out_photos,
    virtual_chunk,
)
from clstudy.generators.pretraining.training_views import Views, collect_views, held_out_views
from clstudy.identities.categories.sources import digits, read_categories
from clstudy.storage.places import require_writable

_PATH = click.Path(path_type=Path)
_REMEDY = "name another one with --out"

HELD_OUT = {"drawn": "held_out_drawn.npz", "virtual": "held_out_virtual.npz"}
"""Name of a kind of held-out faces -> file beside the training faces."""

HELD_OUT_VIEWS, HELD_OUT_AGES = "held_out_views.npz", "held_out_ages.npz"


def _begin(settings: PretrainSettings) -> Decorator:
    """The option that skips cycles which an earlier run has finished."""
    most = len(settings.cycles)
    said = f"cycle to begin with; {most}: only the mapping"
    return option("--begin", type=click.IntRange(0, most), default=0, help=said)


@group("pretraining", help="How the packaged generators were made.")
def pretraining() -> None:
    """The group; each command is declared below."""


@pretraining.command("faces", help="draw the faces that it is trained on: OUT/faces.npz, and held-out ones")
@option("--out", type=_PATH, required=True)
@option("--drawn", type=click.IntRange(1), default=22_000, help="faces of the packaged DCGAN")
@option("--virtual", type=click.IntRange(1), default=32_000, help="photos of virtual people")
@option("--held-out", type=click.IntRange(1), default=PretrainSettings.held_out, help="DCGAN faces kept back")
@option("--seed", type=int, default=0)
@option("--workers", type=int, default=2)
def faces(out: Path, drawn: int, virtual: int, held_out: int, seed: int, workers: int) -> None:
    """Draw them."""
    require_writable(out, "the folder", _REMEDY)
    out.mkdir(parents=True, exist_ok=True)
    dcgan = collect(seed, drawn + held_out, workers, drawn_chunk)
    dcgan[:held_out].save(out / HELD_OUT["drawn"])
    held_out_photos(PHOTOS_OF_HELD_OUT).save(out / HELD_OUT["virtual"])
    people = collect(seed, virtual, workers, virtual_chunk)
    Faces.together([dcgan[held_out:], people]).save(out / "faces.npz")


@pretraining.command("train", help="train it: weights, figures and a grid of faces in OUT")
@option("--faces", type=_PATH, required=True, help="faces.npz, from the command `faces`, beside the held-out ones")
@option("--out", type=_PATH, required=True)
@option("--seed", type=int, default=0)
@_begin(PretrainSettings())
@option("--autoencoder", type=_PATH, help="to begin with: autoencoder.safetensors of an earlier run")
def train(faces: Path, out: Path, seed: int, begin: int, autoencoder: Path | None) -> None:
    """Train it."""
    require_writable(out, "the folder", _REMEDY)
    _require_both(begin, autoencoder)
    training = Faces.read(faces)
    unseen = {name: Faces.read(faces.parent / file) for name, file in HELD_OUT.items()}
    pretrain(training, unseen, out, PretrainSettings(seed=seed), begin=begin, autoencoder=autoencoder)


@pretraining.command("views", help="photograph what the 3D generator is trained on: OUT/views.npz, and held-out views")
@option("--out", type=_PATH, required=True)
@option("--moments", type=click.IntRange(1), default=10_000, help="of virtual people, each seen by four cameras")
@option("--seed", type=int, default=0)
@option("--workers", type=int, default=2)
def views(out: Path, moments: int, seed: int, workers: int) -> None:
    """Photograph them."""
    require_writable(out, "the folder", _REMEDY)
    out.mkdir(parents=True, exist_ok=True)
    held_out_views().save(out / HELD_OUT_VIEWS)
    collect_views(seed, moments, workers).save(out / "views.npz")


@pretraining.command("train-3d", help="train the 3D generator: weights, figures and a grid of heads in OUT")
@option("--views", "file", type=_PATH, required=True, help="views.npz of the command `views`, beside held-out ones")
@option("--out", type=_PATH, required=True)
@option("--seed", type=int, default=0)
@_begin(Pretrain3DSettings())
@option("--autoencoder", type=_PATH, help="to begin with: autoencoder_3d.safetensors of an earlier run")
def train_3d(file: Path, out: Path, seed: int, begin: int, autoencoder: Path | None) -> None:
    """Train it."""
    require_writable(out, "the folder", _REMEDY)
    _require_both(begin, autoencoder)
    training, unseen = Views.read(file), Views.read(file.parent / HELD_OUT_VIEWS)
    pretrain_3d(training, unseen, out, Pretrain3DSettings(seed=seed), begin=begin, autoencoder=autoencoder)


@pretraining.command("ages", help="photograph what the age estimator learns from: OUT/ages.npz, and held-out people")
@option("--out", type=_PATH, required=True)
@option("--people", type=click.IntRange(1), default=500, help="virtual people, each at five ages in four moments")
@option("--seed", type=int, default=0)
@option("--workers", type=int, default=2)
def ages(out: Path, people: int, seed: int, workers: int) -> None:
    """Photograph them."""
    require_writable(out, "the folder", _REMEDY)
    out.mkdir(parents=True, exist_ok=True)
    held_out_ages().save(out / HELD_OUT_AGES)
    collect_ages(seed, people, workers).save(out / "ages.npz")


@pretraining.command("train-ages", help="train the age estimator: OUT/age_estimator.safetensors, and its errors")
@option("--ages", "file", type=_PATH, required=True, help="ages.npz of the command `ages`, beside held-out people")
@option("--out", type=_PATH, required=True)
@option("--steps", type=click.IntRange(1), default=AgeSettings.steps)
@option("--seed", type=int, default=0)
def train_estimator(file: Path, out: Path, steps: int, seed: int) -> None:
    """Train it."""
    require_writable(out, "the folder", _REMEDY)
    training, unseen = AgedFaces.read(file), AgedFaces.read(file.parent / HELD_OUT_AGES)
    train_ages(training, unseen, out, AgeSettings(seed=seed, steps=steps))


@pretraining.command("train-age-prior", help="train the age prior: OUT/age_prior.safetensors, and its figures")
@option("--ages", "file", type=_PATH, required=True, help="ages.npz of the command `ages`, beside held-out people")
@option("--estimator", type=_PATH, required=True, help="age_estimator.safetensors, from the command `train-ages`")
@option("--out", type=_PATH, required=True)
@option("--steps", type=click.IntRange(1), default=PriorSettings.steps)
@option("--seed", type=int, default=0)
def train_prior(file: Path, estimator: Path, out: Path, steps: int, seed: int) -> None:
    """Train it."""
    require_writable(out, "the folder", _REMEDY)
    AgeEstimator(estimator)  # refuses another file before anything is trained
    training, unseen = AgedFaces.read(file), AgedFaces.read(file.parent / HELD_OUT_AGES)
    train_age_prior(training, unseen, estimator, out, PriorSettings(seed=seed, steps=steps))


@pretraining.command("classifier", help="train the classifier of real images for the workload class_gan")
@option("--images", type=_PATH, help="folder of class folders or IDX files (default: the digits)")
@option("--size", type=click.IntRange(8, 256), default=32, help="side of the images in pixels")
@option("--out", type=_PATH, required=True, help="file to write, such as weights/classifier.safetensors")
@option("--seed", type=int, default=0)
def classifier(images: Path | None, size: int, out: Path, seed: int) -> None:
    """Train and write it."""
    require_writable(out.parent, "the folder", _REMEDY)
    out.parent.mkdir(parents=True, exist_ok=True)
    source = digits(out.parent, size) if images is None else read_categories(images, size)
    write_classifier(source, out, seed)


def _require_both(begin: int, autoencoder: Path | None) -> None:
    if bool(begin) != (autoencoder is not None):
        raise UserError(
            f"--begin {begin} {'without' if begin else 'with'} --autoencoder; expected both, to go on with an earlier "
            "run's networks, or neither"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return invoke(pretraining, arguments, "python -m clstudy.generators.pretraining")
