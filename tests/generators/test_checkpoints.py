"""Checkpoints: what is read equals what was written, and nothing that a file contains is ever executed."""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import math
import os
import pickle
import re
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save as save_safetensors
from scipy.signal import convolve2d, correlate2d

from clstudy.assets.readers.errors import CheckpointError, UnknownGlobals
from clstudy.assets.readers.pickle_limits import Limits
from clstudy.assets.readers.pickle_objects import TensorRef
from clstudy.assets.readers.pickle_scan import Scan
from clstudy.assets.readers.restricted_pickle import _load, read_objects
from clstudy.cli.generators import main
from clstudy.errors import UserError
from clstudy.generators.checkpoints.checkpoint import Checkpoint
from clstudy.generators.checkpoints.reading import read_checkpoint
from clstudy.generators.checkpoints.safetensors_files import write_safetensors
from clstudy.generators.checkpoints.sizes import channel_rule
from clstudy.generators.stylegan2 import StyleGAN2, StyleGAN2Settings
from tests.support.persistence_writer import (
    CLASSES,
    EasyDict,
    Persistent,
    discriminator,
    dump,
    network,
    ordinary,
    published_names,
    snapshot,
    synthesis_alone,
    torch_dump,
)

DATA = Path(__file__).parents[1] / "data"
TINY = StyleGAN2Settings(img_resolution=8, z_dim=3, w_dim=4, channel_base=16, channel_max=3, mapping_layers=1)
TAPS = np.outer([1, 3, 3, 1], [1, 3, 3, 1]).astype(np.float32) / 64


