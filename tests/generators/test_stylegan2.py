"""Our StyleGAN2 against the outputs of the published network definition (tests/data)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from clstudy.assets import asset_path
from clstudy.generators.embedded_generator import EmbeddedGenerator
from clstudy.generators.stylegan2 import StyleGAN2, StyleGAN2Settings, fir_filter, modulated_conv

DATA = Path(__file__).parents[1] / "data"


def load_reference(name: str) -> tuple[StyleGAN2, dict[str, torch.Tensor]]:
    with safe_open(DATA / f"{name}.safetensors", "pt") as file:
        sizes = {key: int(value) for key, value in file.metadata().items() if key != "torch"}
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    network = StyleGAN2(StyleGAN2Settings(**sizes)).requires_grad_(False)
    network.load_state_dict({k.removeprefix("net."): v for k, v in tensors.items() if k.startswith("net.")})
    return network, tensors


@pytest.mark.parametrize("name", ["stylegan2_32", "stylegan2_32_cond"])
def test_reproduces_the_reference_network(name: str) -> None:
    network, tensors = load_reference(name)
    z, c = tensors["in.z"], tensors.get("in.c")
    ws = network.mapping(z, c)
    cut = network.mapping(z, c, truncation_psi=0.6, truncation_cutoff=4)
    tolerance = {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(ws, tensors["out.ws"], **tolerance)
    torch.testing.assert_close(cut, tensors["out.ws_psi0.6_cutoff4"], **tolerance)
    for image, expected in (
        (network.synthesis(ws), tensors["out.image_noise_const"]),
        (network.synthesis(ws, noise=False), tensors["out.image_noise_none"]),
    ):
        # of the largest value: random weights give images up to 8, and sums are rounded as the processor adds them
        torch.testing.assert_close(image, expected, rtol=1e-5, atol=1e-5 * max(1.0, float(expected.abs().max())))


def test_scaling_activations_equals_scaling_weights() -> None:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(3, 5, 8, 8, generator=rng, dtype=torch.float64)
    weight = torch.randn(4, 5, 3, 3, generator=rng, dtype=torch.float64)
    styles = torch.randn(3, 5, generator=rng, dtype=torch.float64)
    expected = torch.cat(
        [torch.nn.functional.conv2d(x[i : i + 1], weight * styles[i][None, :, None, None], padding=1) for i in range(3)]
    )
    torch.testing.assert_close(modulated_conv(x, weight, styles), expected)


def test_upsampling_keeps_a_constant_image() -> None:
    from clstudy.generators.stylegan2 import upsample

    image = torch.full((1, 3, 8, 8), 0.7)
    grown = upsample(image, fir_filter())
    assert grown.shape == (1, 3, 16, 16)
    torch.testing.assert_close(grown[:, :, 2:-2, 2:-2], torch.full((1, 3, 12, 12), 0.7))


def test_wrong_shapes_and_sizes_are_named() -> None:
    network = StyleGAN2(StyleGAN2Settings(img_resolution=8, w_dim=16, z_dim=16, channel_max=8))
    with pytest.raises(ValueError, match=r"expected ws \[n, 4, 16\], got \(1, 3, 16\)"):
        network.synthesis(torch.zeros(1, 3, 16))
    with pytest.raises(ValueError, match="48"):
        StyleGAN2Settings(img_resolution=48)


def test_embedded_generator_size_and_copies() -> None:
    generator = EmbeddedGenerator()
    parameters = sum(p.numel() for p in generator.network.parameters())
    assert 500_000 <= parameters <= 2_000_000
    assert asset_path("embedded_generator.safetensors").stat().st_size < 12e6
    w = torch.from_numpy(np.random.default_rng(0).standard_normal((2, *generator.latent_shape)).astype(np.float32))
    module = generator.fresh()
    before = module(w)
    assert before.shape == (2, 3, 64, 64)
    state = generator.tunable_state(module)
    for parameter in module.parameters():
        parameter.data.add_(0.01)
    assert not torch.equal(module(w), before)
    assert torch.equal(generator.fresh()(w), before), "a copy must not change the pretrained weights"
    assert torch.equal(generator.fresh(state)(w), before), "saved weights give the same images"


def gradients(module: torch.nn.Module, w: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(module(w).square().mean(), list(module.parameters()), materialize_grads=True))


def test_recomputing_activations_changes_no_bit_and_keeps_fewer() -> None:
    """Memory is counted as the bytes that autograd holds for the backward pass."""
    network, tensors = load_reference("stylegan2_32")
    w = tensors["out.ws"][:, 0]
    module = network.synthesis.requires_grad_(True)
    held = {}
    found = {}
    for recompute in (False, True):
        module.recompute = recompute
        sizes: list[int] = []

        def pack(tensor: torch.Tensor, into: list[int] = sizes) -> torch.Tensor:
            into.append(tensor.numel() * tensor.element_size())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            module(w)
        held[recompute] = sum(sizes)
        found[recompute] = gradients(module, w)
    assert all(torch.equal(a, b) for a, b in zip(found[False], found[True], strict=True))
    assert held[True] < 0.5 * held[False], held


def test_a_clamp_limits_every_layer_and_a_wide_one_changes_nothing() -> None:
    settings = {"img_resolution": 32, "z_dim": 8, "w_dim": 8, "channel_base": 256, "channel_max": 16}
    torch.manual_seed(0)
    free = StyleGAN2(StyleGAN2Settings(**settings)).synthesis
    w = torch.randn(2, 8)
    for bound in (1e6, 0.25):
        module = StyleGAN2(StyleGAN2Settings(**settings, conv_clamp=bound)).synthesis
        module.load_state_dict(free.state_dict())
        outputs: list[torch.Tensor] = []
        for name, layer in module.named_modules():
            if name.endswith(("conv0", "conv1", "torgb")):
                layer.register_forward_hook(lambda *call, into=outputs: into.append(call[-1].detach()))
        image = module(w)
        assert len(outputs) == 11 and max(float(output.abs().max()) for output in outputs) <= bound
        assert torch.equal(image, free(w)) == (bound == 1e6)


def test_bfloat16_moves_images_a_little_and_gives_float32() -> None:
    network, tensors = load_reference("stylegan2_32")
    w = tensors["out.ws"][:, 0]
    exact = network.synthesis(w)
    network.synthesis.autocast = torch.bfloat16
    rounded = network.synthesis(w)
    assert rounded.dtype == torch.float32
    assert 1e-5 < float((rounded - exact).abs().max() / exact.std()) < 0.2
