"""The workload ``ageing``: the contract, what is asked of which photo, and what is learned and forgotten."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clstudy.errors import UserError
from clstudy.faces.ages import AgeEstimator, AgeNetwork, save_estimator
from clstudy.faces.embedding import IdentityEmbedder
from clstudy.generators.ageing import AgePrior, PriorSizes, latents_at, save_prior
from clstudy.generators.base import GeneratorWeights
from clstudy.generators.embedded_generator import EmbeddedGenerator, embedded_arrays
from clstudy.identities.catalogue import open_data_set
from clstudy.identities.dataset import DataSet, Identity
from clstudy.identities.virtual.ages_set import PHOTOS_OF_MOMENT
from clstudy.images import to_unit_range
from clstudy.metrics.lpips import LPIPS
from clstudy.registry import findings_of
from clstudy.settings.ageing import AgeingProfile, AgeingSettings
from clstudy.settings.profiles import DataSettings, TrainerSettings, embedded
from clstudy.settings.trial_spec import TrialSpec
from clstudy.storage.content_addressed_store import StudyStore
from clstudy.training.personalise import TrainingDivergedError
from clstudy.trial.listener import StageReport
from clstudy.trial.requests import Basis
from clstudy.trial.stage_runner import StageRunner
from clstudy.trial.story import trial_stages
from clstudy.workloads.ageing import AgeingKind
from clstudy.workloads.conformance import CHECKS, WorkloadInHand
from clstudy.workloads.personalised_ageing import PersonalisedAgeing
from tests.strategies.test_hooks import Silent

AGES = (30, 48, 66)
TARGETS = (20, 30, 40, 50, 60, 70, 80)
METRICS = {"aged_id", "age_error", "aged_lpips", "id_over_prior", "age_error_over_prior"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A prior that does something, and an estimator that says something."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    settings = EmbeddedGenerator().settings
    prior = AgePrior(PriorSizes(num_ws=settings.num_ws, w_dim=settings.w_dim, width=16, depth=1, heads=2))
    with torch.no_grad():
        prior.leave.weight.normal_(0, 0.05)
    found = {"age_prior": folder / "age_prior.safetensors", "age_estimator": folder / "age_estimator.safetensors"}
    save_prior(prior, found["age_prior"])
    network = AgeNetwork()
    network.begin_with(torch.randn(512) * 9, 50.0)
    save_estimator(network, found["age_estimator"])
    return found


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    cache = tmp_path_factory.mktemp("cache")
    counts: dict[str, Any] = {"timestamps": 3, "train": 4, "test": PHOTOS_OF_MOMENT, "data_seed": 5}
    return open_data_set("virtual_ages", identities=1, cache=cache, **counts)


def profile(epochs: int = 2, **given: Any) -> AgeingProfile:
    settings = {"neck": 4, "shared": 8, "age_width": 4, "hidden": 8, "beyond_batch_size": 1}
    return AgeingProfile(
        name="small",
        description="for tests",
        data=DataSettings(name="virtual_ages", timestamps=3, train=4, test=PHOTOS_OF_MOMENT),
        trainer=TrainerSettings(epochs=epochs),
        ageing=AgeingSettings(**{**settings, **given}),
        stage_seconds=1.0,
    )


def built(files: dict[str, Path], **given: Any) -> PersonalisedAgeing:
    weights = GeneratorWeights(embedded_arrays())
    return AgeingKind().build(profile(**given), weights, files, torch.device("cpu"))


def runner(folder: Path, workload: PersonalisedAgeing) -> StageRunner:
    return StageRunner(Basis(workload.profile, "any"), workload, StudyStore(folder))


def run(
    work: StageRunner, person: Identity, strategy: str, size: int | None = None, rate: float = 2e-3
) -> list[StageReport]:
    spec = TrialSpec(identity=person.name, strategy=strategy, buffer_size=size, learning_rate=rate, seed=0)
    return [report for _, report in trial_stages(work, spec, person, Silent())]


def values(report: StageReport, protocol: str, metric: str, k: int) -> dict[str, float]:
    return {
        row["image"]: row["value"]
        for row in report.rows.to_pylist()
        if (row["protocol"], row["metric"], row["test_timestamp"]) == (protocol, metric, k)
    }


def mean(report: StageReport, metric: str, k: int, protocol: str = "aged_learned") -> float:
    return float(np.mean(list(values(report, protocol, metric, k).values())))


def test_it_keeps_the_contract_of_workloads(files: dict[str, Path]) -> None:
    workload = built(files)
    held = WorkloadInHand(AgeingKind(), workload.profile, workload)
    broken = [finding for finding in findings_of(CHECKS, held) if not finding.passed]
    assert broken == []


@pytest.mark.parametrize(
    ("strategy", "size"),
    [("lower", None), ("upper", None), ("ewc", None), ("er_rand", 3), ("er_hull", 3), ("kmeans", 3), ("mergan_jtr", 3)],
)
def test_every_kind_of_strategy_runs(
    strategy: str, size: int | None, files: dict[str, Path], data: DataSet, tmp_path: Path
) -> None:
    last = run(runner(tmp_path, built(files, epochs=1)), data.identities[0], strategy, size)[-1]
    found = {(row["protocol"], row["metric"], row["test_timestamp"]) for row in last.rows.to_pylist()}
    protocols = ("aged_learned", "aged_between", "aged_beyond")
    assert found == {(protocol, metric, k) for protocol in protocols for metric in METRICS for k in range(3)}


def test_scores_are_of_faces_made_at_the_ages_that_are_asked_for(
    files: dict[str, Path], data: DataSet, tmp_path: Path
) -> None:
    """Every value of the last stage, computed once more from its stored weights, photo by photo."""
    workload, person = built(files), data.identities[0]
    work = runner(tmp_path, workload)
    spec = TrialSpec(identity=person.name, strategy="lower", buffer_size=None, learning_rate=2e-3, seed=0)
    request, report = list(trial_stages(work, spec, person, Silent()))[-1]
    network = workload.state(work.trainer.weights(request))
    prior = workload.state(None)
    embedder, lpips, years = IdentityEmbedder(), LPIPS(), AgeEstimator(files["age_estimator"])

    def read(photo: Any) -> torch.Tensor:
        return to_unit_range(photo.read()[None])

    def score(made: torch.Tensor, truth: torch.Tensor, age: float) -> dict[str, float]:
        made = made.clamp(-1, 1)
        return {
            "aged_id": float(embedder(made)[0] @ embedder(truth)[0]),
            "age_error": abs(float(years(made)) - age),
            "aged_lpips": float(lpips(made, truth)),
        }

    for k, (stamp, learned) in enumerate(zip(person.timestamps, AGES, strict=True)):
        own = next(photo for photo in stamp.test if photo.conditions["target"] == (0.0,))
        others = {photo.conditions["age"][0]: photo for photo in stamp.test if photo is not own}
        assert tuple(sorted(others)) == TARGETS
        wanted = {"aged_learned": {}, "aged_between": {}, "aged_beyond": {}}
        for age, other in others.items():
            if abs(age - learned) >= 10:
                wanted["aged_learned"][other.digest] = (other, own, learned)
            if age in (40, 60):
                wanted["aged_between"][other.digest] = (own, other, age)
            if age in (20, 70, 80):
                wanted["aged_beyond"][other.digest] = (own, other, age)
        for protocol, cases in wanted.items():
            for metric in METRICS:
                assert values(report, protocol, metric, k).keys() == cases.keys()
            for name, (photo, truth, age) in cases.items():
                latent = latents_at(workload.generator.anchors(read(photo)), torch.tensor([float(age)]))
                with torch.no_grad():
                    ours, theirs = (score(one(latent), read(truth), age) for one in (network, prior))
                expected = ours | {"id_over_prior": ours["aged_id"] - theirs["aged_id"]}
                expected["age_error_over_prior"] = ours["age_error"] - theirs["age_error"]
                for metric, value in expected.items():
                    assert values(report, protocol, metric, k)[name] == pytest.approx(value, abs=2e-4), metric


def test_training_brings_out_who_it_is_and_remembers_what_is_replayed(
    files: dict[str, Path], data: DataSet, tmp_path: Path
) -> None:
    work = runner(tmp_path, built(files, epochs=8, hidden=32, norm_weight=0.0))
    lower, replay = (
        run(work, data.identities[0], name, size, 5e-3) for name, size in (("lower", None), ("er_rand", 8))
    )
    assert mean(lower[0], "id_over_prior", 0) > 0.02, "the adapter beats the prior at the age it has just learned"
    assert mean(replay[-1], "aged_id", 0) > mean(lower[-1], "aged_id", 0)


def test_beyond_the_learned_ages_the_prior_holds(files: dict[str, Path], data: DataSet, tmp_path: Path) -> None:
    """Without that loss faces at 20, 70 and 80 move away from the prior's further."""
    person, moved = data.identities[0], {}
    for weight in (0.0, 5.0):
        workload = built(files, epochs=5, hidden=32, norm_weight=0.0, beyond_weight=weight, beyond_batch_size=2)
        work = runner(tmp_path / str(weight), workload)
        (report,) = run(work, person, "upper", rate=5e-3)
        strip = report.pictures["ages"].astype(float)
        assert strip.shape == (3 * 64, 7 * 64, 3)
        away = np.abs(strip[128:] - strip[64:128])
        moved[weight] = np.mean([away[:, 64 * at : 64 * at + 64] for at in (0, 5, 6)])
    assert moved[5.0] < 0.7 * moved[0.0]


