"""Targets: everything that a study or a command reads from outside.

Checkpoints, weights of metrics, ONNX networks, search spaces, photos and folders of photos, manifests, what ``prepare``
leaves. A case either damages a small real file, or puts one of the bombs (:mod:`benchmarks.fuzz.bombs`) in its place,
or something that is no file. The answer of an undamaged file is kept as a digest: reading a damaged one may give
another (what counts is in the file), but must not hang, grow, or end in a traceback.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import save as save_safetensors

from benchmarks.fuzz import bombs
from benchmarks.fuzz.harness import GIVEN, Outcome, Target
from benchmarks.fuzz.mutations import damage_one_file
from clstudy.analysis.study_plan import read_study
from clstudy.assets import asset_path
from clstudy.errors import UserError
from clstudy.faces.embedding import IdentityEmbedder
from clstudy.generators.checkpoints.checkpoint import Checkpoint
from clstudy.generators.checkpoints.reading import read_checkpoint
from clstudy.generators.checkpoints.safetensors_files import write_safetensors
from clstudy.generators.checkpoints.sizes import infer_settings
from clstudy.generators.ir_se_encoder import IRSEEncoder, read_encoder
from clstudy.generators.stylegan2 import StyleGAN2, StyleGAN2Settings
from clstudy.identities.dataset import load_folder
from clstudy.identities.preparation.filters import Measures
from clstudy.identities.preparation.scans import stored_scan
from clstudy.identities.preparation.video import find_occasions, read_photo
from clstudy.metrics.dists import load_dists, weight_shapes
from clstudy.metrics.inception import load_inception
from clstudy.metrics.ir_se_50 import IRSE50, load_ir_se_50
from clstudy.records.study_record import read_complete_record
from clstudy.settings.profiles import PROFILES
from clstudy.settings.space_file import load_space
from clstudy.storage.documents import read_json
from clstudy.study.preflight import require_alignment
from tests.support.persistence_writer import dump, network, ordinary, snapshot, torch_dump

_TINY = StyleGAN2Settings(img_resolution=8, z_dim=3, w_dim=4, channel_base=16, channel_max=3, mapping_layers=1)
_ODD_NAMES = ("a\nb.png", "-rf.png", "\x1b[31mred.png", "é" * 60 + ".png", "<script>.png", "b'.png", " .png", "..png")
_SIDE = 64


# --- damage --------------------------------------------------------------------------------------------------------


def _no_file(path: Path, rng: np.random.Generator) -> str:
    """Put something that is no regular file in a file's place."""
    path.unlink()
    kind = int(rng.integers(6))
    if kind == 0:
        os.mkfifo(path)
    elif kind == 1:
        path.symlink_to(path.name)
    elif kind == 2:
        path.mkdir()
    elif kind == 3:
        path.symlink_to("/dev/zero")
    elif kind == 4:
        path.symlink_to("nothing-there")
    else:
        with socket.socket(socket.AF_UNIX) as made:
            here = os.open(path.parent, os.O_RDONLY)
            made.bind(f"/proc/self/fd/{here}/{path.name[:40]}")
            os.close(here)
    return f"{path.name}: {('a pipe', 'a link to itself', 'a folder', 'a device', 'a broken link', 'a socket')[kind]}"


def damaging(
    made: Mapping[str, bombs.Bomb], *, odd_share: float = 0.15, suffix: str = ""
) -> Callable[[Path, np.random.Generator], str]:
    """Damage one file, or replace it by a bomb (of half its usual size to twice) or by what is no file."""

    def damage(folder: Path, rng: np.random.Generator) -> str:
        files = sorted(path for path in folder.rglob(f"*{suffix}") if path.is_file())
        draw = rng.random()
        if draw >= odd_share:
            return damage_one_file(folder, rng, mutations=int(rng.choice([1, 1, 2, 4])))
        path = files[int(rng.integers(len(files)))]
        if not made or draw < odd_share / 4:
            return _no_file(path, rng)
        name = sorted(made)[int(rng.integers(len(made)))]
        scale = float(rng.choice([0.01, 0.1, 1.0]))
        path.write_bytes(made[name](scale))
        return f"{path.name}: {name} x {scale:g}"

    return damage


