"""Our EG3D against the outputs of the published network definition (tests/data)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from clstudy.generators.eg3d import EG3D, EG3DSettings, RenderingSettings, swapped
from clstudy.generators.stylegan2 import StyleGAN2Settings
from clstudy.generators.super_resolution import PUBLISHED
from clstudy.generators.volume_rendering import Uniform, camera_rays

DATA = Path(__file__).parents[1] / "data"


class AlwaysHalf:
    """What replaced the renderer's random numbers when the reference was recorded."""

    def coarse(self, shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
        return like.new_full(shape, 0.5)

    fine = coarse


def load_reference() -> tuple[EG3D, dict[str, torch.Tensor]]:
    with safe_open(DATA / "eg3d_tiny.safetensors", "pt") as file:
        facts = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    rendering = json.loads(facts["rendering"])
    sizes = ("z_dim", "c_dim", "w_dim", "channel_base", "channel_max", "mapping_layers")
    settings = EG3DSettings(
        backbone=StyleGAN2Settings(
            img_resolution=256,
            img_channels=96,
            embed_features=int(facts["mapping_embed_features"]),
            **{name: int(facts[name]) for name in sizes},
        ),
        superresolution=PUBLISHED[facts["superresolution"]],
        rendering=RenderingSettings(
            resolution=int(facts["neural_rendering_resolution"]),
            near=rendering["ray_start"],
            far=rendering["ray_end"],
            box=rendering["box_warp"],
            coarse=rendering["depth_resolution"],
            fine=rendering["depth_resolution_importance"],
        ),
    )
    network = EG3D(settings).requires_grad_(False)
    network.load_state_dict({k.removeprefix("net."): v for k, v in tensors.items() if k.startswith("net.")})
    return network, tensors


def assert_near(value: torch.Tensor, expected: torch.Tensor) -> None:
    """Within 1e-4 of the largest expected value; measured: 1.3e-5 and less."""
    torch.testing.assert_close(value, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


def test_reproduces_every_output_of_the_reference_network() -> None:
    network, tensors = load_reference()
    cameras = tensors["in.c"]
    ws = network.mapping(tensors["in.z"], cameras)
    planes = network.planes(ws)
    colours, densities = network.at_points(planes, tensors["in.points"])
    rays = camera_rays(cameras, network.settings.rendering.resolution)
    rendered = network.synthesis(ws, cameras, jitter=AlwaysHalf())
    found = {
        "ws": ws,
        "planes_every8th_pixel": planes.flatten(1, 2)[:, :, ::8, ::8],
        "ray_origins": rays.origins,
        "ray_directions": rays.directions,
        "point_rgb": colours,
        "point_sigma": densities,
        "image": rendered.image,
        "image_raw": rendered.raw,
        "image_depth": rendered.depth,
    }
    assert {f"out.{name}" for name in found} == {name for name in tensors if name.startswith("out.")}
    for name, value in found.items():
        assert_near(value, tensors[f"out.{name}"])


def test_without_jitter_an_image_is_exact_and_does_not_depend_on_its_batch() -> None:
    network, tensors = load_reference()
    ws = network.mapping(tensors["in.z"], tensors["in.c"])
    both = network.synthesis(ws, tensors["in.c"])
    again = network.synthesis(ws, tensors["in.c"])
    alone = network.synthesis(ws[1:], tensors["in.c"][1:])
    for whole, repeated, one in zip(both, again, alone, strict=True):
        assert torch.equal(whole, repeated)
        torch.testing.assert_close(whole[1:], one, rtol=1e-4, atol=1e-4)
    assert float((both.depth[0] - both.depth[1]).abs().max()) > 0.01


def test_jitter_is_that_of_its_seed() -> None:
    network, tensors = load_reference()
    ws = network.mapping(tensors["in.z"], tensors["in.c"])

    def raw(seed: int) -> torch.Tensor:
        jitter = Uniform(torch.Generator().manual_seed(seed))
        return network.synthesis(ws, tensors["in.c"], jitter=jitter, resolution=16).raw

    assert torch.equal(raw(3), raw(3))
    assert not torch.equal(raw(3), raw(4))


def test_one_w_for_all_layers_is_that_w_in_every_layer() -> None:
    network, tensors = load_reference()
    ws = tensors["out.ws"]
    assert torch.equal(ws[:, :1].expand_as(ws), ws), "the mapping gives every layer the same w"
    for one, all_layers in zip(
        network.synthesis(ws[:, 0], tensors["in.c"], resolution=8),
        network.synthesis(ws, tensors["in.c"], resolution=8),
        strict=True,
    ):
        assert torch.equal(one, all_layers)


def test_gradients_reach_latents_cameras_and_every_weight_that_shapes_an_image() -> None:
    network, tensors = load_reference()
    network.requires_grad_(True)
    ws = tensors["out.ws"].clone().requires_grad_(True)
    cameras = tensors["in.c"].clone().requires_grad_(True)
    rendered = network.synthesis(ws, cameras, resolution=8)
    (rendered.image.square().mean() + rendered.depth.mean()).backward()
    assert ws.grad is not None and cameras.grad is not None
    assert float(ws.grad.abs().sum()) > 0 and float(cameras.grad[:, :16].abs().sum()) > 0
    unused = {name for name, value in network.named_parameters() if value.grad is None}
    assert all(name.startswith("backbone.mapping.") or name.endswith("noise_strength") for name in unused), unused


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_super_resolution_modules_have_the_sizes_of_their_names(name: str) -> None:
    settings = PUBLISHED[name]
    expected = {"2X": 128, "4X": 256, "8X": 512, "8XDC": 512}
    assert settings.output_resolution == expected[name.removeprefix("SuperresolutionHybrid")]


def test_settings_survive_a_file() -> None:
    network, _ = load_reference()
    document = json.loads(json.dumps(network.settings.to_dict()))
    assert EG3DSettings.from_dict(document) == network.settings


def test_planes_that_do_not_fit_the_features_are_refused() -> None:
    with pytest.raises(ValueError, match="img_channels is 96; expected three planes of 16 features, 48"):
        EG3DSettings(
            backbone=StyleGAN2Settings(img_channels=96),
            superresolution=PUBLISHED["SuperresolutionHybrid2X"],
            features=16,
        )


def test_swapped_cameras_are_others_of_the_batch() -> None:
    cameras = torch.arange(4.0)[:, None].expand(4, 25)
    assert torch.equal(swapped(cameras, 0.0, torch.Generator().manual_seed(0)), cameras)
    assert torch.equal(swapped(cameras, 1.0, torch.Generator().manual_seed(0))[:, 0], torch.tensor([3.0, 0, 1, 2]))
    many = torch.arange(4000.0)[:, None].expand(4000, 25)
    share = float((swapped(many, 0.5, torch.Generator().manual_seed(0)) != many)[:, 0].float().mean())
    assert 0.45 < share < 0.55
