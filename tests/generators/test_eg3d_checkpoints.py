"""EG3D's published files: read whole, converted, refused where ours differs, and never executed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from clstudy.assets.readers.errors import CheckpointError
from clstudy.cli.generators import main
from clstudy.generators.checkpoint_generator import CheckpointKind
from clstudy.generators.checkpoints.checkpoint import Checkpoint
from clstudy.generators.checkpoints.reading import read_checkpoint
from clstudy.generators.checkpoints.safetensors_files import write_safetensors
from clstudy.generators.eg3d import EG3D, EG3DSettings
from clstudy.generators.tri_planes import CORRECTED_AXES, PUBLISHED_AXES
from tests.generators.test_eg3d import AlwaysHalf, assert_near
from tests.support.persistence_writer import Persistent, dump, eg3d_attributes, eg3d_network, snapshot, torch_dump

DATA = Path(__file__).parents[1] / "data"
FIRST_AXES = np.array(
    [[[1, 0, 0], [0, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 0, 1], [0, 1, 0]], [[0, 0, 1], [1, 0, 0], [0, 1, 0]]],
    np.float32,
)
LATER_AXES = np.array([*FIRST_AXES[:2], [[0, 0, 1], [0, 1, 0], [1, 0, 0]]], np.float32)


@pytest.fixture(scope="module")
def reference() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors of the tiny reference network, and its rendering options."""
    with safe_open(DATA / "eg3d_tiny.safetensors", "np") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        return tensors, json.loads(file.metadata()["rendering"])


def published(
    reference: tuple[dict[str, np.ndarray], dict[str, Any]],
    *,
    axes: np.ndarray = FIRST_AXES,
    conv_clamp: float | None = None,
    rendering: dict[str, Any] | None = None,
    change: dict[str, np.ndarray] | None = None,
    attributes: dict[str, dict[str, Any]] | None = None,
) -> Persistent:
    tensors, options = reference
    weights = {name.removeprefix("net."): value for name, value in tensors.items() if name.startswith("net.")}
    plain = eg3d_attributes(options | (rendering or {}), 32, conv_clamp=conv_clamp)
    for pattern, values in (attributes or {}).items():
        plain[pattern] = plain.get(pattern, {}) | values
    return eg3d_network(weights | (change or {}), plain, axes)


def loaded(checkpoint: Checkpoint) -> EG3D:
    assert isinstance(checkpoint.settings, EG3DSettings)
    network = checkpoint.settings.network().requires_grad_(False)
    network.load_state_dict({name: torch.from_numpy(value) for name, value in checkpoint.tensors.items()})
    return network


@pytest.mark.parametrize("write", [dump, torch_dump])
def test_a_published_file_gives_the_published_image(tmp_path, reference, write):
    tensors, _ = reference
    checkpoint = read_checkpoint(write(tmp_path / "ffhqrebalanced512-128.pkl", snapshot(published(reference))))
    assert checkpoint.kind == "eg3d" and checkpoint.notes == ()
    network = loaded(checkpoint)
    assert network.settings.rendering.plane_axes == PUBLISHED_AXES
    assert network.settings.camera.pivot == (0.0, 0.0, 0.2)
    cameras = torch.from_numpy(tensors["in.c"])
    ws = network.mapping(torch.from_numpy(tensors["in.z"]), cameras)
    rendered = network.synthesis(ws, cameras, jitter=AlwaysHalf())
    assert_near(rendered.image, torch.from_numpy(tensors["out.image"]))
    assert_near(rendered.depth, torch.from_numpy(tensors["out.image_depth"]))