def test_the_strip_shows_the_first_moment_at_all_ages(files: dict[str, Path], data: DataSet, tmp_path: Path) -> None:
    person = data.identities[0]
    strip = run(runner(tmp_path, built(files, epochs=1)), person, "lower")[1].pictures["ages"]
    true = {photo.conditions["age"][0]: photo.read() for photo in person.timestamps[0].test[1:]}
    for at, age in enumerate(TARGETS):
        assert np.abs(strip[:64, 64 * at : 64 * at + 64].astype(int) - true[age]).max() <= 1


def test_joint_training_takes_the_steps_of_all_ages(files: dict[str, Path], data: DataSet, tmp_path: Path) -> None:
    (report,) = run(runner(tmp_path, built(files, epochs=2)), data.identities[0], "upper")
    assert report.losses is not None and len(report.losses) == 2 * 6


def test_a_stage_goes_on_from_what_the_one_before_stored(files: dict[str, Path], data: DataSet, tmp_path: Path) -> None:
    person = data.identities[0]
    whole = run(runner(tmp_path / "whole", built(files, epochs=1)), person, "er_rand", 3)
    for _ in range(3):
        parts = run(runner(tmp_path / "parts", built(files, epochs=1)), person, "er_rand", 3)
    for one, other in zip(whole, parts, strict=True):
        assert one.rows.equals(other.rows) and np.array_equal(one.pictures["ages"], other.pictures["ages"])
    assert parts[2].reused and not whole[2].reused


