"""Scores of a 3D generator's reconstructions seen again, against slow renderings of what they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import Tensor

from clstudy.errors import UserError
from clstudy.faces.embedding import IdentityEmbedder
from clstudy.faces.smiles import MouthLift, lift_of
from clstudy.generators.eg3d_checkpoint import EG3DCheckpointKind
from clstudy.generators.eg3d_copies import SeenEG3D, usual_view
from clstudy.identities.catalogue import open_data_set
from clstudy.identities.dataset import Identity
from clstudy.identities.virtual.moment import Expression, Moment
from clstudy.identities.virtual.person import draw_virtual_person
from clstudy.identities.virtual.photo import Sitter
from clstudy.images import to_uint8
from clstudy.metrics.identity import IdentityMetric
from clstudy.metrics.psnr import PSNRMetric
from clstudy.settings.profiles import PivotalSettings, Profile, ViewSettings
from clstudy.settings.trial_spec import TrialSpec
from clstudy.storage.content_addressed_store import StudyStore
from clstudy.training.evaluation import Rebuilt
from clstudy.trial.requests import Basis
from clstudy.trial.stage_runner import StageRunner
from clstudy.trial.story import trial_stages
from clstudy.workloads.personalise_3d import Personalise3DKind
from clstudy.workloads.personalised_3d import Personalised3D
from clstudy.workloads.seen_again import ViewedTestSet
from tests.strategies.test_hooks import Silent
from tests.support.tiny_eg3d import SETTINGS, tiny_checkpoint, tiny_profile

DIRECTION = np.random.default_rng(0).normal(size=SETTINGS.backbone.w_dim).astype(np.float32)


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    counts: dict[str, Any] = {"timestamps": 2, "train": 2, "test": 6, "data_seed": 3}
    data = open_data_set("virtual_views", identities=1, cache=tmp_path_factory.mktemp("cache"), **counts)
    return data.identities[0]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("weights")
    save_file({"smile": DIRECTION}, folder / "directions.safetensors")
    return {
        "generator": tiny_checkpoint(folder / "eg3d.safetensors"),
        "directions": folder / "directions.safetensors",
    }


def runner(folder: Path, files: dict[str, Path], **given: Any) -> StageRunner:
    profile: Profile = replace(tiny_profile(), **given)
    profile = replace(profile, evaluation=replace(profile.evaluation, metrics=("psnr", "id")))
    kind = EG3DCheckpointKind()
    workload = Personalise3DKind().build(profile, kind.read(files), files, torch.device("cpu"))
    return StageRunner(Basis(profile, "any"), workload, StudyStore(folder))


def rebuilt(work: StageRunner, person: Identity) -> tuple[Rebuilt, ViewedTestSet, SeenEG3D]:
    workload = work.workload
    assert isinstance(workload, Personalised3D)
    state = workload.state(None).requires_grad_(False)
    test = work.photos.test_set(person, 1, 0)
    make = workload.reconstruction(state)
    assert make is not None and isinstance(state, SeenEG3D)
    return make(test, test.start), test, state


def score(found: Rebuilt, protocol: str, metric: str) -> dict[str, float]:
    one = next(s for s in found.scores if (s.protocol, s.metric) == (protocol, metric))
    return dict(zip(one.names, one.values.tolist(), strict=True))


def image(state: SeenEG3D, w: Tensor, camera: Tensor) -> Tensor:
    with torch.no_grad():
        return state(w[None], camera[None]).clamp(-1, 1)


def psnr(one: Tensor, other: Tensor) -> float:
    return float(10 * torch.log10(4 / (one - other).square().mean()))


def test_a_reconstruction_is_compared_with_the_photos_of_the_other_cameras(
    person: Identity, files: dict[str, Path], tmp_path: Path
) -> None:
    found, test, state = rebuilt(runner(tmp_path, files), person)
    by_digest = {photo.digest: photo.conditions["moment"] for photo in person.timestamps[1].test}
    assert test.cameras is not None
    values = score(found, "novel_view", "psnr")
    assert len(values) == 6
    for place, name in enumerate(test.digests):
        others = [
            other
            for other, digest in enumerate(test.digests)
            if by_digest[digest] == by_digest[name] and other != place
        ]
        assert len(others) == 2
        expected = [
            psnr(image(state, test.start[place], test.cameras[other]), test.images[[other]]) for other in others
        ]
        assert values[name] == pytest.approx(np.mean(expected), abs=1e-4)


def test_identity_is_also_compared_from_both_sides_and_edited(
    person: Identity, files: dict[str, Path], tmp_path: Path
) -> None:
    views = ViewSettings(turned_yaw=25.0, edit_strength=0.5)
    found, test, state = rebuilt(runner(tmp_path, files, views=views), person)
    assert test.cameras is not None
    embedder = IdentityEmbedder()
    photos = embedder(test.images)
    turned, edited = score(found, "turned", "id"), score(found, "edited", "id")
    effects, measure = score(found, "edited", "edit_effect"), MouthLift()
    for place, name in enumerate(test.digests):
        w, own = test.start[place], test.cameras[place]
        sides = [torch.cat([usual_view(SETTINGS.camera, yaw)[:16], own[16:]]) for yaw in (-25, 25)]
        cosines = [float(embedder(image(state, w, side))[0] @ photos[place]) for side in sides]
        assert turned[name] == pytest.approx(np.mean(cosines), abs=1e-4)
        changed = image(state, w + 0.5 * torch.from_numpy(DIRECTION), own)
        assert edited[name] == pytest.approx(float(embedder(changed)[0] @ photos[place]), abs=1e-4)
        lift = measure(to_uint8(changed))[0] - measure(to_uint8(image(state, w, own)))[0]
        assert effects[name] == pytest.approx(lift, abs=0.02), "a pixel of another rounding moves landmarks a little"
    assert not any((s.protocol, s.metric) == ("turned", "psnr") for s in found.scores)
    torch.testing.assert_close(
        found.shown["edited"][None], image(state, test.start[0] + 0.5 * torch.from_numpy(DIRECTION), test.cameras[0])
    )


def test_depth_is_compared_where_it_is_known(person: Identity, files: dict[str, Path], tmp_path: Path) -> None:
    found, test, state = rebuilt(runner(tmp_path, files), person)
    assert test.cameras is not None
    errors, correlations = (
        score(found, "reconstruction", "depth_error"),
        score(found, "reconstruction", "depth_correlation"),
    )
    known = {photo.digest: np.array(photo.conditions["depth"]) for photo in person.timestamps[1].test}
    for place, name in enumerate(test.digests):
        with torch.no_grad():
            depth = state.rendered(test.start[[place]], test.cameras[[place]]).depth.numpy().ravel()  # 16 x 16
        inside = known[name] > 0
        assert errors[name] == pytest.approx(np.abs(depth - known[name])[inside].mean(), abs=1e-5)
        expected = np.corrcoef(depth[inside], known[name][inside])[0, 1]
        assert correlations[name] == pytest.approx(expected, abs=1e-3)


def test_a_tuned_copy_makes_all_that_is_seen(person: Identity, files: dict[str, Path], tmp_path: Path) -> None:
    """Other sides must be those of the copy that fits the photo: with the own camera as partner, they are the same."""
    tuning = PivotalSettings(steps=4, learning_rate=3e-2, enough=0.0)
    found, test, _ = rebuilt(runner(tmp_path, files, pivotal=tuning, views=ViewSettings(edit_strength=0.0)), person)
    plain, _, state = rebuilt(runner(tmp_path / "plain", files), person)
    assert not torch.allclose(found.images, plain.images, atol=0.05)
    torch.testing.assert_close(found.shown["edited"], found.images[0].clamp(-1, 1), atol=1e-4, rtol=0)
    del test, state


def test_what_is_not_known_is_not_scored(files: dict[str, Path], tmp_path: Path) -> None:
    data = open_data_set("virtual", identities=1, cache=tmp_path, timestamps=2, train=2, test=2, data_seed=3)
    own = {"generator": files["generator"]}
    found, test, _ = rebuilt(runner(tmp_path / "study", own, views=ViewSettings(turned_yaw=0.0)), data.identities[0])
    assert found.scores == () and found.shown == {} and test.moments == () and test.depths is None


def test_a_stage_has_the_rows_and_the_picture(person: Identity, files: dict[str, Path], tmp_path: Path) -> None:
    work = runner(tmp_path, files)
    spec = TrialSpec(identity=person.name, strategy="lower", buffer_size=None, learning_rate=3e-3, seed=0)
    *_, (_, report) = trial_stages(work, spec, person, Silent())
    rows = {(row["protocol"], row["metric"], row["test_timestamp"]) for row in report.rows.to_pylist()}
    for k in (0, 1):
        assert {
            ("novel_view", "psnr", k),
            ("novel_view", "id", k),
            ("turned", "id", k),
            ("edited", "id", k),
            ("edited", "edit_effect", k),
            ("reconstruction", "depth_error", k),
            ("reconstruction", "depth_correlation", k),
        } <= rows
    assert report.pictures["edited"].shape == (2 * 64, 2 * 64, 3)
    assert np.array_equal(report.pictures["edited"][:64], report.faces[64:]), "the same reconstructions above"


def test_corners_of_a_smiling_mouth_are_higher() -> None:
    lifts = []
    for index in range(6):
        sitter = Sitter(draw_virtual_person(7, index))
        photos = [sitter.photograph(Moment(expression=Expression(smile=weight))) for weight in (0.0, 1.0)]
        assert lift_of(photos[1].landmarks) > lift_of(photos[0].landmarks) + 0.02
        lifts.append(np.diff(MouthLift()(np.stack([photo.image for photo in photos])))[0])
    assert np.mean(lifts) > 0.01


@pytest.mark.parametrize(
    ("content", "edit", "message"),
    [
        ({"smile": DIRECTION[:5]}, "smile", r"smile in .* is of shape \(5,\); expected 32 finite numbers"),
        ({"smile": DIRECTION * np.nan}, "smile", r"expected 32 finite numbers"),
        ({"age": DIRECTION}, "smile", r"views.edit is 'smile', and the file of directions has age"),
        (None, "smile", r"cannot be read as safetensors"),
    ],
)
def test_a_bad_file_of_directions_is_refused(
    content: dict[str, np.ndarray] | None, edit: str, message: str, files: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "directions.safetensors"
    if content is None:
        path.write_bytes(b"{}")
    else:
        save_file(content, path)
    with pytest.raises(UserError, match=message):
        runner(tmp_path, {**files, "directions": path}, views=ViewSettings(edit=edit))


def test_metrics_of_identity_have_the_protocols() -> None:
    assert IdentityMetric.of_identity and not PSNRMetric.of_identity
