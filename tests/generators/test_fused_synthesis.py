"""Fused layers compute what the plain ones do: images and every gradient, in double precision."""

import copy

import pytest
import torch
from torch import Tensor

from clstudy.errors import UserError
from clstudy.generators.embedded_generator import EmbeddedGenerator
from clstudy.generators.fused_synthesis import fused_block, lay_out
from clstudy.generators.low_rank import add_low_rank
from clstudy.generators.stylegan2 import StyleGAN2, StyleGAN2Settings, SynthesisNetwork
from clstudy.generators.synthesis_copies import apply_compute
from clstudy.settings.profiles import ComputeSettings, LowRankSettings

SMALL = StyleGAN2Settings(img_resolution=16, w_dim=12, channel_base=320, channel_max=24)
FUSED = ComputeSettings(kernels="fused")


def network(settings: StyleGAN2Settings = SMALL) -> SynthesisNetwork:
    torch.manual_seed(3)
    synthesis = StyleGAN2(settings).synthesis.double()
    with torch.no_grad():
        for name, parameter in synthesis.named_parameters():
            if name.endswith(("noise_strength", "bias")):  # zeros at first
                parameter.add_(torch.randn_like(parameter))
    return synthesis


def fused(plain: SynthesisNetwork) -> SynthesisNetwork:
    other = copy.deepcopy(plain)
    apply_compute(other, FUSED)
    assert other.block is fused_block
    return other


def image_and_gradients(module: SynthesisNetwork, ws: Tensor, noise: bool = True) -> dict[str, Tensor]:
    """The image, and gradients of a fixed random weighting of its pixels by ws and by whatever is trained."""
    ws = ws.clone().requires_grad_(True)
    image = module(ws, noise=noise)
    weighting = torch.randn(image.shape, generator=torch.Generator().manual_seed(1), dtype=image.dtype)
    named = {"ws": ws} | {name: value for name, value in module.named_parameters() if value.requires_grad}
    found = torch.autograd.grad((image * weighting).sum(), list(named.values()), allow_unused=True)
    gradients = {name: value for name, value in zip(named, found, strict=True) if value is not None}
    return {"image": image.detach()} | gradients


def assert_equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(
            ours[name], value, rtol=1e-9, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}"
        )


def latents(count: int = 3, settings: StyleGAN2Settings = SMALL, layers: int | None = None) -> Tensor:
    shape = (count, settings.w_dim) if layers is None else (count, layers, settings.w_dim)
    return torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.mark.parametrize("noise", [True, False])
@pytest.mark.parametrize("layers", [None, SMALL.num_ws])
@pytest.mark.parametrize("clamp", [None, 0.7])
def test_image_and_all_gradients_are_those_of_the_plain_layers(noise, layers, clamp):
    plain = network(StyleGAN2Settings(**(SMALL.to_dict() | {"conv_clamp": clamp})))
    ws = latents(layers=layers)
    assert_equal(image_and_gradients(fused(plain), ws, noise), image_and_gradients(plain, ws, noise))


def test_a_frozen_network_gives_the_gradient_of_the_latents_alone():
    plain = network().requires_grad_(False)
    ours = image_and_gradients(fused(plain), latents())
    assert ours.keys() == {"image", "ws"}
    assert_equal(ours, image_and_gradients(plain, latents()))


def test_low_rank_factors_are_trained_through_fused_layers():
    plain = network()
    add_low_rank(plain, LowRankSettings(rank=2))
    plain.double()
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            if name.endswith(".up"):
                parameter.add_(torch.randn_like(parameter))
    ours = image_and_gradients(fused(plain), latents())
    assert any(name.endswith("0.down") for name in ours)
    assert_equal(ours, image_and_gradients(plain, latents()))


def test_activation_checkpointing_changes_no_bit():
    once = network().float()
    again = copy.deepcopy(once)
    apply_compute(once, FUSED)
    apply_compute(again, ComputeSettings(kernels="fused", activation_checkpointing=True))
    ws = latents().float()
    ours, theirs = image_and_gradients(once, ws), image_and_gradients(again, ws)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_weights_keep_names_values_and_order_however_they_lie_in_memory():
    generator = EmbeddedGenerator(compute=FUSED)
    module = generator.fresh()
    assert isinstance(module, SynthesisNetwork)
    pretrained = EmbeddedGenerator().fresh().state_dict()
    assert not module.b16.conv0.weight.is_contiguous()
    assert all(torch.equal(value, pretrained[name]) for name, value in module.state_dict().items())
    stored = generator.tunable_state(module)
    assert all(value.is_contiguous() for value in stored.values())
    again = generator.fresh({name: value + 1 for name, value in stored.items()})
    assert all(torch.equal(value, stored[name] + 1) for name, value in again.named_parameters())


def test_float32_images_of_the_packaged_network_agree_to_rounding():
    ws = latents(settings=StyleGAN2Settings()).float() * 0.3
    with torch.no_grad():
        plain, ours = (EmbeddedGenerator(compute=one).fresh()(ws) for one in (ComputeSettings(), FUSED))
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-5)


def test_autocast_and_compilation_fuse_by_themselves():
    for compute in (ComputeSettings(kernels="fused", precision="bf16"), ComputeSettings(kernels="fused", compile=True)):
        module = network().float()
        apply_compute(module, compute)
        assert module.block is None


def test_another_resampling_filter_is_refused():
    module = network()
    module.b8.conv0.resample_filter.fill_(1 / 16)
    with pytest.raises(UserError, match=r"filter \[1, 3, 3, 1\] alone.*--set compute.kernels=plain"):
        lay_out(module)


def test_a_second_derivative_is_refused_and_not_wrong():
    module = fused(network())
    ws = latents().requires_grad_(True)
    with pytest.raises(UserError, match=r"second derivative.*--set compute.kernels=plain"):
        torch.autograd.grad(module(ws).sum(), ws, create_graph=True)