def _folder_damage(folder: Path, rng: np.random.Generator) -> str:
    """Something in a folder of photos that is no photo, lies elsewhere, or has an odd name."""
    files = sorted(path for path in folder.rglob("*.png") if path.is_file())
    path = files[int(rng.integers(len(files)))]
    kind = int(rng.integers(8))
    if kind <= 1:
        return _no_file(path, rng)
    if kind == 2:
        (path.parent / "loop").symlink_to("..", target_is_directory=True)
        return "a link to the folder above"
    if kind == 3:
        name = _ODD_NAMES[int(rng.integers(len(_ODD_NAMES)))]
        path.rename(path.parent / name)
        return f"renamed to {name!r}"
    if kind == 4:
        os.rename(os.fsencode(path), os.fsencode(path.parent) + b"/\xff\xfe.png")
        return "a name that is not UTF-8"
    if kind == 5:
        target = path.parents[int(rng.integers(3))]
        target.rename(target.with_name(_ODD_NAMES[int(rng.integers(len(_ODD_NAMES)))].removesuffix(".png") + "x"))
        return "a folder with an odd name"
    if kind == 6:
        shutil.rmtree(path.parents[int(rng.integers(3))])
        return "a folder is missing"
    bomb = list(bombs.PICTURES.values())[int(rng.integers(3))]
    path.write_bytes(bomb(float(rng.choice([0.01, 0.1, 1.0]))))
    return f"{path.name}: {bomb.__name__}"


# --- material ------------------------------------------------------------------------------------------------------


def _random_tensors(rng: np.random.Generator) -> dict[str, np.ndarray]:
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in StyleGAN2(_TINY).state_dict().items()}
    taps = np.outer([1, 3, 3, 1], [1, 3, 3, 1]).astype(np.float32) / 64
    return {
        name: taps if name.endswith("resample_filter") else rng.standard_normal(shape).astype(np.float32)
        for name, shape in shapes.items()
    }


def _nvidia(folder: Path, rng: np.random.Generator) -> None:
    dump(folder / GIVEN / "network.pkl", snapshot(network(_random_tensors(rng), ordinary())))


def _old_pickle(folder: Path, rng: np.random.Generator) -> None:
    dump(folder / GIVEN / "network.pkl", network(_random_tensors(rng), ordinary()), protocol=2)


def _torch_zip(folder: Path, rng: np.random.Generator) -> None:
    torch_dump(folder / GIVEN / "network.pt", network(_random_tensors(rng), ordinary()))


def _torch_legacy(folder: Path, rng: np.random.Generator) -> None:
    torch_dump(folder / GIVEN / "network.pt", network(_random_tensors(rng), ordinary()), zipped=False)


def _rosinality(zipped: bool) -> Callable[[Path, np.random.Generator], None]:
    def make(folder: Path, rng: np.random.Generator) -> None:
        from tests.generators.test_checkpoints import rosinality_state

        state = rosinality_state({4: 3, 8: 2}, width=4, layers=1)
        torch_dump(folder / GIVEN / "network.pt", {"g_ema": state, "latent_avg": torch.zeros(4)}, zipped=zipped)

    return make


def _own_generator(folder: Path, rng: np.random.Generator) -> None:
    tensors = _random_tensors(rng)
    made = Checkpoint(
        kind="stylegan2",
        format="NVIDIA pickle (G_ema)",
        settings=infer_settings(tensors, conv_clamp=None),
        tensors=tensors,
        sha256="0" * 64,
    )
    write_safetensors(made, folder / GIVEN / "network.safetensors")


def _encoder(folder: Path, rng: np.random.Generator) -> None:
    """The names of the published file and small tensors: 0.2 MB instead of 180, so that it is refused at the end."""
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in IRSEEncoder(4).state_dict().items()}
    state = {
        f"encoder.{name}": torch.zeros([min(side, 2) for side in shape])
        for name, shape in shapes.items()
        if name != "latent_avg"
    }
    torch.save({"state_dict": state, "latent_avg": torch.zeros(4)}, folder / GIVEN / "encoder.pt")


def _ir_se_50(folder: Path, rng: np.random.Generator) -> None:
    """As ``_encoder``: the names of the published file and small tensors."""
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in IRSE50().state_dict().items()}
    state = {name: torch.zeros([min(side, 2) for side in shape]) for name, shape in shapes.items()}
    torch.save(state, folder / GIVEN / "model_ir_se50.pth")


def _inception(folder: Path, rng: np.random.Generator) -> None:
    torch.save({f"a{index}": torch.zeros(3, 2) for index in range(20)}, folder / GIVEN / "inception.pth")


def _dists(folder: Path, rng: np.random.Generator) -> None:
    content = {name: np.zeros([min(side, 4) for side in shape], np.float32) for name, shape in weight_shapes().items()}
    (folder / GIVEN / "dists.safetensors").write_bytes(save_safetensors(content))


