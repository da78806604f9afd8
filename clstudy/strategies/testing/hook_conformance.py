"""Conformance of hooks around a stage, on a tiny generator that needs no weights file (imports torch)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from clstudy.strategies.base import Generated, Memory, Past, Strategy, Trained

_SIDE, _PHOTOS, _STEPS = 4, 3, 3


def _listed(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))


class HookFaultError(Exception):
    """A hook broke a promise; the message says which."""


class _TinyGenerator(nn.Module):
    """Latents ``[n, *latent_shape]`` -> images ``[n, 3, 4, 4]`` in [-1, 1]."""

    def __init__(self, latent_shape: tuple[int, ...], seed: int):
        super().__init__()
        width = math.prod(latent_shape)
        weights = torch.randn(3 * _SIDE * _SIDE, width, generator=torch.Generator().manual_seed(seed))
        self.weight = nn.Parameter(weights / width**0.5)
        self._latent_shape = latent_shape

    def forward(self, latents: Tensor) -> Tensor:
        if latents.shape[1:] != self._latent_shape:
            raise ValueError(
                f"the generator was given latents {list(latents.shape)}, expected [n, {_listed(self._latent_shape)}]"
            )
        return torch.tanh(latents.flatten(1) @ self.weight.t()).view(-1, 3, _SIDE, _SIDE)

    def prior(self, count: int, rng: np.random.Generator) -> Tensor:
        """Latents ``[count, *latent_shape]``, for strategies that draw from it."""
        return torch.from_numpy(rng.standard_normal((count, *self._latent_shape)).astype(np.float32))

    def relabelled(self, latents: Tensor, images: Tensor) -> Tensor:
        """The latents: here nothing has a class."""
        return latents


def hook_faults(
    make: Callable[[], Strategy], memories: tuple[Memory, Memory], latent_shape: tuple[int, ...]
) -> Iterator[str]:
    """Play t = 0, 1, 2 with the hooks of a strategy and yield what is wrong.

    Args:
        make: returns a new instance at every call.
        memories: what ``select`` returned after t = 0 and t = 1.
        latent_shape: of a stored latent.
    """
    try:
        past: Past | None = None
        for t, memory in enumerate(memories):
            learned = _twice(
                f"consolidate at t = {t}", make, partial(_learned, past=past, trained=_trained(latent_shape, seed=t))
            )
            past = Past(memory, learned, _TinyGenerator(latent_shape, seed=t).requires_grad_(False))
            _check_replays(make, past, latent_shape, t + 1)
            _check_penalty(make, past, latent_shape, t + 1)
    except HookFaultError as error:
        yield str(error)


def _trained(latent_shape: tuple[int, ...], seed: int) -> Trained:
    module = _TinyGenerator(latent_shape, seed)
    rng = torch.Generator().manual_seed(seed)
    latents = torch.randn(_PHOTOS, *latent_shape, generator=rng)
    photos = torch.rand(_PHOTOS, 3, _SIDE, _SIDE, generator=rng) * 2 - 1
    return Trained(module, _PHOTOS, lambda index: (module(latents[index : index + 1]) - photos[index]).square().mean())


def _twice(what: str, make: Callable[[], Strategy], call: Callable[[Strategy], Any]) -> Any:
    """The result of two new instances, which must agree and must leave torch's global generator alone."""
    before = torch.get_rng_state()
    try:
        first, second = call(make()), call(make())
    except HookFaultError:
        raise
    except Exception as error:
        raise HookFaultError(f"{what}: {type(error).__name__}: {error}") from error
    if not torch.equal(before, torch.get_rng_state()):
        raise HookFaultError(f"{what}: draws from torch's global generator; draw from rng")
    if not _equal(first, second):
        raise HookFaultError(f"{what}: the same call gives two different answers")
    return first


def _equal(one: Any, two: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(two, Tensor):
        return one.shape == two.shape and torch.equal(one, two)
    if isinstance(one, Generated) and isinstance(two, Generated):
        return _equal(one.latents, two.latents) and _equal(one.images, two.images)
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        return one.keys() == two.keys() and all(_equal(one[key], two[key]) for key in one)
    return bool(one == two)


def _learned(strategy: Strategy, past: Past | None, trained: Trained) -> Mapping[str, Tensor]:
    learned = strategy.consolidate(past, trained)
    if not isinstance(learned, Mapping) or not all(isinstance(value, Tensor) for value in learned.values()):
        raise HookFaultError(f"consolidate returned {type(learned).__name__}, expected a dict of tensors")
    try:
        save(dict(learned))
    except Exception as error:
        raise HookFaultError(f"what consolidate returned cannot be stored as safetensors: {error}") from error
    return learned


def _check_replays(make: Callable[[], Strategy], past: Past, latent_shape: tuple[int, ...], t: int) -> None:
    what = f"replays at t = {t}"
    found = _twice(what, make, lambda one: one.replays(past, np.random.default_rng(t)))
    if found is None:
        return
    if not isinstance(found, Generated):
        raise HookFaultError(f"{what} returned {type(found).__name__}, expected Generated or None")
    count = len(found.latents)
    if found.latents.shape != (count, *latent_shape) or found.images.shape != (count, 3, _SIDE, _SIDE):
        given = f"{tuple(found.latents.shape)} and {tuple(found.images.shape)}"
        raise HookFaultError(
            f"{what}: expected latents [n, {_listed(latent_shape)}] and images [n, 3, s, s], got {given}"
        )
    if found.latents.requires_grad or found.images.requires_grad:
        raise HookFaultError(f"{what} carry gradients; generate them under torch.no_grad()")


def _check_penalty(make: Callable[[], Strategy], past: Past, latent_shape: tuple[int, ...], t: int) -> None:
    what = f"penalty at t = {t}"
    frozen = past.frozen.state_dict()
    before = {name: value.clone() for name, value in frozen.items()}

    def play(strategy: Strategy) -> list[Tensor] | None:
        penalty = strategy.penalty(past, np.random.default_rng(t))
        if penalty is None:
            return None
        module = _TinyGenerator(latent_shape, seed=t + 10)
        values = []
        for _ in range(_STEPS):
            value = penalty(module)
            if not isinstance(value, Tensor) or value.ndim or not torch.isfinite(value):
                raise HookFaultError(f"{what}: expected a finite scalar tensor, got {value!r}")
            if value.requires_grad:
                torch.autograd.backward(value)
            values.append(value.detach())
        return values

    found = _twice(what, make, lambda one: _stacked(play(one)))
    if found is None:
        return
    if any(not torch.equal(before[name], value) for name, value in frozen.items()):
        raise HookFaultError(f"{what} changed the frozen generator")


def _stacked(values: list[Tensor] | None) -> Tensor | None:
    return None if values is None else torch.stack(values)
