"""Personalising a 3D generator: what is trained, from where photos are seen, and the contracts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from clstudy.errors import UserError
from clstudy.generators.base import trainable
from clstudy.generators.conformance import CHECKS as GENERATOR_CHECKS
from clstudy.generators.eg3d import EG3D
from clstudy.generators.eg3d_checkpoint import EG3DCheckpointKind
from clstudy.generators.eg3d_copies import EG3DCopies, SeenEG3D, usual_view
from clstudy.generators.low_rank import factor_count, merged_state
from clstudy.identities.cameras import view_angles
from clstudy.identities.dataset import Identity, load_folder
from clstudy.identities.virtual.data_set import VirtualSettings, make_virtual
from clstudy.images import to_uint8
from clstudy.metrics.lpips import LPIPS
from clstudy.metrics.psnr import PSNRMetric
from clstudy.registry import findings_of
from clstudy.settings.profiles import LowRankSettings, PivotalSettings, Profile, ViewSettings, my3dgen
from clstudy.settings.trial_spec import TrialSpec
from clstudy.storage.content_addressed_store import StudyStore
from clstudy.study.opened_parts import opened_generator, opened_workload
from clstudy.training.pivotal import tuned_copies
from clstudy.trial.listener import StageReport
from clstudy.trial.requests import Basis, StageRequest
from clstudy.trial.stage_runner import StageRunner
from clstudy.trial.story import trial_stages
from clstudy.workloads.conformance import CHECKS, WorkloadInHand
from clstudy.workloads.personalised_3d import Personalised3D
from tests.strategies.test_hooks import Silent
from tests.support.tiny_eg3d import SETTINGS, tiny_checkpoint, tiny_network, tiny_profile


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("weights") / "eg3d.safetensors")


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    root = tmp_path_factory.mktemp("photos")
    settings = VirtualSettings(people=1, timestamps=3, train=3, test=2, data_seed=4, image_size=64, preset="strong")
    make_virtual(root, settings)
    return load_folder(root).identities[0]


def generator(rank: int = 2, *, freeze_renderer: bool = False) -> EG3DCopies:
    profile = replace(tiny_profile(rank), views=ViewSettings(freeze_renderer=freeze_renderer))
    return EG3DCopies(tiny_network(), profile, torch.device("cpu"), LPIPS())


def runner(folder: Path, profile: Profile | None = None) -> StageRunner:
    profile = profile or tiny_profile()
    workload = Personalised3D(
        profile,
        generator=generator(profile.low_rank.rank, freeze_renderer=profile.views.freeze_renderer),
        lpips=LPIPS(),
        metrics=[PSNRMetric()],
    )
    return StageRunner(Basis(profile, "any"), workload, StudyStore(folder))


def run(work: StageRunner, person: Identity, strategy: str, size: int | None = None):
    spec = TrialSpec(identity=person.name, strategy=strategy, buffer_size=size, learning_rate=3e-3, seed=0)
    found: list[tuple[StageRequest, StageReport]] = list(trial_stages(work, spec, person, Silent()))
    return found


def latents(count: int = 2) -> Tensor:
    return torch.randn(count, SETTINGS.backbone.w_dim, generator=torch.Generator().manual_seed(0))


def failed(findings) -> dict[str, str]:
    return {finding.check: finding.message for finding in findings if not finding.passed}


@pytest.mark.parametrize("rank", [0, 2])
def test_generator_and_workload_keep_their_contracts(checkpoint: Path, rank: int) -> None:
    weights = [f"generator={checkpoint}"]
    assert not failed(findings_of(GENERATOR_CHECKS, opened_generator(tiny_profile(rank), weights)))
    assert not failed(findings_of(CHECKS, WorkloadInHand(*opened_workload(tiny_profile(rank), weights))))


def test_only_factors_of_what_makes_the_image_are_trained() -> None:
    factored, whole = generator(2).fresh(), generator(0).fresh()
    names = set(trainable(factored))
    assert names and all(name.endswith((".weight.0.down", ".weight.0.up")) for name in names)
    assert {name.split(".")[1] for name in names} == {"backbone", "decoder", "superresolution"}
    assert not any("mapping" in name for name in dict(whole.named_parameters()))
    frozen = set(trainable(generator(2, freeze_renderer=True).fresh()))
    assert {name.split(".")[1] for name in frozen} == {"backbone"}


def test_gradients_reach_factors_only() -> None:
    module = generator(2).fresh()
    module(latents()).square().mean().backward()
    with_gradient = {name for name, value in module.named_parameters() if value.grad is not None}
    assert with_gradient == set(trainable(module))


@pytest.mark.parametrize("freeze_renderer", [False, True])
def test_the_base_keeps_every_bit_and_a_stage_stores_factors_alone(
    freeze_renderer: bool, person: Identity, tmp_path: Path
) -> None:
    profile = replace(tiny_profile(), views=ViewSettings(freeze_renderer=freeze_renderer))
    work = runner(tmp_path, profile)
    base = generator(0).fresh().state_dict()
    for request, _ in run(work, person, "er_rand", 2):
        state = work.trainer.frozen(request).state_dict()
        for name, value in base.items():
            frozen = f"{name.removesuffix('weight')}parametrizations.weight.original"
            assert torch.equal(state[frozen if frozen in state else name], value), name
        stored = load_tensors(work.store.weights.get(request.key)["weights.safetensors"])  # type: ignore[index]
        assert set(stored) == set(trainable(work.workload.state(None)))
        assert any(bool(value.any()) for name, value in stored.items() if name.endswith("up")), "nothing was trained"


def merged_copy(module: SeenEG3D) -> EG3D:
    plain = EG3D(SETTINGS)
    del plain.backbone.mapping
    plain.load_state_dict(merged_state(module.network))
    return plain


def test_merged_factors_make_the_same_images(person: Identity, tmp_path: Path) -> None:
    work = runner(tmp_path)
    request, _ = run(work, person, "lower")[-1]
    module = work.trainer.frozen(request)
    assert isinstance(module, SeenEG3D)
    seen = usual_view(SETTINGS.camera, 15, -5).expand(2, -1)
    with torch.no_grad():
        plain = merged_copy(module).synthesis(latents(), seen).image
        scale = float(plain.abs().max())
        assert float((plain - module(latents(), seen)).abs().max()) <= 1e-5 * max(1.0, scale)
        assert float((plain - generator(0).fresh()(latents(), seen)).abs().max()) > 1e-3, "nothing was learned"


def test_photos_are_seen_from_their_cameras(person: Identity, tmp_path: Path) -> None:
    """The loss of a photo is that of the image its own camera sees."""
    work = runner(tmp_path)
    photos = work.photos.training(person, (0,))
    state = work.workload.state(None)
    loss = work.workload.photo_loss(state, photos)
    cameras = photos.conditions["camera"]
    assert float(view_angles(cameras.numpy()).std(0).max()) > 1, "views must differ"
    for index in range(3):
        image = state(photos.latents[index : index + 1], cameras[index : index + 1])
        expected = LPIPS()(image, photos.images[index : index + 1]) + (image - photos.images[index]).square().mean()
        torch.testing.assert_close(loss(index), expected[0], rtol=1e-4, atol=1e-6)
    assert not torch.allclose(state(photos.latents[:1]), state(photos.latents[:1], cameras[:1]))


def test_combinations_are_seen_from_the_same_random_sides_at_every_stage(person: Identity, tmp_path: Path) -> None:
    profile = replace(tiny_profile(), views=ViewSettings(synthesis_yaw=12, synthesis_pitch=4))
    profile = replace(profile, evaluation=replace(profile.evaluation, synthesis_images=12))
    work = runner(tmp_path, profile)
    first, again = (work.photos.test_set(person, 1, 0) for _ in range(2))
    other = runner(tmp_path / "other", profile).photos.test_set(person, 1, 0)
    assert torch.equal(first.combination_cameras, again.combination_cameras)
    assert torch.equal(first.combination_cameras, other.combination_cameras)
    angles = abs(view_angles(first.combination_cameras.numpy()))
    assert (angles.max(0) < (12, 4)).all() and (angles.max(0) > (6, 2)).all()
    assert torch.equal(first.combination_cameras[0, 16:], first.cameras[:, 16:].median(0).values), "cropped alike"


@pytest.mark.parametrize("strategy", ["er_hull", "mergan_jtr", "mergan_ra", "ewc", "upper"])
def test_strategies_of_every_kind_run_and_repeat(strategy: str, person: Identity, tmp_path: Path) -> None:
    size = None if strategy in ("ewc", "upper") else 2
    first = run(runner(tmp_path / "a"), person, strategy, size)
    again = run(runner(tmp_path / "b"), person, strategy, size)
    assert [report.loss for _, report in first] == [report.loss for _, report in again]
    assert all(one.rows.equals(other.rows) for (_, one), (_, other) in zip(first, again, strict=True))


def test_views_are_part_of_the_stages_keys(person: Identity, tmp_path: Path) -> None:
    """Of what is seen and of what is trained."""
    keys = set()
    for views in (ViewSettings(), ViewSettings(synthesis_yaw=5), ViewSettings(freeze_renderer=True)):
        work = runner(tmp_path, replace(tiny_profile(), views=views))
        keys.add(run(work, person, "lower")[0][0].key)
    assert len(keys) == 3


def test_a_2d_checkpoint_is_refused_in_words(tmp_path: Path) -> None:
    from tests.generators.test_checkpoints import TINY, dump, network, ordinary, random_tensors

    path = dump(tmp_path / "ffhq.pkl", network(random_tensors(TINY), ordinary()))
    with pytest.raises(UserError, match=r"it is a StyleGAN2, a 2D generator; expected an EG3D"):
        EG3DCheckpointKind().read({"generator": path})


def test_the_profile_trains_few_personal_numbers() -> None:
    """Of the published sizes; counted on the meta device."""
    from clstudy.generators.eg3d import EG3DSettings
    from clstudy.generators.low_rank import add_low_rank
    from clstudy.generators.stylegan2 import StyleGAN2Settings
    from clstudy.generators.super_resolution import PUBLISHED

    assert my3dgen().low_rank == LowRankSettings(rank=1)
    backbone = StyleGAN2Settings(
        img_resolution=256, z_dim=512, c_dim=25, channel_base=32768, channel_max=512, img_channels=96
    )
    with torch.device("meta"):
        whole: nn.Module = EG3D(EG3DSettings(backbone=backbone, superresolution=PUBLISHED["SuperresolutionHybrid8XDC"]))
    everything = sum(value.numel() for value in whole.parameters())
    assert round(everything / 1e6, 1) == 30.7
    del whole.backbone.mapping
    counted = factor_count([whole], 1)
    with torch.device("meta"):
        add_low_rank(whole, my3dgen().low_rank)
    personal = sum(value.numel() for value in trainable(whole).values())
    assert personal == counted == 91_303, "0.3% of 30.7 million"


def test_a_turntable_shows_one_latent_from_five_sides_and_comes_back_from_the_store(
    person: Identity, tmp_path: Path
) -> None:
    work = runner(tmp_path)
    (request, report), *_ = run(work, person, "lower")
    turntable = report.pictures["turntable"]
    assert turntable.shape == (2 * 64, 5 * 64, 3)
    again = run(runner(tmp_path), person, "lower")[0][1]
    assert again.reused and np.array_equal(again.pictures["turntable"], turntable)
    module = work.trainer.frozen(request)
    test = work.photos.test_set(person, 0, 0)
    assert isinstance(module, SeenEG3D) and test.cameras is not None
    view = torch.cat([usual_view(SETTINGS.camera, 15)[:16], test.cameras[0, 16:]])[None]
    with torch.no_grad():
        seen = module.rendered(test.start[:1], view)
    assert np.array_equal(turntable[:64, 3 * 64 : 4 * 64], to_uint8(seen.image)[0])
    middle, rendering = float(seen.depth[0, 0, 8, 8]), SETTINGS.rendering
    bright = 255 * (rendering.far - middle) / (rendering.far - rendering.near)
    assert abs(float(turntable[64 + 34, 3 * 64 + 34, 0]) - bright) < 1.5


def test_mirrored_photos_are_trained_on_with_mirrored_cameras_and_anchors_of_their_own(
    person: Identity, tmp_path: Path
) -> None:
    profile = replace(tiny_profile(), views=ViewSettings(mirrored=True))
    work = runner(tmp_path, profile)
    workload = work.workload
    assert isinstance(workload, Personalised3D)
    samples = work.photos.training(person, (0,))
    photos = workload._photos(samples)
    assert len(photos) == 6 and photos.cameras is not None
    assert torch.equal(photos.images[:3], samples.images) and torch.equal(photos.images[3:], samples.images.flip(3))
    angles = view_angles(photos.cameras.numpy())
    np.testing.assert_allclose(angles[3:], angles[:3] * [-1, 1], atol=1e-4)
    expected = workload.generator.anchors_seen(photos.images[4:5], photos.cameras[4:5])
    assert torch.equal(photos.latents[4:5], expected) and not torch.equal(photos.latents[4], photos.latents[1])
    report = run(work, person, "er_rand", 2)[1][1]
    plain = run(runner(tmp_path / "plain"), person, "er_rand", 2)[1][1]
    assert report.losses is not None and plain.losses is not None
    assert len(report.losses) == 6 and len(plain.losses) == 4, "two epochs of six and of three photos, two at a time"


def test_pivotal_tuning_comes_nearer_to_the_photo_and_leaves_the_network_alone(
    person: Identity, tmp_path: Path
) -> None:
    work = runner(tmp_path)
    state, test = work.workload.state(None).requires_grad_(False), work.photos.test_set(person, 0, 0)
    before = {name: value.clone() for name, value in state.state_dict().items()}

    def distances(settings: PivotalSettings) -> Tensor:
        assert test.cameras is not None
        copies = tuned_copies(
            state, test.start, test.cameras, test.images, test.features, settings=settings, lpips=LPIPS()
        )
        images = [copy(test.start[[at]], test.cameras[[at]]) for at, copy in enumerate(copies)]
        return LPIPS()(torch.cat(images), test.images).detach()

    plain = LPIPS()(state(test.start, test.cameras), test.images)
    tuned = distances(PivotalSettings(steps=12, learning_rate=3e-2, enough=0.0))
    assert (tuned < plain - 0.02).all()
    assert torch.allclose(distances(PivotalSettings(steps=12, learning_rate=3e-2, enough=5.0)), plain), "near enough"
    assert all(torch.equal(value, before[name]) for name, value in state.state_dict().items())
    tuning = replace(tiny_profile(), pivotal=PivotalSettings(steps=12, learning_rate=3e-2, enough=0.0))
    (asked, report), *_ = run(runner(tmp_path / "tuned", tuning), person, "lower")
    (other, without), *_ = run(work, person, "lower")
    assert asked.key != other.key

    def mean(rows) -> float:
        return float(np.mean([row["value"] for row in rows.to_pylist() if row["protocol"] == "reconstruction"]))

    assert mean(report.rows) > mean(without.rows), "PSNR"
