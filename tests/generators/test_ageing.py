"""Prior and adapter of ages: against slow renderings, and what they are before training."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from clstudy.assets import asset_path
from clstudy.errors import UserError
from clstudy.faces.ages import AgeEstimator
from clstudy.generators.age_priors import frozen_synthesis, open_prior
from clstudy.generators.ageing import (
    AgeAdapter,
    AgedGenerator,
    AgePrior,
    PriorSizes,
    latents_at,
    read_prior,
    save_prior,
    split_latents,
)
from clstudy.generators.embedded_generator import EmbeddedGenerator
from clstudy.identities.virtual.moment import Moment
from clstudy.identities.virtual.person import draw_virtual_person
from clstudy.identities.virtual.photo import Sitter
from clstudy.images import to_unit_range

SIZES = PriorSizes(num_ws=3, w_dim=8, width=12, depth=2, heads=3)


def scattered(module: torch.nn.Module, seed: int = 0) -> None:
    """Give every parameter random numbers, those that begin as zeros, too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in module.parameters():
            value.copy_(torch.randn(value.shape, generator=generator) * 0.3)


def prior_of(seed: int = 0) -> AgePrior:
    prior = AgePrior(SIZES)
    scattered(prior, seed)
    return prior.double()


def adapter_of() -> AgeAdapter:
    adapter = AgeAdapter(num_ws=3, w_dim=8, neck=4, shared=5, age_width=2, hidden=6)
    scattered(adapter)
    return adapter.double()


def linear(x: np.ndarray, weight: torch.Tensor, bias: torch.Tensor) -> np.ndarray:
    """A linear layer spelled out."""
    w, b = weight.detach().numpy(), bias.detach().numpy()
    return np.array([sum(w[j, i] * x[i] for i in range(len(x))) + b[j] for j in range(len(b))])


def normalised(x: np.ndarray, layer: torch.nn.Module) -> np.ndarray:
    mean, deviation = x.mean(), math.sqrt(((x - x.mean()) ** 2).mean() + 1e-5)
    return (x - mean) / deviation * layer.weight.detach().numpy() + layer.bias.detach().numpy()


def numbers(age: float) -> np.ndarray:
    x = (age / 100 - 0.5) * 2
    return np.array([x, 2 * x * x - 1])


def leaky(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, 0.2 * x)


def test_the_prior_is_a_transformer_of_the_layers_tokens() -> None:
    prior, w = prior_of(), np.random.default_rng(0).normal(size=8)
    silu = linear(numbers(37), prior.age[0].weight, prior.age[0].bias)
    embedded = linear(silu / (1 + np.exp(-silu)), prior.age[2].weight, prior.age[2].bias)
    entered = linear(w, prior.enter.weight, prior.enter.bias) + embedded
    tokens = [entered + prior.layer[at].detach().numpy() for at in range(3)]
    for block in prior.blocks:
        whole = [
            linear(normalised(x, block.norm0), block.queries_keys_values.weight, block.queries_keys_values.bias)
            for x in tokens
        ]
        mixed = [np.zeros(12) for _ in tokens]
        for head in range(3):
            part = slice(4 * head, 4 * head + 4)
            queries, keys, values = ([x[12 * at : 12 * at + 12][part] for x in whole] for at in range(3))
            for to in range(3):
                weights = np.array([math.exp(queries[to] @ key / 2) for key in keys])
                mixed[to][part] = sum(s * value for s, value in zip(weights / weights.sum(), values, strict=True))
        tokens = [x + linear(m, block.out.weight, block.out.bias) for x, m in zip(tokens, mixed, strict=True)]
        after = []
        for x in tokens:
            wide = linear(normalised(x, block.norm1), block.mlp[0].weight, block.mlp[0].bias)
            gelu = np.array([0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in wide])
            after.append(x + linear(gelu, block.mlp[2].weight, block.mlp[2].bias))
        tokens = after
    expected = [w + linear(normalised(x, prior.norm), prior.leave.weight, prior.leave.bias) for x in tokens]
    found = prior(torch.from_numpy(w)[None], torch.tensor([37.0], dtype=torch.float64))
    np.testing.assert_allclose(found[0].detach(), expected, rtol=1e-5)


