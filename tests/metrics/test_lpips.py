"""LPIPS and PSNR against the official package and the definition."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from clstudy.assets import asset_path
from clstudy.metrics.lpips import LPIPS, index_features
from clstudy.metrics.psnr import psnr
from tests.support.oracles import official_lpips


@pytest.fixture(scope="module")
def official() -> torch.nn.Module:
    if importlib.util.find_spec("lpips") is None:  # importing it before the oracle prepares torchvision would fail
        pytest.skip("install the lpips extra to compare with the official package")
    return official_lpips()


def pairs(size: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    a = torch.rand(4, 3, size, size, generator=rng) * 2 - 1
    b = (a + 0.3 * torch.randn(4, 3, size, size, generator=rng)).clamp(-1, 1)
    return a, b


@pytest.mark.parametrize("size", [64, 96, 256])
def test_equals_the_official_package(official: torch.nn.Module, size: int) -> None:
    a, b = pairs(size, seed=size)
    with torch.no_grad():
        torch.testing.assert_close(LPIPS()(a, b), official(a, b).flatten(), rtol=1e-6, atol=1e-7)


def test_gradient_equals_the_official_package(official: torch.nn.Module) -> None:
    a, b = pairs(64, seed=3)
    ours, theirs = a.clone().requires_grad_(True), a.clone().requires_grad_(True)
    LPIPS()(ours, b).sum().backward()
    official(theirs, b).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-7)


def test_heads_are_those_of_the_official_package(official: torch.nn.Module) -> None:
    state = load_file(asset_path("lpips_alex.safetensors"))
    for index in range(5):
        assert torch.equal(state[f"lin{index}.weight"], official.lins[index].model[-1].weight)


def test_features_computed_once_give_the_same_distance() -> None:
    model = LPIPS()
    a, b = pairs(64, seed=1)
    cached = model.features(b)
    chosen = torch.tensor([2, 0])
    torch.testing.assert_close(
        model.distance(model.features(a[chosen]), index_features(cached, chosen)), model(a, b)[chosen]
    )
    assert torch.equal(model(a, a), torch.zeros(4))


def test_psnr_is_its_definition() -> None:
    a, b = pairs(64, seed=5)
    mse = ((a.numpy() - b.numpy()) ** 2).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(psnr(a, b).numpy(), 10 * np.log10(2.0**2 / mse), rtol=1e-5)
    assert psnr(a, a).eq(100.0).all()
