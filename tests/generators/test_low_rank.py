"""Low-rank factors: the frozen base keeps every bit, a stage stores the factors alone, and merging changes nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load as load_tensors
from torch import nn

from clstudy.generators.base import trainable
from clstudy.generators.embedded_generator import EmbeddedGenerator
from clstudy.generators.low_rank import LowRank, merged_state
from clstudy.generators.stylegan2 import StyleGAN2, StyleGAN2Settings
from clstudy.identities.dataset import Identity
from clstudy.metrics.lpips import LPIPS
from clstudy.metrics.psnr import PSNRMetric
from clstudy.settings.profile_documents import search_document
from clstudy.settings.profiles import PROFILES, LowRankSettings, TrainerSettings, key_document
from clstudy.storage.content_addressed_store import StudyStore
from clstudy.trial.requests import Basis
from clstudy.trial.stage_runner import StageRunner
from tests.strategies.test_hooks import PROFILE, person, run, spec, support_of

__all__ = ["person"]


def runner(folder: Path, rank: int, scale: float = 1.0) -> StageRunner:
    low_rank = LowRankSettings(rank=rank, scale=scale)
    profile = replace(PROFILE, trainer=TrainerSettings(epochs=2), low_rank=low_rank)
    generator = EmbeddedGenerator(low_rank=low_rank)
    return StageRunner.personalising(
        Basis(profile, "any"), generator, LPIPS(), [PSNRMetric()], StudyStore(folder / str(rank))
    )


def images(module: nn.Module) -> torch.Tensor:
    latents = torch.randn(2, StyleGAN2Settings().w_dim, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return module(latents)


@pytest.mark.parametrize("shape", [(5, 7), (6, 4, 3, 3), (3, 8, 1, 1)])
def test_factors_are_added_to_the_weight_as_the_paper_writes_it(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal(shape)
    factors = LowRank(torch.Size(shape), LowRankSettings(rank=2, scale=0.5)).double()
    assert torch.equal(factors(torch.from_numpy(weight)), torch.from_numpy(weight)), "B begins as zeros"
    up = rng.standard_normal(factors.up.shape)
    factors.up.data = torch.from_numpy(up)
    product = up @ factors.down.detach().numpy()
    assert np.linalg.matrix_rank(product) == 2
    expected = weight + 0.5 * product.reshape(shape)
    np.testing.assert_allclose(factors(torch.from_numpy(weight)).detach().numpy(), expected, rtol=0, atol=1e-12)


def test_a_new_copy_makes_the_pretrained_images_and_only_factors_are_trainable() -> None:
    plain, factored = EmbeddedGenerator().fresh(), EmbeddedGenerator(low_rank=LowRankSettings(rank=4)).fresh()
    assert torch.equal(images(plain), images(factored))
    names = set(trainable(factored))
    assert names and all(
        name.endswith(("parametrizations.weight.0.down", "parametrizations.weight.0.up")) for name in names
    )
    layers = sum(1 for name, _ in plain.named_parameters() if name.endswith("weight"))
    assert len(names) == 2 * layers, "every convolution and linear layer has its two factors"


@pytest.mark.parametrize("strategy", ["er_rand", "ewc"])
def test_the_base_keeps_every_bit_and_a_stage_stores_factors_alone(
    strategy: str, person: Identity, tmp_path: Path
) -> None:
    work = runner(tmp_path, rank=2)
    stages = run(work, person, spec(strategy, 3 if strategy == "er_rand" else None))
    base = dict(EmbeddedGenerator().fresh().state_dict())
    for request, _ in stages:
        module = work.trainer.frozen(request)
        state = module.state_dict()
        for name, value in base.items():
            frozen = f"{name.removesuffix('weight')}parametrizations.weight.original"
            assert torch.equal(state[frozen if frozen in state else name], value), name
        stored = load_tensors(work.store.weights.get(request.key)["weights.safetensors"])  # type: ignore[index]
        assert set(stored) == set(trainable(work.workload.state(None)))
        assert any(bool(value.any()) for name, value in stored.items() if name.endswith("up")), "nothing was trained"
    if strategy == "ewc":
        _, support = support_of(stages, 1)
        assert support.learned is not None
        fisher = work.trainer.learned(support.learned)
        assert set(fisher) == set(stored) and any(bool(value.any()) for value in fisher.values())


def test_merged_weights_make_the_same_images(person: Identity, tmp_path: Path) -> None:
    work = runner(tmp_path, rank=3, scale=2.0)
    request, _ = run(work, person, spec("lower"))[-1]
    module = work.trainer.frozen(request)
    plain = StyleGAN2(StyleGAN2Settings()).synthesis
    plain.load_state_dict(merged_state(module))
    assert (images(plain) - images(module)).abs().max() <= 1e-5
    assert (images(plain) - images(EmbeddedGenerator().fresh())).abs().max() > 1e-3, "nothing was learned"


def test_a_stage_s_folder_grows_with_the_rank(person: Identity, tmp_path: Path) -> None:
    sizes = {}
    for rank in (1, 2, 3):  # colours have 3 rows: above that their rank stays 3
        work = runner(tmp_path, rank)
        request, _ = run(work, person, spec("upper"))[0]
        sizes[rank] = work.store.weights.size(request.key) or 0
    header = 2 * sizes[1] - sizes[2]
    assert abs((sizes[3] - sizes[2]) - (sizes[2] - sizes[1])) < 0.02 * sizes[1], "not in proportion"
    assert header < 0.5 * sizes[1]
    whole = sum(value.nbytes for value in EmbeddedGenerator().tunable_state(EmbeddedGenerator().fresh()).values())
    assert sizes[3] < 0.12 * whole


def test_keys_of_studies_without_factors_are_what_they_were_and_rank_and_scale_are_in_the_others() -> None:
    plain, factored = PROFILES["embedded"](), PROFILES["embedded_lora"]()
    assert "low_rank" not in plain.to_dict() and "low_rank" not in search_document(plain)
    assert Basis(plain, "any").adapted() == {}
    assert Basis(factored, "any").adapted() == {"low_rank": {"rank": 4, "scale": 1.0}}
    assert factored.to_dict()["low_rank"] == key_document(LowRankSettings(rank=4))