def _onnx(folder: Path, rng: np.random.Generator) -> None:
    shutil.copy(asset_path("face_embedder.onnx"), folder / GIVEN / "arcface.onnx")


def _space(folder: Path, rng: np.random.Generator) -> None:
    (folder / GIVEN / "space.yaml").write_text(
        "name: small\ndescription: a space\nprofile: smoke\ngrid:\n  identity: [ada, bob]\n"
        "  strategy: [lower, er_rand]\n  buffer_size: [2, 3]\n  learning_rate: {low: 0.001, high: 0.1, trials: 4}\n"
        "seeds: [0, 1]\nsearch: {validation: third, asha: true}\nweights: last\n"
    )


def _study_file(folder: Path, rng: np.random.Generator) -> None:
    trials = "".join(
        f"- {{trial: a-lower-{seed}, identity: a, strategy: lower, buffer_size: null, learning_rate: 0.1, "
        f"seed: {seed}}}\n"
        for seed in range(3)
    )
    (folder / GIVEN / "study.yaml").write_text(
        f"name: small\nprofile: {{name: smoke}}\ntrials:\n{trials}generator: {'0' * 64}\nfingerprint: {{a: b}}\n"
        "data_digests: {a: abc}\ntimestamps: {a: 2}\nbuffer_sizes: [2]\n"
    )


def _picture(side: int, rng: np.random.Generator, kind: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)).save(stream, kind)
    return stream.getvalue()


def _photos(folder: Path, rng: np.random.Generator) -> None:
    root = folder / GIVEN
    for name in ("ada", "bob"):
        for stamp in ("0", "1"):
            for split in ("train", "test"):
                place = root / name / stamp / split
                place.mkdir(parents=True)
                (place / "0.png").write_bytes(_picture(_SIDE, rng, "PNG"))
                (place / "1.jpg").write_bytes(_picture(_SIDE, rng, "JPEG"))
    (folder / "digest.txt").write_text(_digest(load_folder(root, image_size=_SIDE).digests()))


def _single_photos(folder: Path, rng: np.random.Generator) -> None:
    for kind in ("PNG", "JPEG"):
        (folder / GIVEN / f"photo.{kind.lower()}").write_bytes(_picture(48, rng, kind))


def _footage(folder: Path, rng: np.random.Generator) -> None:
    for day in ("2020-01-01", "2020-02-02"):
        (folder / GIVEN / day).mkdir()
        (folder / GIVEN / day / "0.jpg").write_bytes(_picture(48, rng, "JPEG"))
    (folder / GIVEN / "manifest.txt").write_text("# in this order\n2020-02-02\n2020-01-01\n")


def _scan(folder: Path, rng: np.random.Generator) -> None:
    arrays = {
        "labels": np.array(["frame 0", "frame 1"]),
        "numbers": np.arange(2),
        "thumbnails": np.zeros((2, 64, 64, 3), np.uint8),
        "frame": np.array([0, 1]),
        "landmarks": rng.standard_normal((2, 68, 2)),
        "scores": np.ones(2),
        "measures": np.ones((2, len(fields(Measures)))),
        "embeddings": np.ones((2, 512), np.float32),
        "looks": np.zeros((2, 64, 64, 3), np.uint8),
    }
    np.savez(folder / GIVEN / "scan.npz", **arrays)


def _records(folder: Path, rng: np.random.Generator) -> None:
    (folder / GIVEN / "prepared.json").write_text(
        json.dumps({"alignment": "ffhq", "size": 64, "photos": {"a": [1, 2]}})
    )


# --- checks --------------------------------------------------------------------------------------------------------


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _only(folder: Path) -> Path:
    """What lies where the file was, or the name it had."""
    entries = sorted((folder / GIVEN).iterdir())
    return entries[0] if entries else folder / GIVEN / "removed.pt"


def _reads(read: Callable[[Path], object]) -> Callable[[Path], Outcome]:
    def check(folder: Path) -> Outcome:
        read(_only(folder))
        return Outcome.SAME

    return check


def _embeds(path: Path) -> None:
    embedder = IdentityEmbedder(model=path)
    embedder(torch.zeros(1, 3, 112, 112))


def _check_study_file(folder: Path) -> Outcome:
    refused = []
    for read in (read_complete_record, read_study):
        try:
            read(folder / GIVEN)
        except UserError as error:
            refused.append(str(error))
    if refused:
        raise UserError("; ".join(refused))
    return Outcome.SAME


