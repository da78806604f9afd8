"""``python -m clstudy.generators.pretraining``: train the packaged generator, on faces that are drawn first."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from clstudy.cli.entry_point import entry_point
from clstudy.errors import UserError
from clstudy.generators.pretraining.train import PretrainSettings, pretrain, read_faces
from clstudy.generators.pretraining.training_faces import collect
from clstudy.storage.places import require_writable


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m clstudy.generators.pretraining", description="How the packaged generator was made."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    faces = commands.add_parser("faces", help="draw the faces that it is trained on: OUT/faces.npy")
    faces.add_argument("--out", type=Path, required=True)
    faces.add_argument("--count", type=int, default=24_000)
    faces.add_argument("--seed", type=int, default=0)
    faces.add_argument("--workers", type=int, default=2)
    train = commands.add_parser("train", help="train it: weights, figures and a grid of faces in OUT")
    train.add_argument("--faces", type=Path, required=True, help="faces.npy, from the command `faces`")
    train.add_argument("--out", type=Path, required=True)
    train.add_argument("--steps", type=int, default=PretrainSettings.steps)
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--autoencoder", type=Path, help="skip its training: autoencoder.safetensors of an earlier run")
    return parser


@entry_point
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = _parser().parse_args(arguments)
    try:
        require_writable(args.out, "the folder", "name another one with --out")
        if args.command == "faces":
            args.out.mkdir(parents=True, exist_ok=True)
            np.save(args.out / "faces.npy", collect(args.seed, args.count, args.workers))
        else:
            faces = read_faces(args.faces)
            pretrain(faces, args.out, PretrainSettings(seed=args.seed, steps=args.steps), args.autoencoder)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
