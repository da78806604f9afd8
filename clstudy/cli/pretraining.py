"""``python -m clstudy.generators.pretraining``: draws faces and trains the packaged generator on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np

from clstudy.cli.command_line import group, option
from clstudy.cli.entry_point import invoke
from clstudy.generators.pretraining.train import PretrainSettings, pretrain, read_faces
from clstudy.generators.pretraining.training_faces import collect
from clstudy.storage.places import require_writable

_PATH = click.Path(path_type=Path)
_REMEDY = "name another one with --out"


@group("pretraining", help="How the packaged generator was made.")
def pretraining() -> None:
    """The group; each command is declared below."""


@pretraining.command("faces", help="draw the faces that it is trained on: OUT/faces.npy")
@option("--out", type=_PATH, required=True)
@option("--count", type=int, default=24_000)
@option("--seed", type=int, default=0)
@option("--workers", type=int, default=2)
def faces(out: Path, count: int, seed: int, workers: int) -> None:
    """Draw them."""
    require_writable(out, "the folder", _REMEDY)
    out.mkdir(parents=True, exist_ok=True)
    np.save(out / "faces.npy", collect(seed, count, workers))


@pretraining.command("train", help="train it: weights, figures and a grid of faces in OUT")
@option("--faces", type=_PATH, required=True, help="faces.npy, from the command `faces`")
@option("--out", type=_PATH, required=True)
@option("--steps", type=int, default=PretrainSettings.steps)
@option("--seed", type=int, default=0)
@option("--autoencoder", type=_PATH, help="skip its training: autoencoder.safetensors of an earlier run")
def train(faces: Path, out: Path, steps: int, seed: int, autoencoder: Path | None) -> None:
    """Train it."""
    require_writable(out, "the folder", _REMEDY)
    pretrain(read_faces(faces), out, PretrainSettings(seed=seed, steps=steps), autoencoder)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return invoke(pretraining, arguments, "python -m clstudy.generators.pretraining")