def _check_photos(folder: Path) -> Outcome | tuple[Outcome, str]:
    data = load_folder(folder / GIVEN, image_size=_SIDE)
    for identity in data.identities:
        for timestamp in identity.timestamps:
            for photo in (*timestamp.train, *timestamp.test):
                photo.read(_SIDE)
    # other photos are other data: their digests, and with them every key, must differ
    same = _digest(data.digests()) == (folder / "digest.txt").read_text()
    return Outcome.SAME if same else Outcome.RECOMPUTED


def _check_single_photos(folder: Path) -> Outcome:
    refused = []
    for path in sorted((folder / GIVEN).iterdir()):
        try:
            read_photo(path)
        except UserError as error:
            refused.append(str(error))
    if refused:
        raise UserError("; ".join(refused))
    return Outcome.SAME


def _check_footage(folder: Path) -> Outcome:
    root = folder / GIVEN
    for manifest in (None, root / "manifest.txt"):
        for occasion in find_occasions(root, manifest).occasions:
            for path in occasion.files:
                read_photo(path)
    return Outcome.SAME


def _check_scan(folder: Path) -> Outcome:
    try:
        found = stored_scan(_only(folder))
    except (OSError, ValueError):
        return Outcome.RECOMPUTED
    found.face(0)
    return Outcome.SAME


def _check_records(folder: Path) -> Outcome:
    require_alignment(folder / GIVEN, PROFILES["mystyle"]())
    try:
        read_json(folder / GIVEN / "prepared.json")
    except (OSError, ValueError) as error:
        raise UserError(str(error)) from error
    return Outcome.SAME


def _checkpoint(name: str, make: Callable[[Path, np.random.Generator], None], share: float = 2.0) -> Target:
    made = bombs.SAFETENSORS if "own" in name else bombs.PICKLES
    return Target(name=name, prepare=make, check=_reads(read_checkpoint), damage=damaging(made), share=share)


_CPU = torch.device("cpu")

TARGETS: Sequence[Target] = (
    _checkpoint("input-nvidia-pickle", _nvidia),
    _checkpoint("input-nvidia-pickle-2", _old_pickle, 1.0),
    _checkpoint("input-torch-zip", _torch_zip),
    _checkpoint("input-torch-legacy", _torch_legacy),
    _checkpoint("input-rosinality-zip", _rosinality(True)),
    _checkpoint("input-rosinality-legacy", _rosinality(False), 1.0),
    _checkpoint("input-own-generator", _own_generator),
    Target(
        name="input-encoder",
        prepare=_encoder,
        check=_reads(lambda path: read_encoder(path, 4)),
        damage=damaging(bombs.PICKLES),
    ),
    Target(name="input-ir-se-50", prepare=_ir_se_50, check=_reads(load_ir_se_50), damage=damaging(bombs.PICKLES)),
    Target(
        name="input-inception",
        prepare=_inception,
        check=_reads(lambda path: load_inception(path, _CPU)),
        damage=damaging(bombs.PICKLES),
    ),
    Target(name="input-dists", prepare=_dists, check=_reads(load_dists), damage=damaging(bombs.SAFETENSORS)),
    Target(name="input-onnx", prepare=_onnx, check=_reads(_embeds), damage=damaging({}, odd_share=0.05)),
    Target(
        name="input-space",
        prepare=_space,
        check=_reads(load_space),
        damage=damaging(bombs.YAMLS, odd_share=0.3),
        share=3,
    ),
    Target(
        name="input-study-yaml",
        prepare=_study_file,
        check=_check_study_file,
        damage=damaging(bombs.YAMLS, odd_share=0.3),
        share=2,
    ),
    Target(
        name="input-photos",
        prepare=_photos,
        check=_check_photos,
        damage=damaging(bombs.PICTURES, odd_share=0.1),
        share=2,
    ),
    Target(name="input-photo-folder", prepare=_photos, check=_check_photos, damage=_folder_damage, share=2),
    Target(
        name="input-single-photo",
        prepare=_single_photos,
        check=_check_single_photos,
        damage=damaging(bombs.PICTURES, odd_share=0.1),
    ),
    Target(
        name="input-footage", prepare=_footage, check=_check_footage, damage=damaging(bombs.PICTURES, odd_share=0.1)
    ),
    Target(name="input-scan", prepare=_scan, check=_check_scan, damage=damaging(bombs.ARRAYS, odd_share=0.2)),
    Target(name="input-records", prepare=_records, check=_check_records, damage=damaging(bombs.JSONS, odd_share=0.3)),
)