def test_photos_of_which_only_the_age_is_known_are_compared_with_those_of_that_age(
    files: dict[str, Path], data: DataSet, tmp_path: Path
) -> None:
    person = data.identities[0]
    plain = replace(
        person,
        timestamps=tuple(
            replace(
                stamp,
                train=tuple(replace(one, conditions={"age": one.conditions["age"]}) for one in stamp.train),
                test=tuple(replace(one, conditions={"age": one.conditions["age"]}) for one in stamp.test[:2]),
            )
            for stamp in person.timestamps
        ),
    )
    last = run(runner(tmp_path, built(files, epochs=1)), plain, "lower")[-1]
    rows = last.rows.to_pylist()
    assert {row["protocol"] for row in rows} == {"aged_learned"} and "aged_lpips" not in {row["metric"] for row in rows}
    digests = [{photo.digest for photo in stamp.test} for stamp in plain.timestamps]
    for k, sources in enumerate((digests[0], digests[0], digests[0] | digests[1])):
        assert values(last, "aged_learned", "aged_id", k).keys() == sources
    assert last.pictures["ages"].shape == (3 * 64, 7 * 64, 3)


def test_another_profile_is_refused(files: dict[str, Path]) -> None:
    with pytest.raises(UserError, match="workload ageing needs a profile with the section ageing, and 'embedded' has"):
        AgeingKind().build(embedded(), GeneratorWeights(embedded_arrays()), files, torch.device("cpu"))


def test_a_rate_that_is_too_large_is_said(files: dict[str, Path], data: DataSet, tmp_path: Path) -> None:
    with pytest.raises(TrainingDivergedError, match=r"timestamp 0: the loss became .* use a smaller learning rate"):
        run(runner(tmp_path, built(files)), data.identities[0], "lower", rate=1e20)
