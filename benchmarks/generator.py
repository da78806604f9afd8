"""The packaged generator beside another one, on faces that neither has seen: figures and pictures.

    git show 25a0262:clstudy/assets/embedded_generator.safetensors > build/old.safetensors
    python -m benchmarks.generator --old build/old.safetensors --pictures build/generators.png

prints, for held-out virtual people, other faces of the packaged DCGAN, the ORL database and the clip of ``real_video``,
what the encoder alone and the embedded profile's inversion reach with each: LPIPS, identity cosines of the
reconstruction with its own photo and with other people's, the share of pairs in which its own photo is nearer, and
LPIPS and MSE of the stretch around the eyes, enlarged. The pictures show photos, and both reconstructions below them.
ORL and ``real_video`` are fetched on first use.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from clstudy.assets import asset_path
from clstudy.faces.face_finder import FaceFinder
from clstudy.faces.geometry import aligned_template
from clstudy.generators.pretraining.figures import evaluate, reconstructing_latents
from clstudy.generators.pretraining.networks import Networks
from clstudy.generators.pretraining.training_faces import PHOTOS_OF_HELD_OUT, Faces, drawn_chunk, held_out_photos
from clstudy.identities.catalogue import open_data_set
from clstudy.images import photo_row, to_uint8
from clstudy.settings.profiles import embedded

_UNSEEN_SEED = 99
"""Of DCGAN faces; pretraining draws with seed 0."""
_DRAWN, _PHOTOS, _SHOWN = 300, 10, 12
_COLUMNS = {
    "lpips_alex": "LPIPS",
    "identity_cosine_own": "ID own",
    "identity_cosine_others": "others",
    "own_above_other": "own above",
    "eyes_lpips": "eyes LPIPS",
    "eyes_mse": "eyes MSE",
    "psnr_db": "PSNR",
}


def photographed(name: str, folder: Path) -> Faces:
    """Photos of a data set of real people; points are where the packaged landmarks see them."""
    profile = embedded()
    found = open_data_set(name, timestamps=profile.data.timestamps, train=_PHOTOS, test=2, data_seed=0, cache=folder)
    finder, images, points, people = FaceFinder(), [], [], []
    for number, identity in enumerate(found.identities):
        for timestamp in identity.timestamps:
            for photo in (*timestamp.train, *timestamp.test):
                image = photo.read()
                face = finder.find(image)
                images.append(image)
                points.append(aligned_template() if face is None else face.points)
                people.append(number)
    return Faces(np.stack(images), np.stack(points).astype(np.float32), np.array(people))


def test_sets(folder: Path) -> Mapping[str, Callable[[], Faces]]:
    """Name -> how to get the faces."""
    nobody = np.zeros((1, 512), np.float32)
    return {
        "virtual": lambda: held_out_photos(PHOTOS_OF_HELD_OUT),
        "dcgan": lambda: drawn_chunk(_UNSEEN_SEED, 0, nobody)[:_DRAWN],
        "orl": lambda: photographed("orl", folder),
        "real_video": lambda: photographed("real_video", folder),
    }


def shown(networks: Networks, faces: Faces) -> np.ndarray:
    """What inversion makes of some of the faces."""
    latents = reconstructing_latents(networks, faces.spread(_SHOWN))["inversion"]
    with torch.no_grad():
        return to_uint8(networks.generator.synthesis(latents))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="The packaged generator beside another one.")
    parser.add_argument("--old", type=Path, help="embedded_generator.safetensors of another version")
    parser.add_argument("--new", type=Path, default=asset_path("embedded_generator.safetensors"))
    parser.add_argument("--sets", nargs="*", help="some of: virtual dcgan orl real_video")
    parser.add_argument("--folder", type=Path, default=Path("runs/data"), help="where data sets are kept")
    parser.add_argument("--pictures", type=Path, help="png of photos and reconstructions")
    given = parser.parse_args()
    files = {name: path for name, path in (("old", given.old), ("new", given.new)) if path is not None}
    all_networks = {name: Networks.read(path) for name, path in files.items()}
    rows = []
    print(f"{'faces':<12}{'by':<11}{'generator':<10}" + "".join(f"{title:>12}" for title in _COLUMNS.values()))
    for name, make in test_sets(given.folder).items():
        if given.sets and name not in given.sets:
            continue
        faces = make()
        rows.append(faces.spread(_SHOWN).images)
        for version, networks in all_networks.items():
            rows.append(shown(networks, faces))
            for way, numbers in evaluate(networks, faces).items():
                columns = "".join(f"{numbers[key]:>12.4f}" for key in _COLUMNS)
                print(f"{name:<12}{way:<11}{version:<10}{columns}", flush=True)
    if given.pictures:
        given.pictures.parent.mkdir(parents=True, exist_ok=True)
        sheet = np.concatenate([photo_row(list(row)) for row in rows])
        Image.fromarray(sheet).resize((sheet.shape[1] * 2, sheet.shape[0] * 2), Image.Resampling.NEAREST).save(
            given.pictures
        )


if __name__ == "__main__":
    main()
