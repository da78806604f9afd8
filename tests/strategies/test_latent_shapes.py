"""Latents of any shape (w, W+, z): strategies see their numbers, memories and hooks keep their shape."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from clstudy.settings.profiles import EvaluationSettings
from clstudy.strategies import STRATEGIES, Item, Memory, make_items, make_strategy, memory_from_dict, memory_to_dict
from clstudy.strategies.generative_replay import sample_latents
from clstudy.training.evaluation import convex_combinations

NUMBERS = st.floats(-1e3, 1e3, width=32)


@given(
    array_shapes(min_dims=2, max_dims=4, max_side=4).flatmap(lambda shape: arrays(np.float32, shape, elements=NUMBERS))
)
def test_a_memory_keeps_shapes_and_bits(latents: np.ndarray) -> None:
    items = make_items(2, [f"{index:02d}" for index in range(len(latents))], latents)
    memory = Memory(items=tuple(items), state={"seen": 3})
    back = memory_from_dict(json.loads(json.dumps(memory_to_dict(memory))))
    assert back == memory
    assert [item.latent.shape for item in back.items] == [latents.shape[1:]] * len(latents)
    flat = make_items(2, [item.digest for item in items], latents.reshape(len(latents), -1))
    assert [item.spread for item in items] == [item.spread for item in flat]


def test_a_memory_of_vectors_says_no_shape() -> None:
    """So that memories that were chosen before latents had shapes keep their bytes."""
    written = memory_to_dict(Memory(items=tuple(make_items(0, ["a"], np.ones((1, 4))))))
    assert set(written["items"][0]) == {"digest", "timestamp", "spread", "latent"}


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_a_choice_on_w_plus_is_the_choice_on_its_numbers(name: str) -> None:
    rng = np.random.default_rng(0)
    flat, layered = Memory(), Memory()
    for t in range(3):
        latents = rng.normal(size=(6, 3, 4))
        digests = [f"{t}{index}" for index in range(6)]
        flat = make_strategy(name).select(
            flat, make_items(t, digests, latents.reshape(6, -1)), 4, np.random.default_rng(t)
        )
        layered = make_strategy(name).select(layered, make_items(t, digests, latents), 4, np.random.default_rng(t))
        assert [(item.timestamp, item.digest) for item in layered.items] == [
            (item.timestamp, item.digest) for item in flat.items
        ]
        assert all(item.latent.shape == (3, 4) for item in layered.items)


def test_combinations_have_the_shape_of_a_latent() -> None:
    latents = np.random.default_rng(1).normal(size=(5, 3, 4)).astype(np.float32)
    items = make_items(0, list("abcde"), latents)
    drawn = sample_latents(items, 7, 3, np.random.default_rng(2))
    flat = sample_latents(make_items(0, list("abcde"), latents.reshape(5, -1)), 7, 3, np.random.default_rng(2))
    assert drawn.shape == (7, 3, 4) and np.array_equal(drawn.reshape(7, -1), flat)
    settings = EvaluationSettings(synthesis_images=4)
    combined = convex_combinations(torch.from_numpy(latents), settings, np.random.default_rng(3))
    flat_combined = convex_combinations(torch.from_numpy(latents).flatten(1), settings, np.random.default_rng(3))
    assert combined.shape == (4, 3, 4) and torch.equal(combined.flatten(1), flat_combined)


@pytest.mark.parametrize("latent", [np.float32(1.0), np.zeros(0), np.full((2, 2), np.nan)])
def test_what_is_no_latent_is_refused(latent: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected finite numbers"):
        Item("a", 0, latent, 0.0)