def random_tensors(sizes: StyleGAN2Settings, seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights under the names of a network, buffers included."""
    rng = np.random.default_rng(seed)
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in StyleGAN2(sizes).state_dict().items()}
    tensors = {name: np.asarray(rng.standard_normal(shape), np.float32) for name, shape in shapes.items()}
    return {name: TAPS if name.endswith("resample_filter") else value for name, value in tensors.items()}


def reference(name: str) -> tuple[dict[str, np.ndarray], dict[str, torch.Tensor]]:
    """Weights, and inputs and outputs, of the published network definition."""
    with safe_open(DATA / f"{name}.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    weights = {key.removeprefix("net."): value.numpy() for key, value in tensors.items() if key.startswith("net.")}
    return weights, tensors


def load(checkpoint: Checkpoint) -> StyleGAN2:
    module = StyleGAN2(checkpoint.settings).requires_grad_(False)
    module.load_state_dict({name: torch.from_numpy(value) for name, value in checkpoint.tensors.items()})
    return module


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message.removeprefix(f"{path}: ")


def tiny(attributes: dict[str, dict[str, Any]] | None = None, **options: Any) -> Persistent:
    return network(random_tensors(TINY), {**ordinary(), **(attributes or {})}, **options)


# --- reading -------------------------------------------------------------------------------------------------------


def as_snapshot(path: Path, net: Persistent) -> Path:
    return dump(path, snapshot(net))


def as_bare(path: Path, net: Persistent) -> Path:
    return dump(path, net)


def as_protocol_2(path: Path, net: Persistent) -> Path:
    return dump(path, snapshot(net), protocol=2)


def as_torch_zip(path: Path, net: Persistent) -> Path:
    return torch_dump(path, net)


def as_torch_dict(path: Path, net: Persistent) -> Path:
    return torch_dump(path, snapshot(net))


def as_old_torch(path: Path, net: Persistent) -> Path:
    return torch_dump(path, net, zipped=False)


FORMATS: dict[Callable[[Path, Persistent], Path], str] = {
    as_snapshot: "NVIDIA pickle (G_ema)",
    as_bare: "NVIDIA pickle (a bare network)",
    as_protocol_2: "NVIDIA pickle (G_ema)",
    as_torch_zip: "torch file of an NVIDIA module",
    as_torch_dict: "torch file of an NVIDIA module",
    as_old_torch: "torch file of an NVIDIA module",
}


@pytest.mark.parametrize(
    ("name", "write"),
    [("stylegan2_32", as_snapshot), *(("stylegan2_32_cond", write) for write in FORMATS)],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_reference_networks_give_their_published_outputs(tmp_path, name, write):
    weights, tensors = reference(name)
    path = write(tmp_path / "file", network(weights, ordinary()))
    checkpoint = read_checkpoint(path)
    assert (checkpoint.kind, checkpoint.format) == ("stylegan2", FORMATS[write])
    assert checkpoint.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    module = load(checkpoint)
    ws = module.mapping(tensors["in.z"], tensors.get("in.c"))
    torch.testing.assert_close(ws, tensors["out.ws"], rtol=1e-5, atol=1e-5)
    image = tensors["out.image_noise_const"]
    # of the largest value: random weights give images up to 8, and sums are rounded as the processor adds them
    torch.testing.assert_close(module.synthesis(ws), image, rtol=1e-5, atol=1e-5 * max(1.0, float(image.abs().max())))


@pytest.mark.parametrize("write", [as_bare, as_torch_zip, as_old_torch], ids=lambda value: value.__name__)
def test_a_synthesis_network_alone_is_read(tmp_path, write, capsys):
    """MyStyle's personalised models: equal to the same network within a generator, driven by w; converted likewise."""
    tensors, _ = reference("stylegan2_32")
    whole = load(read_checkpoint(as_snapshot(tmp_path / "whole.pkl", network(tensors, ordinary()))))
    path = write(tmp_path / "mystyle.pt", synthesis_alone(tensors, ordinary(conv_clamp=256.0)))
    read = read_checkpoint(path)
    assert (read.settings.mapping_layers, read.settings.w_dim, read.settings.conv_clamp) == (0, 24, 256.0)
    assert any("no mean latent" in note for note in read.notes)
    alone = load(read)
    for name, value in alone.synthesis.state_dict().items():
        assert torch.equal(value, whole.synthesis.state_dict()[name]), name
    ws = whole.mapping(torch.randn(2, whole.settings.z_dim, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(alone.synthesis(ws), whole.synthesis(ws), rtol=0, atol=0)
    with pytest.raises(ValueError, match="no mapping layers"):
        alone.mapping(torch.zeros(1, 24))
    assert main(["inspect", str(path)]) == 0
    assert re.search(r"mapping layers +0$", capsys.readouterr().out, re.MULTILINE)
    assert main(["convert", str(path), str(tmp_path / "mystyle.safetensors")]) == 0
    again = read_checkpoint(tmp_path / "mystyle.safetensors")
    assert again.settings == read.settings and any("no mean latent" in note for note in again.notes)
    assert all(np.array_equal(again.tensors[name], value) for name, value in read.tensors.items())


@pytest.mark.parametrize(
    "sizes",
    [
        TINY,
        StyleGAN2Settings(img_resolution=64, z_dim=8, w_dim=12, channel_base=512, channel_max=24, mapping_layers=8),
        StyleGAN2Settings(img_resolution=64, z_dim=8, c_dim=5, w_dim=12, channel_base=640, channel_max=48),
        StyleGAN2Settings(
            img_resolution=16, z_dim=8, c_dim=25, w_dim=12, channel_base=256, channel_max=16, embed_features=7
        ),
        StyleGAN2Settings(img_resolution=256, z_dim=8, w_dim=8, channel_base=1024, channel_max=16, conv_clamp=256.0),
        StyleGAN2Settings(img_resolution=32, z_dim=8, w_dim=8, channel_base=96, channel_max=3, mapping_layers=1),
    ],
    ids=lambda sizes: f"{sizes.img_resolution}px-c{sizes.c_dim}",
)
def test_sizes_and_tensors_come_back(tmp_path, sizes):
    tensors = random_tensors(sizes)
    path = dump(tmp_path / "network.pkl", snapshot(network(tensors, ordinary(conv_clamp=sizes.conv_clamp))))
    checkpoint = read_checkpoint(path)
    assert checkpoint.settings == sizes
    assert list(checkpoint.tensors) == list(StyleGAN2(sizes).state_dict())
    for name, value in tensors.items():
        assert checkpoint.tensors[name].dtype == np.float32
        np.testing.assert_array_equal(checkpoint.tensors[name], value)
    assert checkpoint.parameters == sum(parameter.numel() for parameter in load(checkpoint).parameters())


def test_float16_blocks_and_clamp(tmp_path):
    sizes = StyleGAN2Settings(img_resolution=32, z_dim=4, w_dim=4, channel_base=64, channel_max=4, mapping_layers=1)
    attributes = ordinary(conv_clamp=256, fp16_from=16)
    checkpoint = read_checkpoint(dump(tmp_path / "a.pkl", network(random_tensors(sizes), attributes)))
    assert checkpoint.settings.conv_clamp == 256
    assert checkpoint.notes == ("blocks 16…32 px were trained in float16; read as float32",)
    attributes[r"synthesis\.b8\.torgb"] = {"conv_clamp": None}
    message = refusal(dump(tmp_path / "b.pkl", network(random_tensors(sizes), attributes)))
    assert "different conv_clamp (256.0, None)" in message


def test_what_a_file_lacks_is_noted(tmp_path):
    tensors = random_tensors(TINY)
    del tensors["mapping.w_avg"]
    for name in [name for name in tensors if ".noise_" in name]:
        del tensors[name]
    attributes = {**ordinary(), r"synthesis\.b\d+\.conv\d": {"use_noise": False}}
    checkpoint = read_checkpoint(dump(tmp_path / "a.pkl", {"G": network(tensors, attributes), "D": None}))
    assert [note.partition(" ")[0] for note in checkpoint.notes] == ["G_ema", "the", "the"]
    assert "no noise inputs" in checkpoint.notes[1] and "keep truncation off" in checkpoint.notes[2]
    load(checkpoint)
    attributes = ordinary()  # noise that is used and not there
    message = refusal(dump(tmp_path / "b.pkl", network(tensors, attributes)))
    assert "missing: synthesis.b4.conv1.noise_const" in message


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old"])
def test_torch_files_agree_with_torch(tmp_path, zipped):
    """Oracle: torch.load."""
    base = torch.arange(60).reshape(3, 4, 5)
    content = OrderedDict(
        **{str(dtype): (base - 7).to(dtype) for dtype in (torch.int8, torch.int16, torch.int32, torch.int64)},
        **{str(dtype): (base / 7 - 3).to(dtype) for dtype in (torch.float16, torch.float32, torch.float64)},
        bfloat=(base / 7).to(torch.bfloat16),
        uint8=base.to(torch.uint8),
        boolean=base > 20,
        transposed=base.float().permute(2, 0, 1),
        strided=base.double()[1:, ::2, 3],
        scalar=torch.tensor(2.5),
        empty=torch.zeros(0, 3),
        parameter=torch.nn.Parameter(torch.randn(2, 2)),
    )
    content._metadata = {"": {"version": 1}}  # type: ignore[attr-defined]  # as state_dict() leaves it
    path = torch_dump(tmp_path / "a.pt", content, zipped=zipped)
    ours, is_torch_file = read_objects(path.read_bytes())
    theirs = torch.load(path, weights_only=True)
    assert is_torch_file and list(ours) == list(theirs)
    for name, expected in theirs.items():
        assert isinstance(ours[name], TensorRef)
        np.testing.assert_array_equal(ours[name].array(), expected.detach().to(_plain(expected.dtype)).numpy())


def _plain(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype == torch.bfloat16 else dtype


@given(st.integers(1, 40_000), st.integers(1, 600), st.integers(3, 10))
@settings(max_examples=60, deadline=None)
def test_channel_rule_reproduces_the_channels(base, maximum, power):
    def counts(base: int, maximum: int) -> dict[int, int]:
        return {2**i: min(base // 2**i, maximum) for i in range(2, power + 1)}

    wanted = counts(base, maximum)
    if wanted[4] > 0:
        found = channel_rule(wanted)
        assert counts(*found) == wanted and found[0] <= max(base, maximum * 2**power)


def test_channels_without_a_rule_are_refused():
    with pytest.raises(CheckpointError, match="4 px: 8, 8 px: 9"):
        channel_rule({4: 8, 8: 9})
    with pytest.raises(CheckpointError, match="follow no rule"):
        channel_rule({4: 64, 8: 32, 16: 30})


# --- rosinality ----------------------------------------------------------------------------------------------------


def rosinality_state(channels: dict[int, int], width: int, layers: int) -> OrderedDict[str, torch.Tensor]:
    """A random state dict under the names of rosinality's repository; ``channels`` maps resolutions to counts."""
    rng = torch.Generator().manual_seed(5)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=rng)

    kernel = 4 * torch.from_numpy(TAPS)
    state: dict[str, torch.Tensor] = {}
    for index in range(layers):
        state[f"style.{index + 1}.weight"] = 100 * normal(width, width)
        state[f"style.{index + 1}.bias"] = 30 * normal(width)
    state["input.input"] = normal(1, channels[4], 4, 4)

    def modulated(name: str, inputs: int, outputs: int, side: int) -> None:
        state[f"{name}.conv.weight"] = normal(1, outputs, inputs, side, side)
        state[f"{name}.conv.modulation.weight"] = normal(inputs, width)
        state[f"{name}.conv.modulation.bias"] = 1 + 0.3 * normal(inputs)

    def styled(name: str, inputs: int, outputs: int) -> None:
        modulated(name, inputs, outputs, 3)
        state[f"{name}.noise.weight"] = normal(1)
        state[f"{name}.activate.bias"] = normal(outputs)

    def to_rgb(name: str, inputs: int) -> None:
        modulated(name, inputs, 3, 1)
        state[f"{name}.bias"] = normal(1, 3, 1, 1)

    styled("conv1", channels[4], channels[4])
    to_rgb("to_rgb1", channels[4])
    state["noises.noise_0"] = normal(1, 1, 4, 4)
    for block, side in enumerate(sorted(channels)[1:]):
        styled(f"convs.{2 * block}", channels[side // 2], channels[side])
        state[f"convs.{2 * block}.conv.blur.kernel"] = kernel
        styled(f"convs.{2 * block + 1}", channels[side], channels[side])
        to_rgb(f"to_rgbs.{block}", channels[side])
        state[f"to_rgbs.{block}.upsample.kernel"] = kernel
        for index in (2 * block + 1, 2 * block + 2):
            state[f"noises.noise_{index}"] = normal(1, 1, side, side)
    return OrderedDict(state)


def rosinality_image(state: OrderedDict[str, torch.Tensor], z: np.ndarray, latent_avg: np.ndarray, psi: float):
    """Plain rendering in float64 with SciPy's convolutions: image ``[3, s, s]`` for one z ``[width]``.

    Zero insertion and true convolution upsample; ordinary layers correlate.
    """
    tensors = {name: value.double().numpy() for name, value in state.items()}

    def lrelu(x: np.ndarray) -> np.ndarray:
        return np.where(x > 0, x, 0.2 * x) * math.sqrt(2)

    def spread(x: np.ndarray, length: int) -> np.ndarray:
        grown = np.zeros((*x.shape[:-2], length, length))
        grown[..., ::2, ::2] = x
        return grown

    def modulate(name: str, w: np.ndarray, demodulate: bool) -> np.ndarray:
        weight = tensors[f"{name}.conv.weight"][0]
        styles = tensors[f"{name}.conv.modulation.weight"] @ w / math.sqrt(len(w))
        styles = styles + tensors[f"{name}.conv.modulation.bias"]
        weight = weight / math.sqrt(weight[0].size) * styles[None, :, None, None]
        if demodulate:
            weight = weight / np.sqrt((weight**2).sum(axis=(1, 2, 3), keepdims=True) + 1e-8)
        return weight

    def styled(x: np.ndarray, name: str, noise: int, up: bool) -> np.ndarray:
        weight = modulate(name, w, True)
        side = x.shape[-1]
        if up:
            x = spread(x, 2 * side - 1)
            x = np.stack([sum(convolve2d(x[i], row[i]) for i in range(len(x))) for row in weight])
            kernel = tensors[f"{name}.conv.blur.kernel"]
            x = np.stack([convolve2d(np.pad(channel, 1), kernel, mode="valid") for channel in x])
        else:
            x = np.stack([sum(correlate2d(x[i], row[i], mode="same") for i in range(len(x))) for row in weight])
        x = x + tensors[f"{name}.noise.weight"] * tensors[f"noises.noise_{noise}"][0]
        return lrelu(x + tensors[f"{name}.activate.bias"][:, None, None])

    def to_rgb(x: np.ndarray, name: str) -> np.ndarray:
        weight = modulate(name, w, False)[:, :, 0, 0]
        return np.einsum("oi,ihw->ohw", weight, x) + tensors[f"{name}.bias"][0]

    w = z / math.sqrt((z**2).mean() + 1e-8)
    for index in range(1, 1 + sum(name.startswith("style.") for name in tensors) // 2):
        weight, bias = tensors[f"style.{index}.weight"], tensors[f"style.{index}.bias"]
        w = lrelu(weight @ w * 0.01 / math.sqrt(len(w)) + bias * 0.01)
    w = latent_avg + psi * (w - latent_avg)
    x = styled(tensors["input.input"][0], "conv1", 0, up=False)
    image = to_rgb(x, "to_rgb1")
    for block in range(sum(name.startswith("to_rgbs.") and name.endswith(".bias") for name in tensors) // 2):
        x = styled(x, f"convs.{2 * block}", 2 * block + 1, up=True)
        x = styled(x, f"convs.{2 * block + 1}", 2 * block + 2, up=False)
        kernel = tensors[f"to_rgbs.{block}.upsample.kernel"]
        grown = np.pad(spread(image, 2 * image.shape[-1]), ((0, 0), (2, 1), (2, 1)))
        image = np.stack([convolve2d(channel, kernel, mode="valid") for channel in grown])
        image = image + to_rgb(x, f"to_rgbs.{block}")
    return image


CHANNELS = {4: 7, 8: 7, 16: 4}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old"])
def test_rosinality_translation_renders_the_same_image(tmp_path, zipped):
    state = rosinality_state(CHANNELS, width=6, layers=2)
    latent_avg = torch.randn(6, generator=torch.Generator().manual_seed(1))
    content = {
        "g": state,
        "d": {"final_linear.0.weight": torch.zeros(1)},
        "g_ema": state,
        "latent_avg": latent_avg,
        "g_optim": {"state": {0: {"step": 3}}, "param_groups": [{"lr": 0.002, "betas": (0.0, 0.99)}]},
        "args": argparse.Namespace(size=16, path="x"),
    }
    checkpoint = read_checkpoint(torch_dump(tmp_path / "a.pt", content, zipped=zipped))
    assert checkpoint.format == "rosinality state dict (g_ema)"
    assert checkpoint.notes == ("latent_avg found: it is w_avg",)
    assert checkpoint.settings == StyleGAN2Settings(
        img_resolution=16, z_dim=6, w_dim=6, channel_base=64, channel_max=7, mapping_layers=2
    )
    z = np.random.default_rng(2).standard_normal((2, 6)).astype(np.float32)
    ours = load(checkpoint)(torch.from_numpy(z), truncation_psi=0.7).numpy()
    for image, row in zip(ours, z, strict=True):
        expected = rosinality_image(state, row.astype(np.float64), latent_avg.double().numpy(), 0.7)
        np.testing.assert_allclose(image, expected, rtol=1e-5, atol=1e-5)
    mirrored = {name: v.flip(3, 4) if name == "convs.0.conv.weight" else v for name, v in state.items()}
    other = rosinality_image(OrderedDict(mirrored), z[0].astype(np.float64), latent_avg.double().numpy(), 0.7)
    assert np.abs(ours[0] - other).max() > 0.1, "the comparison must notice a mirrored kernel"


def test_rosinality_variants(tmp_path):
    state = rosinality_state(CHANNELS, width=6, layers=1)
    checkpoint = read_checkpoint(torch_dump(tmp_path / "a.pt", state))
    assert checkpoint.format == "rosinality state dict (bare)"
    assert "no latent_avg: w_avg is zero, so keep truncation off" in checkpoint.notes[0]
    assert not checkpoint.tensors["mapping.w_avg"].any()
    without_noise = {name: value for name, value in state.items() if not name.startswith("noises.")}
    checkpoint = read_checkpoint(torch_dump(tmp_path / "b.pt", {"g": without_noise, "latent_avg": torch.zeros(14, 6)}))
    assert [note[:20] for note in checkpoint.notes] == [
        "g_ema is not in the ",
        "the file has no cons",
        "the file has latent_",
    ]
    for change, expected in (
        ({"convs.0.noise.weight": None}, "has no tensor convs.0.noise.weight"),
        ({"convs.1.conv.weight": torch.zeros(4, 4, 3, 3)}, "synthesis.b8.conv1.weight"),
        ({"convs.0.conv.blur.kernel": torch.ones(4, 4) / 4}, "convs.0.conv.blur.kernel is not [1, 3, 3, 1]"),
        ({"noises.noise_2": torch.zeros(1, 1, 4, 4)}, "noises.noise_2 has shape [1, 1, 4, 4]"),
        ({"input.input": torch.full((1, 7, 4, 4), math.nan)}, "synthesis.b4.const holds NaN or infinity"),
    ):
        changed = {name: value for name, value in (state | change).items() if value is not None}
        assert expected in refusal(torch_dump(tmp_path / "c.pt", {"g_ema": changed}))


# --- our own files and the commands --------------------------------------------------------------------------------


def test_safetensors_round_trip(tmp_path):
    source = dump(tmp_path / "a.pkl", tiny(ordinary(conv_clamp=256)))
    original = read_checkpoint(source)
    write_safetensors(original, tmp_path / "a.safetensors")
    write_safetensors(read_checkpoint(source), tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    again = read_checkpoint(tmp_path / "a.safetensors")
    assert again.format == "clstudy safetensors"
    assert again.settings == original.settings
    assert again.notes == (f"converted from NVIDIA pickle (a bare network), sha256 {original.sha256}",)
    for name, value in original.tensors.items():
        np.testing.assert_array_equal(again.tensors[name], value)
    with pytest.raises(UserError, match="expected a name that ends in .safetensors"):
        write_safetensors(original, tmp_path / "a.pt")


def test_tensors_of_another_order_in_memory_are_written_as_they_read(tmp_path):
    """safetensors writes the memory of an array as it lies, whatever its strides say."""
    original = read_checkpoint(dump(tmp_path / "a.pkl", tiny()))
    turned = {name: np.asarray(value, order="F") for name, value in original.tensors.items()}
    assert not all(value.flags.c_contiguous for value in turned.values())
    for name, tensors in (("a", original.tensors), ("b", turned)):
        write_safetensors(replace(original, tensors=tensors), tmp_path / f"{name}.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_foreign_and_altered_safetensors_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    write_safetensors(read_checkpoint(dump(tmp_path / "a.pkl", tiny())), path)
    whole = path.read_bytes()
    with safe_open(path, "np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        document = json.loads(file.metadata()["clstudy"])
    for length in (9, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert "cut off or damaged" in refusal(path)
    path.write_bytes(save_safetensors(tensors))
    assert "convert` did not write" in refusal(path)
    for change, expected in (
        ({"format_version": 2}, "format version 2; this clstudy reads version 1"),
        ({"settings": document["settings"] | {"depth": 3}}, "unknown settings depth"),
        ({"settings": document["settings"] | {"img_resolution": 48}}, "img_resolution is 48"),
        ({"settings": document["settings"] | {"w_dim": 5}}, "do not fit its tensors"),
        ({"settings": document["settings"] | {"conv_clamp": math.nan}}, "conv_clamp of its layers is nan"),
        ({"settings": [1, 2]}, "its settings cannot be used"),
    ):
        path.write_bytes(save_safetensors(tensors, metadata={"clstudy": json.dumps(document | change)}))
        assert expected in refusal(path)


def test_inspect_and_convert(tmp_path, capsys):
    path = dump(tmp_path / "a.pkl", tiny(ordinary(conv_clamp=256)))
    out = tmp_path / "a.safetensors"
    assert main(["inspect", str(path)]) == 0
    shown = {line.split("  ", 1)[0]: line.split("  ", 1)[1].strip() for line in capsys.readouterr().out.splitlines()}
    assert shown["format"] == "NVIDIA pickle (a bare network)" and shown["resolution"] == "8 px"
    assert shown["channels"] == "4: 3, 8: 2" and shown["conv_clamp"] == "256" and shown["z_dim"] == "3"
    assert shown["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert main(["convert", str(path), str(out)]) == 0
    assert hashlib.sha256(out.read_bytes()).hexdigest() in capsys.readouterr().out
    written = out.read_bytes()
    out.write_bytes(b"mine")
    assert main(["convert", str(path), str(out)]) == 2
    assert "--force" in capsys.readouterr().err and out.read_bytes() == b"mine"
    assert main(["convert", str(path), str(out), "--force"]) == 0
    assert out.read_bytes() == written
    assert main(["inspect", str(dump(tmp_path / "d.pkl", discriminator()))]) == 2
    streams = capsys.readouterr()
    assert "kind  discriminator" in streams.out and "no generator" in streams.err and "Traceback" not in streams.err
    assert main(["inspect", str(tmp_path / "a.pk")]) == 2
    assert "Did you mean 'a.pkl'?" in capsys.readouterr().err


# --- recognised and refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "change", "expected"),
    [
        (r"synthesis\.b\d+", {"architecture": "resnet"}, "architecture of synthesis.b4 is 'resnet'"),
        (r"mapping\.fc0", {"activation": "relu"}, "activation of mapping.fc0 is 'relu'"),
        (r"synthesis\.b8\.conv0", {"activation": "swish"}, "activation of synthesis.b8.conv0 is 'swish'"),
        (r"mapping\.fc0", {"bias_gain": 1.0}, "(lr_multiplier) of mapping.fc0 is 1.0"),
        (r"mapping\.fc0", {"bias_gain": [0.01]}, "(lr_multiplier) of mapping.fc0 is a list"),
        (r"synthesis\.b\d\.(conv\d|torgb)", {"conv_clamp": -1}, "conv_clamp of its layers is -1, not"),
        (r"synthesis\.b\d\.(conv\d|torgb)", {"conv_clamp": "no"}, "conv_clamp of its layers is 'no', not"),
    ],
)
def test_networks_that_ours_does_not_reproduce(tmp_path, part, change, expected):
    attributes = ordinary()
    attributes[part] = {**attributes.get(part, {}), **change}
    assert expected in refusal(dump(tmp_path / "a.pkl", tiny(attributes)))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"synthesis.b8.conv0.resample_filter": np.full((4, 4), 1 / 16, np.float32)}, "is not [1, 3, 3, 1]"),
        ({"synthesis.b8.torgb.weight": np.zeros((1, 2, 1, 1), np.float32)}, "1 channels (img_channels)"),
        ({"synthesis.b8.conv1.weight": np.zeros((5, 5, 3, 3), np.float32)}, "follow no rule"),
        ({"synthesis.b16.conv1.weight": np.zeros((1, 1, 3, 3), np.float32)}, "missing"),
        ({"synthesis.b32.const": np.zeros((1, 1, 3, 3), np.float32)}, "resolutions are [4, 8, 32]"),
        ({"mapping.embed.weight": np.zeros((2, 7), np.float32)}, "missing: mapping.embed.bias"),
        ({"mapping.extra.weight": np.zeros(2, np.float32)}, "unknown: mapping.extra.weight"),
        ({"mapping.w_avg": np.zeros(7, np.float32)}, "mapping.w_avg has shape [7]"),
    ],
)
def test_tensors_that_ours_does_not_have(tmp_path, change, expected):
    assert expected in refusal(dump(tmp_path / "a.pkl", network(random_tensors(TINY) | change, ordinary())))


def stylegan3() -> Persistent:
    names = {"mapping.fc0.weight": (4, 4), "synthesis.input.weight": (4, 4), "synthesis.L0_36_512.weight": (4, 4, 3, 3)}
    tensors = {name: np.zeros(shape, np.float32) for name, shape in names.items()}
    return network(tensors, classes=(("synthesis.input", "SynthesisInput"), *CLASSES))


def tensorflow(path: Path) -> Path:
    """The first instructions of a TensorFlow snapshot: three networks, a tuple."""
    one = b"\x8c\x13dnnlib.tflib.network\x8c\x07Network\x93)\x81}\x8c\x04name\x8c\x01Gsb"
    one = one.replace(b"\x8c\x13dnnlib", b"\x8c\x14dnnlib")
    path.write_bytes(b"\x80\x04" + 3 * one + b"\x87.")
    return path


@pytest.mark.parametrize(
    ("kind", "expected", "write"),
    [
        ("stylegan3", "a StyleGAN3 generator", lambda path: dump(path, snapshot(stylegan3()))),
        ("tensorflow", "legacy.py --source=OLD.pkl --dest=NEW.pkl", tensorflow),
        ("discriminator", "a discriminator and no generator", lambda path: dump(path, {"D": discriminator()})),
        ("discriminator", "a discriminator and no generator", lambda path: torch_dump(path, discriminator())),
        (
            "discriminator",
            "a discriminator and no generator",
            lambda path: torch_dump(path, {"d": {"final_linear.0.weight": torch.zeros(2)}}),
        ),
    ],
)
def test_other_networks_are_named(tmp_path, capsys, kind, expected, write):
    path = write(tmp_path / "a.pkl")
    message = refusal(path)
    assert expected in message and "executed" not in message
    assert main(["inspect", str(path)]) == 2
    assert capsys.readouterr().out == f"kind  {kind}\n"


def test_harm_does_not_pass_for_another_kind_of_network(tmp_path):
    """The advice on a TensorFlow pickle is a program that would run it."""
    harm = b"cposix\nsystem\n0"
    path = tensorflow(tmp_path / "a.pkl")
    path.write_bytes(path.read_bytes()[:2] + harm + path.read_bytes()[2:])
    assert "posix.system, dnnlib.tflib.network.Network" in refusal(path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "the file is empty"),
        (b"\x89PNG\r\n\x1a\n\0\0\0", "it is a PNG image"),
        (b"\n<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 381624121\n", "it is a git-LFS pointer"),
        (b"ffhq.pkl, see the readme\n", "it is a text file"),
        (b".gitignore\n", "it is a text file"),
        ('{"größe": 1}'.encode(), "it is a text file"),
        (b"\x1f\x8b\x08\0\0", "compressed with gzip: unpack it first"),
        (b"\x07\x00\x13\x12\xfe\xff", "not a known kind of file"),
        (b"\x80\x04K\x01.", "it holds an object of type int, not a network"),
        (b"\x80\x04}\x8c\x05stateK\x01s.", "a dictionary without a generator (keys: state)"),
        (b"\x80\x04", "it is cut off or damaged"),
        (b"PK\x03\x04 and so on", "it is cut off or damaged"),
    ],
)
def test_wrong_files_are_named(tmp_path, content, expected):
    path = tmp_path / "network.pkl"
    path.write_bytes(content)
    assert expected in refusal(path)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_missing_file_folder_and_other_zips(tmp_path):
    assert "no such file" in refusal(tmp_path / "network.pkl")
    assert "no such file" in refusal(tmp_path / "nowhere" / "network.pkl")
    assert "this is a folder" in refusal(tmp_path)
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("network.pkl", b"x")
    assert "unpack it and give the checkpoint inside" in refusal(path)
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
    assert "TorchScript" in refusal(path)
    bomb = torch_dump(tmp_path / "a.pt", tiny())
    with zipfile.ZipFile(bomb) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    assert "compressed zip" in refusal(path)


@pytest.mark.parametrize("write", [as_snapshot, as_torch_zip, as_old_torch], ids=lambda write: write.__name__)
def test_truncated_files(tmp_path, write):
    whole = write(tmp_path / "a", tiny()).read_bytes()
    path = tmp_path / "cut"
    for length in (1, 5, 30, len(whole) // 10, len(whole) // 2, len(whole) * 9 // 10, len(whole) - 1):
        path.write_bytes(whole[:length])
        message = refusal(path)
        assert "cut off or damaged" in message or (length < 4 and write is as_torch_zip), (length, message)


# --- nothing is executed -------------------------------------------------------------------------------------------


class Calls:
    """Pickled as a call of any function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any):
        self._call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self._call


class SetsState:
    """Does harm when its state is set."""

    def __init__(self, sentinel: Path):
        self.sentinel = str(sentinel)

    def __setstate__(self, state: dict[str, Any]) -> None:
        Path(state["sentinel"]).touch()


def _nested_torch_file(sentinel: Path, *, zipped: bool) -> Calls:
    stream = io.BytesIO()
    torch.save(Calls(os.mkdir, str(sentinel)), stream, _use_new_zipfile_serialization=zipped)
    return Calls(torch.storage._load_from_bytes, stream.getvalue())


ATTACKS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "os": (lambda sentinel: Calls(os.system, f"touch {sentinel}"), "posix.system"),
    "eval": (lambda sentinel: Calls(eval, f"open({str(sentinel)!r}, 'w')"), ".eval"),
    "getattr": (lambda sentinel: Calls(getattr, Calls(os.mkdir, str(sentinel)), "x", None), ".getattr"),
    "setstate": (SetsState, "tests.generators.test_checkpoints.SetsState"),
    "subprocess": (
        lambda sentinel: Calls(subprocess.call, ["touch", str(sentinel)]),
        ".call",
    ),  # protocol 2 calls the module "commands"
    "nested torch file": (lambda sentinel: _nested_torch_file(sentinel, zipped=False), "posix.mkdir"),
    "nested zip": (lambda sentinel: _nested_torch_file(sentinel, zipped=True), "cut off or damaged"),
}


def _in_state(attack: Any) -> Persistent:
    return tiny({"mapping": {"note": attack}})


def _in_parameters(attack: Any) -> Persistent:
    net = tiny()
    net.meta["state"]["_modules"]["mapping"].meta["state"]["_parameters"]["extra"] = attack
    return net


def _in_options(attack: Any) -> dict[str, Any]:
    return snapshot(tiny()) | {"training_set_kwargs": EasyDict(class_name=attack)}


PLACES: dict[str, Callable[[Any], Any]] = {
    "alone": lambda attack: attack,
    "state": _in_state,
    "parameters": _in_parameters,
    "options": _in_options,
    "state dict": lambda attack: {"g_ema": rosinality_state({4: 2, 8: 2}, width=2, layers=1), "args": attack},
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", ATTACKS)
def test_code_in_a_file_is_not_executed(tmp_path, name, place):
    make, named = ATTACKS[name]
    sentinel = tmp_path / "executed"
    attack = make(sentinel)
    for path in (
        dump(tmp_path / "a.pkl", PLACES[place](attack)),
        dump(tmp_path / "b.pkl", PLACES[place](attack), protocol=2),
        torch_dump(tmp_path / "a.pt", PLACES[place](attack)),
        torch_dump(tmp_path / "b.pt", PLACES[place](attack), zipped=False),
    ):
        message = refusal(path)
        assert named in message
        assert "cut off" in named or "nothing was executed" in message
        assert not sentinel.exists()


@pytest.mark.parametrize("name", ATTACKS)
def test_the_attacks_do_work_on_an_ordinary_unpickler(tmp_path, name):
    """Without this the test above could pass on harmless files."""
    sentinel = tmp_path / "executed"
    content = pickle.dumps(ATTACKS[name][0](sentinel))
    assert not sentinel.exists()
    try:
        pickle.loads(content)
    except Exception as error:  # torch complains about what the nested file returned, after it has run
        print(error)
    assert sentinel.exists()


def test_the_source_in_a_file_is_not_executed(tmp_path):
    sentinel = tmp_path / "executed"
    path = dump(tmp_path / "a.pkl", snapshot(tiny(module_src=f"open({str(sentinel)!r}, 'w')")))
    before = set(sys.modules)
    assert read_checkpoint(path).settings == TINY
    assert not sentinel.exists()
    assert not {name for name in set(sys.modules) - before if name.startswith(("torch_utils", "dnnlib"))}


def _text(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (b"cposix\nmkdir\n(S'{}'\ntR.", "posix.mkdir"),
        (b"(S'{}'\niposix\nmkdir\n.", "posix.mkdir"),
        (b"(cposix\nmkdir\nS'{}'\no.", "posix.mkdir"),
        # names from the memo, which a scan can follow
        (b"\x80\x04" + _text("posix") + b"\x940" + _text("mkdir") + b"\x940h\x00h\x01\x93(V{}\ntR.", "posix.mkdir"),
        # names that a scan takes for something else: what lies between them is dropped from the stack
        (b"\x80\x04" + _text("posix") + b"N0" + _text("mkdir") + b"N0\x93(V{}\ntR.", "posix.mkdir"),
        (b"\x80\x04(" + _text("posix") + _text("mkdir") + b"t0N" + b"(icollections\nOrderedDict\n0.", "INST"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"P0\n.", "PERSID"),
        (b"\x80\x02K\x00Q.", "persistent ids outside a torch file"),
        # an attribute of a function, of a class, of a dictionary class
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}U\x01xK\x01sb.", "cut off or damaged"),
        (b"\x80\x02ccollections\nOrderedDict\nN}U\x05itemsK\x01s\x86b.", "cut off or damaged"),
        (b"\x80\x02ccollections\nOrderedDict\n)R}U\x05itemsK\x01sb.", "a dictionary without a generator"),
        # calls of what is not a function: a string, a number type, a result
        (b"\x80\x02U\x05posix)R.", "cut off or damaged"),
        (b"\x80\x02ctorch\nFloatStorage\n)R.", "cut off or damaged"),
        (b"\x80\x02cbuiltins\nset\n]\x85R)R.", "cut off or damaged"),
    ],
)
def test_handwritten_pickles(tmp_path, program, expected):
    sentinel = tmp_path / "executed"
    path = tmp_path / "a.pkl"
    path.write_bytes(program.replace(b"{}", str(sentinel).encode()))
    assert expected in refusal(path)
    assert not sentinel.exists()


def test_hidden_names_pass_the_scan_and_are_refused_all_the_same():
    """The first of the two hidden programs above is found by the scan, the second by the unpickler."""
    program = b"\x80\x04" + _text("posix") + b"N0" + _text("mkdir") + b"N0\x93(Vx\ntR."
    limits = Limits(len(program))
    scan = Scan(limits=limits)
    scan.read(io.BytesIO(program))
    assert not scan.unknown
    with pytest.raises(UnknownGlobals, match=r"posix\.mkdir"):
        _load(io.BytesIO(program), limits)


def test_all_unknown_names_are_listed_at_once(tmp_path):
    content = snapshot(tiny()) | {"a": Calls(os.system, "x"), "b": [Calls(eval, "y"), torch.nn.Tanh()]}
    message = refusal(dump(tmp_path / "a.pkl", content))
    assert "posix.system, builtins.eval, torch.nn.modules.activation.Tanh" in message


def test_numpy_objects_are_refused(tmp_path):
    for value in (np.array([{}, None], dtype=object), np.zeros(2, dtype=[("a", "i4")])):
        assert "dtype object or with fields" in refusal(dump(tmp_path / "a.pkl", tiny({"mapping": {"x": value}})))
    texts = {"mapping": {"x": np.array(["some", "text"]), "y": np.str_("word"), "z": np.arange(3, dtype=">i2")}}
    assert read_checkpoint(dump(tmp_path / "b.pkl", tiny(texts))).settings == TINY


class RawTensor:
    """A tensor's description with any numbers in it."""

    def __init__(self, offset: Any, size: Any, stride: Any):
        self._arguments = (torch.zeros(4).storage(), offset, size, stride, False, OrderedDict())

    def __reduce__(self) -> tuple[Any, ...]:
        return torch._utils._rebuild_tensor_v2, self._arguments


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (0, (10**6, 10**6), (0, 0)),
        (0, (5,), (1,)),
        (1, (4,), (1,)),
        (-1, (2,), (1,)),
        (0, (2,), (-1,)),
        (0, (2, 2), (1, 10)),
        (0, (2,), (1, 1)),
        (0, (2.0,), (1,)),
        (10**30, (1,), (1,)),
        (0, (0, 10**30), (10**30, 10**30)),
        (0, (4, 1), (1, 10**30)),
    ],
)
def test_tensors_outside_their_storage(tmp_path, offset, size, stride):
    net = tiny()
    net.meta["state"]["_modules"]["mapping"].meta["state"]["_buffers"]["w_avg"] = RawTensor(offset, size, stride)
    refusal(dump(tmp_path / "a.pkl", net))
    refusal(torch_dump(tmp_path / "a.pt", net))


def test_networks_that_contain_themselves(tmp_path):
    net = tiny()
    net.meta["state"]["_modules"]["again"] = Persistent("Generator", {"_modules": net.meta["state"]["_modules"]})
    assert "contain themselves" in refusal(dump(tmp_path / "a.pkl", net))
    state: dict[str, Any] = {}
    for _ in range(15):  # 4^15 parts in a small file
        state = {"_modules": {key: Persistent("Generator", state) for key in "abcd"}}
    assert "contain themselves" in refusal(dump(tmp_path / "b.pkl", Persistent("Generator", state)))


@pytest.fixture(scope="module")
def small_files(tmp_path_factory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("small")
    files = [
        write(folder / "a", tiny(module_src="pass")).read_bytes() for write in (as_bare, as_torch_zip, as_old_torch)
    ]
    state = rosinality_state({4: 2, 8: 2}, width=2, layers=1)
    files.append(torch_dump(folder / "b", {"g_ema": state}).read_bytes())
    write_safetensors(read_checkpoint(dump(folder / "c", tiny())), folder / "c.safetensors")
    return [*files, (folder / "c.safetensors").read_bytes()]


@pytest.mark.filterwarnings("ignore:invalid escape sequence")  # pickletools on noise
@given(data=st.data())
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_altered_bytes_are_read_or_refused(small_files, tmp_path, data):
    content = bytearray(data.draw(st.sampled_from(small_files)))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "a"
    path.write_bytes(content)
    try:
        assert read_checkpoint(path).kind == "stylegan2"
    except CheckpointError as error:
        assert str(error).startswith(str(path))


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
@given(start=st.sampled_from([b"", b"\x80\x02", b"\x80\x04", b"PK\x03\x04"]), content=st.binary(max_size=200))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_bytes_are_refused(tmp_path, start, content):
    path = tmp_path / "a"
    path.write_bytes(start + content)
    refusal(path)


def test_help_is_true(capsys):
    """The help names every format that FORMATS and the others above are read as."""
    assert main(["inspect", "--help"]) == 0
    text = capsys.readouterr().out
    for words in ("NVIDIA pickle", "torch file", "rosinality", "clstudy", "exit code: 0 done, 2"):
        assert words in text


def test_writer_leaves_no_modules_behind():
    with published_names():
        assert "dnnlib.util" in sys.modules
    assert "dnnlib.util" not in sys.modules and EasyDict.__module__ == "tests.support.persistence_writer"
