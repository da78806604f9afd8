"""python -m clstudy.assets: make the packaged weights again from their sources."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from clstudy.assets.build import _HERE, build_dcgan, build_lpips, build_onnx, take_pretrained, write_manifest
from clstudy.cli.entry_point import entry_point
from clstudy.errors import UserError
from clstudy.storage.places import require_writable


@entry_point
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--work", type=Path, help="rebuild the third-party files; folder for the downloads")
    parser.add_argument(
        "--pretrained", type=Path, help="take in the output folder of clstudy.generators.pretraining train"
    )
    args = parser.parse_args(arguments)
    if args.work is None and args.pretrained is None:
        parser.error("nothing to do: give --work or --pretrained")
    try:
        require_writable(_HERE, "the package's folder", "work in a clone that is yours (`pip install -e`)")
        if args.work is not None:
            require_writable(args.work, "the folder for the downloads", "name another one with --work")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    files: list[Path] = []
    if args.work is not None:
        args.work.mkdir(parents=True, exist_ok=True)
        files += [build_lpips(args.work), build_dcgan(args.work), *build_onnx(args.work)]
    if args.pretrained is not None:
        files.append(take_pretrained(args.pretrained))
    write_manifest(files)
    for file in files:
        print(f"{file.name}: {file.stat().st_size / 1e6:.1f} MB")
    return 0
