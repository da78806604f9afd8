"""A state of several networks and optimisers goes on after being stored as if nothing had happened."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from clstudy.workloads.packing import packed, unpack

Made = tuple[dict[str, nn.Module], dict[str, Optimizer]]


def make(kind: Callable[..., Optimizer], **settings: Any) -> Made:
    torch.manual_seed(0)
    networks: dict[str, nn.Module] = {"encoder": nn.Linear(3, 2), "decoder": nn.Sequential(nn.Linear(2, 3), nn.Tanh())}
    return networks, {f"for_{name}": kind(network.parameters(), **settings) for name, network in networks.items()}


def train(made: Made, steps: range) -> list[float]:
    networks, optimisers = made
    losses = []
    for step in steps:
        data = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
        loss = (networks["decoder"](networks["encoder"](data)) - data).square().mean()
        for optimiser in optimisers.values():
            optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for optimiser in optimisers.values():
            optimiser.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(
    ("kind", "settings"),
    [(Adam, {"lr": 0.05, "betas": (0.0, 0.9), "amsgrad": True}), (SGD, {"lr": 0.1, "momentum": 0.9})],
)
def test_training_goes_on_to_the_same_bits(kind: Callable[..., Optimizer], settings: dict[str, Any]) -> None:
    undisturbed = make(kind, **settings)
    expected = train(undisturbed, range(12))
    first = make(kind, **settings)
    train(first, range(5))
    stored: dict[str, Tensor] = load(save(packed(*first)))
    second = make(kind, **settings)
    unpack(stored, *second)
    assert train(second, range(5, 12)) == expected[5:]
    forgetful = make(kind, **settings)
    unpack(stored, forgetful[0])
    assert train(forgetful, range(5, 12)) != expected[5:], "the optimisers' state makes no difference"


def test_packed_tensors_are_copies() -> None:
    made = make(Adam, lr=0.1)
    before = packed(*made)
    kept = {name: value.clone() for name, value in before.items()}
    train(made, range(3))
    assert all(torch.equal(before[name], kept[name]) for name in kept)
    assert not torch.equal(packed(*made)["encoder.weight"], kept["encoder.weight"])


def test_names_that_would_collide_are_refused() -> None:
    networks, optimisers = make(Adam)
    with pytest.raises(ValueError, match="different names"):
        packed(networks, {"encoder": optimisers["for_encoder"]})
    with pytest.raises(ValueError, match="without dots"):
        packed({"a.b": networks["encoder"]})


def test_other_networks_than_were_packed_are_refused() -> None:
    with pytest.raises(RuntimeError, match="bias"):
        unpack(packed({"net": nn.Linear(3, 2, bias=False)}), {"net": nn.Linear(3, 2)})
