"""What a stage's key depends on, what trials share, and that the plan counts it."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from clstudy.identities.dataset import Identity, Photo, Timestamp
from clstudy.settings.metric_facts import OwnMetric, packaged_metrics
from clstudy.settings.profile_documents import search_document
from clstudy.settings.profiles import (
    PROFILES,
    AnchorSettings,
    ComputeSettings,
    EvaluationSettings,
    InversionSettings,
    TrainerSettings,
    key_document,
)
from clstudy.settings.trial_spec import TrialSpec
from clstudy.storage.content_addressed_store import STAGE_FILES, StudyStore, digest_of
from clstudy.strategies import STRATEGIES
from clstudy.strategies.base import Memory, make_items
from clstudy.strategies.ewc import ElasticWeightConsolidation
from clstudy.study.plan import make_plan
from clstudy.trial.requests import Basis, MemoryRequest, run_version, stage_count, stage_requests

T = 4
BASIS = Basis(PROFILES["smoke"](), "generator")


def photo(*parts: str | int) -> Photo:
    return Photo(Path("/".join(map(str, parts))), digest_of({"photo": parts}))


def person(name: str = "anna") -> Identity:
    return Identity(
        name,
        tuple(
            Timestamp(
                t,
                f"t{t}",
                tuple(photo(name, t, "train", i) for i in range(4)),
                tuple(photo(name, t, "test", i) for i in range(2)),
            )
            for t in range(T)
        ),
    )


def spec(strategy: str = "er_rand", size: int | None = 3, rate: float = 0.003, seed: int = 0) -> TrialSpec:
    return TrialSpec(identity="anna", strategy=strategy, buffer_size=size, learning_rate=rate, seed=seed)


def own_metric(source: str) -> OwnMetric:
    return OwnMetric(place="mine:Sharpness", source=source, facts=packaged_metrics()["psnr"])


def remember(request: MemoryRequest) -> Memory:
    """Select with made-up anchors that depend on the photos only."""
    photos = sorted(request.identity.timestamps[request.t].train, key=lambda one: one.digest)
    latents = np.stack([np.random.default_rng(int(one.digest[:8], 16)).standard_normal(8) for one in photos])
    items = make_items(request.t, [one.digest for one in photos], latents)
    strategy = STRATEGIES[request.spec.strategy]()
    return strategy.select(request.memory, items, request.spec.buffer_size or 0, np.random.default_rng(request.t))


def keys(one: TrialSpec, identity: Identity | None = None, basis: Basis = BASIS) -> list[str]:
    return [request.key for request in stage_requests(one, identity or person(), basis, remember)]


def test_all_continual_strategies_share_the_first_stage_and_nothing_else() -> None:
    lists = {name: keys(spec(name, size)) for name, size in (("lower", None), ("er_rand", 3), ("er_hull", 3))}
    assert len({found[0] for found in lists.values()}) == 1
    assert len({found[1] for found in lists.values()}) == 3
    assert [len(found) for found in lists.values()] == [T, T, T]


def test_upper_is_one_stage_on_everything() -> None:
    (request,) = stage_requests(spec("upper", None), person(), BASIS, remember)
    assert request.t == T - 1 and request.trained_on == tuple(range(T)) and request.parent is None
    assert stage_count(spec("upper", None), T) == 1 and stage_count(spec(), T) == T


def test_a_buffer_never_holds_photos_of_the_timestamp_it_is_used_at() -> None:
    for request in stage_requests(spec("er_rand", 5), person(), BASIS, remember):
        assert all(item.timestamp < request.t for item in request.replay)
        assert len(request.replay) == min(5, 4 * request.t)


def test_buffers_that_hold_everything_coincide() -> None:
    assert keys(spec("er_rand", 16)) == keys(spec("kmeans", 16)) == keys(spec("er_hull", 16))


@pytest.mark.parametrize(
    "other",
    [
        lambda: keys(spec(rate=0.004)),
        lambda: keys(spec(seed=1)),
        lambda: keys(spec(), basis=Basis(BASIS.profile, "another generator")),
        lambda: keys(
            spec(),
            basis=replace(BASIS, profile=replace(BASIS.profile, trainer=replace(BASIS.profile.trainer, epochs=5))),
        ),
        lambda: keys(replace(spec(), identity="bert"), person("bert")),
    ],
    ids=["learning rate", "seed", "generator", "trainer", "person"],
)
def test_everything_that_changes_a_number_changes_every_key(other) -> None:
    assert not set(other()) & set(keys(spec()))


def test_a_changed_photo_changes_the_keys_from_its_timestamp_on() -> None:
    changed = person()
    middle = changed.timestamps[2]
    test = replace(middle, test=(photo("other"), *middle.test[1:]))
    changed = replace(changed, timestamps=(*changed.timestamps[:2], test, *changed.timestamps[3:]))
    before, after = keys(spec("lower", None)), keys(spec("lower", None), changed)
    assert before[:2] == after[:2] and not set(before[2:]) & set(after[2:])


def test_what_is_excluded_does_not_change_a_key() -> None:
    slower = replace(BASIS, profile=replace(BASIS.profile, stage_seconds=99.0, description="other words"))
    shuffled = replace(
        person(), timestamps=tuple(replace(t, train=t.train[::-1], test=t.test[::-1]) for t in person().timestamps)
    )
    assert keys(spec()) == keys(spec(), shuffled, slower)


def test_the_plan_counts_sharing_and_says_at_most_until_buffers_are_known(tmp_path: Path) -> None:
    trials = [spec("lower", None), spec("er_rand", 3), spec("upper", None)]
    store = StudyStore(tmp_path)
    plan = make_plan(trials, {"anna": person()}, BASIS, store, tmp_path, workers=2)
    assert not plan.exact and plan.stages_without_sharing == 2 * T + 1
    assert plan.stages == 2 * T  # t = 0 is shared
    assert plan.stages_done == 0 and plan.done == frozenset() and plan.seconds > 0
    lower = keys(spec("lower", None))
    assert lower == keys(spec("lower", None))
    store.stages.put(lower[0], dict.fromkeys(STAGE_FILES, b"x"))
    again = make_plan(trials, {"anna": person()}, BASIS, store, tmp_path, workers=2)
    assert again.stages_done == 1 and again.stages_to_run == plan.stages - 1


def test_arithmetic_is_in_the_key_and_saving_memory_is_not() -> None:
    def key(**changes: object) -> str:
        profile = replace(BASIS.profile, compute=ComputeSettings(**changes))
        return next(
            stage_requests(spec("lower", None), person(), Basis(profile, "generator"), lambda request: None)
        ).key

    default = key()
    assert key(activation_checkpointing=True) == default
    others = ({"precision": "bf16"}, {"precision": "tf32"}, {"compile": True}, {"kernels": "plain"})
    assert len({default, *(key(**other) for other in others)}) == 5


def test_what_a_stage_is_measured_with_is_in_its_key() -> None:
    def key(basis: Basis) -> str:
        return next(stage_requests(spec("lower", None), person(), basis, lambda request: None)).key

    ffhq = replace(BASIS.profile, data=replace(BASIS.profile.data, alignment="ffhq"))
    constant = replace(BASIS.profile, inversion=replace(BASIS.profile.inversion, final_lr_fraction=1.0))
    others = [
        Basis(BASIS.profile, "generator", {"arcface": "a"}),
        Basis(BASIS.profile, "generator", {"arcface": "b"}),
        Basis(ffhq, "generator"),
        Basis(BASIS.profile, "generator", own_metrics=(own_metric("a"),)),
        Basis(BASIS.profile, "generator", own_metrics=(own_metric("b"),)),
        Basis(constant, "generator"),
        Basis(replace(BASIS.profile, inversion=replace(BASIS.profile.inversion, latent_space="w_plus")), "generator"),
    ]
    assert len({key(basis) for basis in (BASIS, *others)}) == 8


def test_a_setting_added_later_leaves_older_keys_alone() -> None:
    assert "final_rate" not in key_document(InversionSettings())
    assert key_document(InversionSettings(final_lr_fraction=1.0))["final_rate"] == 1.0
    assert key_document(AnchorSettings()) == asdict(AnchorSettings())
    for kind, name, other in (
        (InversionSettings, "latent_space", "w_plus"),
        (TrainerSettings, "short_batch_replay", "as_new"),
        (EvaluationSettings, "synthesis_weights", "normalised"),
    ):
        assert name not in key_document(kind())
        assert key_document(kind(**{name: other}))[name] == other


@pytest.mark.parametrize(
    ("name", "digest"), [("embedded", "9f4edb509d"), ("tuning", "d5b3d18be3"), ("smoke", "6322e72f76")]
)
def test_searches_go_on_as_long_as_their_objectives_can_be_compared(name: str, digest: str) -> None:
    """The digests of the profiles in a search's storage since numerics version 2: only another one may change them."""
    profile = PROFILES[name]()
    assert digest_of(search_document(profile))[:10] == digest
    changed = replace(profile, inversion=replace(profile.inversion, latent_space="w_plus"))
    assert digest_of(search_document(changed))[:10] != digest


def test_a_run_has_another_version_when_a_strategys_default_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the tracking page would go on drawing one curve from two different penalties."""
    before = run_version(BASIS, spec("ewc", None), person())
    assert run_version(BASIS, spec("ewc", None), person()) == before
    monkeypatch.setattr(ElasticWeightConsolidation.__init__, "__defaults__", (1.0, 1.0))
    assert run_version(BASIS, spec("ewc", None), person()) != before