def test_a_converted_file_is_the_same_network(tmp_path, reference, capsys):
    source = dump(tmp_path / "a.pkl", snapshot(published(reference, conv_clamp=256.0, axes=LATER_AXES)))
    original = read_checkpoint(source)
    assert main(["convert", str(source), str(tmp_path / "a.safetensors")]) == 0
    assert "128 px eg3d from NVIDIA pickle (G_ema)" in capsys.readouterr().out
    again = read_checkpoint(tmp_path / "a.safetensors")
    assert again.settings == original.settings
    assert again.settings.rendering.plane_axes == CORRECTED_AXES
    assert again.settings.superresolution.conv_clamp == 256 and again.settings.backbone.conv_clamp is None
    assert list(again.tensors) == list(original.tensors)
    assert all(np.array_equal(again.tensors[name], value) for name, value in original.tensors.items())
    assert original.notes == ("its super-resolution was trained in float16; read as float32",)
    write_safetensors(read_checkpoint(source), tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_inspect_describes_it(tmp_path, reference, capsys):
    assert main(["inspect", str(dump(tmp_path / "a.pkl", snapshot(published(reference))))]) == 0
    lines = capsys.readouterr().out.splitlines()
    for line in (
        "kind              eg3d",
        "resolution        128 px",
        "rendering         32 px, 12 + 12 samples a ray",
        "tri-planes        3 x 32 features of 256 px",
        "super-resolution  64 -> 128 px, (128, 64) channels",
        "c_dim             25",
    ):
        assert line in lines, "\n".join(lines)
    assert sum(line.startswith("low-rank factors  rank 1: ") for line in lines) == 1


def test_rendering_options_of_the_file_are_taken(tmp_path, reference):
    options = {"ray_start": 2.3, "ray_end": 3.5, "box_warp": 1.2, "white_back": True, "c_gen_conditioning_zero": True}
    settings = read_checkpoint(dump(tmp_path / "a.pkl", published(reference, rendering=options))).settings
    assert isinstance(settings, EG3DSettings)
    rendering = settings.rendering
    assert (rendering.near, rendering.far, rendering.box, rendering.white_background) == (2.3, 3.5, 1.2, True)
    assert settings.camera_scale == 0, "the mapping is given a camera of zeros"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"ray_start": "auto"}, "rendering option ray_start is 'auto', and this EG3D has only a number"),
        ({"ray_start": 4.0}, "far is 3.3; expected more than near, 4.0"),
        ({"disparity_space_sampling": True}, "disparity_space_sampling is True, and this EG3D has only False"),
        ({"clamp_mode": "relu"}, "clamp_mode is 'relu', and this EG3D has only 'softplus'"),
        ({"depth_resolution": 10**9}, "coarse is 1000000000; expected 2 to 1024"),
        ({"depth_resolution": 12.5}, "depth_resolution is 12.5, and this EG3D has only a whole number"),
        ({"box_warp": float("nan")}, "box_warp is nan"),
        ({"avg_camera_pivot": [0, 0]}, "avg_camera_pivot is a list, and this EG3D has only three numbers"),
        ({"decoder_lr_mul": 0.5}, "the learning rate multiplier (lr_multiplier) of decoder.net.0 is 1"),
    ],
)
def test_rendering_that_ours_does_not_have_is_refused(tmp_path, reference, options, expected):
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(dump(tmp_path / "a.pkl", published(reference, rendering=options)))
    assert expected in str(error.value) and str(tmp_path / "a.pkl") in str(error.value)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"decoder.net.0.weight": np.zeros((64, 30), np.float32)}, "is 96, and this StyleGAN2 has only 90"),
        ({"decoder.net.2.weight": np.zeros((30, 64), np.float32)}, "decoder.net.2.weight has shape [30, 64]"),
        ({"superresolution.block1.torgb.bias": np.zeros(4, np.float32)}, "superresolution.block1.torgb.bias has shape"),
        ({"superresolution.block2.weight": np.zeros(4, np.float32)}, "unknown: superresolution.block2.weight"),
        ({"decoder.net.0.bias": np.full(64, np.nan, np.float32)}, "decoder.net.0.bias holds NaN"),
    ],
)
def test_tensors_that_ours_does_not_have_are_refused(tmp_path, reference, change, expected):
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(dump(tmp_path / "a.pkl", published(reference, change=change)))
    assert expected in str(error.value)


def test_other_axes_and_attributes_are_refused(tmp_path, reference):
    for name, network, expected in (
        ("axes", published(reference, axes=FIRST_AXES * 0.5), "are not permutations of the world's axes"),
        ("shape", published(reference, axes=FIRST_AXES[:2]), "not three matrices"),
        (
            "class",
            published(reference, attributes={r"superresolution\.block0": {"architecture": "resnet"}}),
            "its architecture of block0 is 'resnet'",
        ),
        (
            "mapping",
            published(reference, attributes={r"backbone\.mapping\.fc0": {"activation": "relu"}}),
            "its activation of mapping.fc0 is 'relu'",
        ),
    ):
        with pytest.raises(CheckpointError) as error:
            read_checkpoint(dump(tmp_path / f"{name}.pkl", network))
        assert expected in str(error.value)


def test_harm_within_an_eg3d_file_is_not_executed(tmp_path, reference):
    class Calls:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "executed"),)

    for place in ("state", "renderer"):
        network = published(reference)
        state = network.meta["state"]
        if place == "state":
            state["harm"] = Calls()
        else:
            state["_modules"]["renderer"].harm = Calls()
        with pytest.raises(CheckpointError, match=r"asks to import (posix|nt)\.mkdir"):
            read_checkpoint(dump(tmp_path / f"{place}.pkl", snapshot(network)))
    assert not (tmp_path / "executed").exists()


def test_module_dictionaries_cannot_be_replaced(tmp_path):
    """BUILD on a plain module takes one dictionary, once."""
    module = b"ctraining.volumetric_rendering.ray_sampler\nRaySampler\n)\x81"
    for name, tail in (("list", b"]b."), ("twice", b"}U\x01aK\x01sb}U\x01aK\x02sb."), ("call", b"")):
        data = b"\x80\x02" + module + tail
        if name == "call":
            data = b"\x80\x02" + module[:-2] + b"(K\x01t\x81."
        path = tmp_path / f"{name}.pkl"
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match="cut off or damaged"):
            read_checkpoint(path)


def test_a_2d_study_names_the_kind_that_it_was_given(tmp_path, reference):
    path = dump(tmp_path / "eg3d.pkl", snapshot(published(reference)))
    with pytest.raises(CheckpointError, match="it is an EG3D generator .* expected a 2D StyleGAN2") as error:
        CheckpointKind().read({"generator": path})
    assert error.value.kind == "eg3d"
