"""Latents of any shape (w, W+, z): items, memories, choices and hooks treat them as vectors in the end."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from torch import Tensor, nn

from clstudy.strategies import STRATEGIES, Item, Memory, candidates, make_items, memory_from_dict, memory_to_dict
from clstudy.strategies.base import Past, stack_latents
from clstudy.strategies.generative_replay import sample_latents

FLOATS = st.floats(allow_nan=False, allow_infinity=False, width=32)


def latents_of(shapes: st.SearchStrategy[tuple[int, ...]]) -> st.SearchStrategy[np.ndarray]:
    return arrays(np.float32, shapes, elements=FLOATS)


@given(latents_of(array_shapes(min_dims=1, max_dims=3, max_side=4)), st.floats(0, 1e9), st.integers(0, 9))
def test_an_item_survives_json_in_any_shape(latent: np.ndarray, spread: float, timestamp: int) -> None:
    memory = Memory(items=(Item("a", timestamp, latent, spread),))
    written = memory_to_dict(memory)
    text = json.dumps(written)
    back = memory_from_dict(json.loads(text))
    assert back == memory and back.items[0].latent.shape == latent.shape
    assert back.items[0].latent.tobytes() == latent.tobytes() and not back.items[0].latent.flags.writeable
    assert json.dumps(memory_to_dict(back)) == text
    assert ("shape" in written["items"][0]) == (latent.ndim > 1), "memories of vectors are the bytes they always were"


def test_a_memory_of_before_is_read_and_written_as_it_was() -> None:
    numbers = np.array([1.5, -0.0, 3e-45], dtype="<f4")
    text = (
        '{"items": [{"digest": "ab", "timestamp": 2, "spread": 0.25, "latent": "'
        f'{base64.b64encode(numbers.tobytes()).decode()}"}}], "state": {{"seen": 3}}}}'
    )
    memory = memory_from_dict(json.loads(text))
    assert memory.items[0].latent.tobytes() == numbers.tobytes() and memory.items[0].latent.shape == (3,)
    assert json.dumps(memory_to_dict(memory)) == text


def test_a_latent_is_at_least_a_vector_of_finite_numbers() -> None:
    for bad in (np.float32(1), np.full((2, 3), np.inf, np.float32), np.full((1, 1, 1), np.nan, np.float32)):
        with pytest.raises(ValueError, match="latent of 'a': expected finite numbers"):
            Item("a", 0, bad, 0.0)
    for bad in (np.zeros(2), np.zeros((3, 2, 4))):
        with pytest.raises(ValueError, match="expected one latent .* for each of 2 photos"):
            make_items(0, ["a", "b"], bad)
    with pytest.raises(ValueError, match="reshape"):
        memory_from_dict(
            {"items": [{**memory_to_dict(Memory((Item("a", 0, np.zeros(6), 0.0),)))["items"][0], "shape": [4]}]}
        )
    assert Item("a", 0, np.zeros(6), 0.0) != Item("a", 0, np.zeros((2, 3)), 0.0)


@given(latents_of(st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 4))))
def test_items_of_matrices_are_those_of_their_vectors(latents: np.ndarray) -> None:
    digests = [f"{index}" for index in range(len(latents))]
    shaped, flat = make_items(1, digests, latents), make_items(1, digests, latents.reshape(len(latents), -1))
    assert [item.spread for item in shaped] == [item.spread for item in flat]
    assert all(item.latent.shape == latents.shape[1:] for item in shaped)
    assert stack_latents(shaped).tobytes() == stack_latents(flat).tobytes()


@pytest.mark.parametrize("layout", ["C", "F"])
def test_the_numbers_of_vectors_are_bit_by_bit_what_they_were(layout: str) -> None:
    latents = np.asarray(np.random.default_rng(0).normal(size=(7, 33)).astype(np.float32), order=layout)  # type: ignore[call-overload]
    items = make_items(0, list("abcdefg"), latents)
    exact = latents.astype(np.float64)
    assert [item.spread for item in items] == [
        float(np.linalg.norm(exact - anchor, axis=1).sum() / 6) for anchor in exact
    ]
    found = sample_latents(items, 20, 3, np.random.default_rng(1))
    rng = np.random.default_rng(1)
    for row in found:
        members = np.flatnonzero(np.zeros(7) == rng.choice(np.array([0])))
        chosen = rng.choice(members, 3, replace=False)
        weights = rng.dirichlet(np.ones(3))
        wanted = weights @ np.stack([items[index].latent for index in chosen]).astype(np.float64)
        assert row.tobytes() == wanted.astype(np.float32).tobytes()


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_a_choice_among_matrices_is_that_among_their_vectors(name: str) -> None:
    def keys(shape: tuple[int, ...], seed: int) -> list[tuple[list[tuple[int, str]], object]]:
        memory, found = Memory(), []
        for t, count in enumerate((5, 4, 6)):
            rng = np.random.default_rng([seed, t])
            new = make_items(
                t, [rng.bytes(4).hex() for _ in range(count)], rng.normal(size=(count, 12)).reshape(count, *shape)
            )
            memory = STRATEGIES[name]().select(memory, new, 4, np.random.default_rng([seed, t, 1]))
            found.append(([(item.timestamp, item.digest) for item in memory.items], dict(memory.state)))
        return found

    for seed in range(3):
        assert keys((3, 4), seed) == keys((12,), seed) == keys((2, 3, 2), seed)


class _Frozen(nn.Module):
    """Shows the latents it is given: W+ ``[n, 3, 4]`` as images ``[n, 3, 2, 2]``."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, ws: Tensor) -> Tensor:
        assert ws.shape[1:] == (3, 4)
        return self.scale * ws.view(-1, 3, 2, 2)


def test_hooks_hand_latents_to_the_generator_in_their_own_shape() -> None:
    anchors = np.random.default_rng(0).normal(size=(5, 3, 4)).astype(np.float32)
    shaped = candidates(Memory(), make_items(0, list("abcde"), anchors))
    flat = candidates(Memory(), make_items(0, list("abcde"), anchors.reshape(5, 12)))
    past = Past(Memory(shaped), {}, _Frozen().requires_grad_(False))
    replays = STRATEGIES["mergan_jtr"]().replays(past, np.random.default_rng(3))
    assert replays is not None and replays.latents.shape == (64, 3, 4) and replays.images.shape == (64, 3, 2, 2)
    assert np.array_equal(
        replays.latents.numpy().reshape(64, 12), sample_latents(flat, 64, 3, np.random.default_rng(3))
    )
    penalty = STRATEGIES["mergan_ra"]().penalty(past, np.random.default_rng(3))
    assert penalty is not None and penalty(_Frozen()) == 0
    other = _Frozen()
    with torch.no_grad():
        other.scale.fill_(2.0)
    assert penalty(other) > 0