def test_the_adapter_is_a_network_of_each_layer_with_what_they_share() -> None:
    adapter, ws = adapter_of(), np.random.default_rng(1).normal(size=(3, 8))

    def own(layer: torch.nn.Module, at: int, x: np.ndarray) -> np.ndarray:
        return linear(x, layer.weight[at].t(), layer.bias[at, 0])

    narrow = [leaky(own(adapter.down1, at, leaky(own(adapter.down0, at, ws[at])))) for at in range(3)]
    shared = leaky(linear(np.concatenate(narrow), adapter.together.weight, adapter.together.bias))
    age = linear(numbers(52), adapter.age.weight, adapter.age.bias)
    expected = [
        own(adapter.up1, at, leaky(own(adapter.up0, at, np.concatenate([ws[at], shared, age])))) for at in range(3)
    ]
    found = adapter(torch.from_numpy(ws)[None], torch.tensor([52.0], dtype=torch.float64))
    np.testing.assert_allclose(found[0].detach(), expected, rtol=1e-5)


def test_before_training_the_prior_returns_w_and_the_adapter_adds_nothing() -> None:
    w, ages = torch.randn(2, 8), torch.tensor([20.0, 70.0])
    ws = AgePrior(SIZES)(w, ages)
    assert torch.equal(ws, w[:, None].expand(-1, 3, -1))
    added = AgeAdapter(num_ws=3, w_dim=8, neck=4, shared=5, age_width=2, hidden=6)(ws, ages)
    assert not added.any() and added.shape == ws.shape


def test_a_latent_is_made_at_the_age_that_it_says() -> None:
    synthesis = torch.nn.Flatten()
    prior, adapter = prior_of(), adapter_of()
    network = AgedGenerator(synthesis, prior, adapter)
    w, ages = torch.randn(2, 8, dtype=torch.float64), torch.tensor([31.0, 58.0], dtype=torch.float64)
    latents = latents_at(w, ages)
    again = split_latents(latents)
    assert torch.equal(again[0], w) and torch.equal(again[1], ages)
    ws = prior(w, ages)
    assert torch.allclose(network(latents), (ws + adapter(ws, ages)).flatten(1))
    assert {name.split(".")[0] for name, _ in network.named_parameters()} == {"adapter"}
    network(latents).sum().backward()
    assert all(value.grad is None for value in prior.parameters()), "the prior is never trained"


def test_a_prior_survives_its_file(tmp_path: Path) -> None:
    prior = prior_of().float().half().float()
    save_prior(prior, tmp_path / "age_prior.safetensors")
    again = read_prior(tmp_path / "age_prior.safetensors")
    w, ages = torch.randn(2, 8), torch.tensor([20.0, 70.0])
    assert again.sizes == SIZES and torch.equal(prior(w, ages), again(w, ages))
    assert not any(value.requires_grad for value in again.parameters())


def test_the_packaged_prior_ages_somebody_whom_it_has_not_seen() -> None:
    generator, years = EmbeddedGenerator(), AgeEstimator(asset_path("age_estimator.safetensors"))
    synthesis = frozen_synthesis(generator)
    prior = open_prior(asset_path("embedded_age_prior.safetensors"), synthesis, 512)
    photo = Sitter(draw_virtual_person(0, 1)).photograph(Moment(age=45.0)).image
    w = generator.anchors(to_unit_range(photo[None]))
    with torch.no_grad():
        made = [synthesis(prior(w, torch.tensor([age]))) for age in (25.0, 45.0, 75.0)]
    young, same, old = (float(years(images.clamp(-1, 1))) for images in made)
    assert old > same + 8 and same > young


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "age_prior.safetensors"
    path.write_bytes(b"something else")
    with pytest.raises(UserError, match=r"age_prior: .* is no age prior; expected a file of .*train-age-prior"):
        read_prior(path)
