"""Weights that were dropped are trained again: the same bits, no matter who needs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from clstudy.generators.embedded_generator import EmbeddedGenerator
from clstudy.identities.dataset import Identity
from tests.strategies import test_hooks
from tests.strategies.test_hooks import bench, run, spec

generator, person = test_hooks.generator, test_hooks.person  # fixtures


@pytest.mark.parametrize("strategy", ["er_rand", "ewc", "mergan_jtr(images=6)"])
def test_an_extension_builds_on_the_very_bits_that_were_dropped(
    generator: EmbeddedGenerator,
    person: Identity,
    tmp_path: Path,
    strategy: str,
) -> None:
    work = bench(generator, tmp_path)
    size = None if strategy == "ewc" else 2
    before = run(work, person, spec(strategy, size))
    weights = [work.trainer.stored_weights(request.key) for request, _ in before]
    rows = [report.rows for _, report in before]
    last = before[-1][0]
    for request, _ in before[1:]:
        work.store.weights.remove(request.key)
    for key in list(work.store.learned.sizes()):
        work.store.learned.remove(key)
    work.store.stages.remove(last.key)  # as if the trial had been planned without its last timestamp
    again = run(work, person, spec(strategy, size))
    assert [report.reused for _, report in again] == [True] * (len(again) - 1) + [False]
    assert all(table.equals(other.rows) for table, (_, other) in zip(rows, again, strict=True))
    for (request, _), value in zip(again, weights, strict=True):
        found = work.trainer.stored_weights(request.key)
        if request is not last and found is None:
            continue
        assert value is not None and found is not None
        assert all(torch.equal(found[name], value[name]) for name in value), request.t


def test_a_stage_is_trained_again_in_the_micro_batch_it_was_scored_with(
    generator: EmbeddedGenerator,
    person: Identity,
    tmp_path: Path,
) -> None:
    """A stage that ran out of memory was computed in parts, which differ in the last bits from the whole."""
    work = bench(generator, tmp_path)
    full = EmbeddedGenerator.fresh

    class Small(torch.nn.Module):
        def __init__(self, inner: torch.nn.Module):
            super().__init__()
            self.inner = inner

        def forward(self, latents: torch.Tensor) -> torch.Tensor:
            if len(latents) > 1:
                raise torch.OutOfMemoryError("no room for two")
            return self.inner(latents)

    class Cramped(EmbeddedGenerator):
        def fresh(self, tunable=None):
            return Small(full(self, tunable))

        def tunable_state(self, module):
            return super().tunable_state(module.inner)

    cramped = bench(Cramped(), tmp_path)
    told: list[str] = []
    cramped.say = told.append
    ((request, _), *_) = run(cramped, person, spec("lower", None))
    recorded = json.loads(cramped.store.stages.get(request.key)["stage.json"])  # type: ignore[index]
    assert recorded["micro_batch"] == 1 and any("out of GPU memory" in text for text in told)
    scored = cramped.trainer.stored_weights(request.key)
    cramped.store.weights.remove(request.key)
    again = work.trainer.weights(request)
    assert scored is not None and all(torch.equal(again[name], scored[name]) for name in scored)
