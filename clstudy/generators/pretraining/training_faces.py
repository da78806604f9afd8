"""The faces that the embedded generator is pretrained on: aligned DCGAN faces, reported people held out.

``python -m clstudy.generators.pretraining faces --out DIR --workers 2`` writes ``faces.npy`` (uint8
``[n, 64, 64, 3]``); the same seed gives the same faces whatever the number of workers.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor

import numpy as np
import torch

from clstudy.identities.dcgan import LATENT_SIZE
from clstudy.identities.people import REPORTED_DATA_SEED, TUNING_DATA_SEED, FaceTools, draw_person
from clstudy.images import to_unit_range
from clstudy.seeding import derive_rng

HELD_OUT_PEOPLE = 10
"""People per data seed (reported and tuning) whose look-alikes are removed."""

HELD_OUT_COSINE = 0.5
"""A face this similar to a held-out person is removed (different people stay below it in 99.9% of pairs)."""

_CHUNK = 1000


def collect_chunk(seed: int, chunk: int) -> np.ndarray:
    """Return the accepted aligned faces uint8 ``[m, 64, 64, 3]`` of ``_CHUNK`` drawn latents."""
    torch.set_num_threads(1)
    tools = FaceTools.load()
    held_out = np.stack(
        [
            draw_person(tools, data_seed, index).embedding
            for data_seed in (REPORTED_DATA_SEED, TUNING_DATA_SEED)
            for index in range(HELD_OUT_PEOPLE)
        ]
    )
    latents = derive_rng("pretraining faces", seed, chunk).standard_normal((_CHUNK, LATENT_SIZE))
    kept = []
    for image in tools.source.draw(latents):
        aligned = tools.finder.align(image)
        if aligned is None or aligned[1].score < 0.9 or abs(aligned[1].yaw()) > 0.4:
            continue
        embedding = tools.embedder(to_unit_range(aligned[0][None]))[0].numpy()
        if (held_out @ embedding).max() < HELD_OUT_COSINE:
            kept.append(aligned[0])
    return np.stack(kept)


def collect(seed: int, count: int, workers: int) -> np.ndarray:
    """Return the first ``count`` accepted faces of a seed, in order."""
    faces: list[np.ndarray] = []
    total, chunk = 0, 0
    with ProcessPoolExecutor(workers) as pool:
        while total < count:
            numbers = range(chunk, chunk + 2 * workers)
            for part in pool.map(collect_chunk, [seed] * len(numbers), numbers):
                faces.append(part)
                total += len(part)
            chunk += len(numbers)
            print(f"{total} of {count} faces", flush=True)
    return np.concatenate(faces)[:count]
