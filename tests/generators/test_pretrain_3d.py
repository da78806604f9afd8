"""The pieces of the 3D generator's pretraining: what it is shown, and what it is told about that."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from clstudy.errors import UserError
from clstudy.generators import embedded_3d
from clstudy.generators.pretraining.directions import semantic_directions
from clstudy.generators.pretraining.figures_3d import evaluate, inside_face, side_figures, write_grid
from clstudy.generators.pretraining.networks_3d import Networks3D
from clstudy.generators.pretraining.train_3d import (
    Cycle3D,
    Pretrain3DSettings,
    depth_losses,
    drawn_batch,
    fresh_networks,
    pretrain_3d,
    train_cycle,
)
from clstudy.generators.pretraining.training_faces import held_out_virtual
from clstudy.generators.pretraining.training_views import EXPRESSIONS, VIEWS, Views, held_out_views, views_chunk
from clstudy.generators.volume_rendering import camera_rays
from clstudy.identities.cameras import camera_problem, view_angles
from clstudy.images import to_uint8

QUICK = Pretrain3DSettings(
    cycles=(Cycle3D(steps=4, learning_rate=5e-3, encoder_learning_rate=1e-3, identity_faces=1),),
    batch=2,
    mapping_steps=2,
    mapping_batch=8,
    parts_faces=1,
    threads=1,
)


@pytest.fixture(scope="module")
def views() -> Views:
    return views_chunk(0, 0, people=2)


@pytest.fixture(scope="module")
def unseen() -> Views:
    return held_out_views(1)[:3]


def test_views_of_a_moment_are_of_one_scene(views: Views) -> None:
    """A point of one camera's depth is as far from another camera as that camera's depth says, where it is seen."""
    agreements = []
    for moment in range(len(views)):
        rays = camera_rays(torch.from_numpy(views.cameras[moment]), 32)
        world = (rays.origins + rays.directions * torch.from_numpy(
            views.depths[moment].astype(np.float32).reshape(VIEWS, -1, 1)
        )).numpy()  # fmt: skip
        for other in range(1, VIEWS):
            pose, intrinsics = (part.reshape(side, side) for part, side in (
                (views.cameras[moment, other, :16], 4), (views.cameras[moment, other, 16:], 3)
            ))  # fmt: skip
            points = world[0][np.isfinite(world[0]).all(1)]
            seen = (np.linalg.inv(pose) @ np.hstack([points, np.ones((len(points), 1))]).T)[:3]
            place = intrinsics @ seen
            column, row = np.floor(place[:2] / place[2] * 32).astype(int)
            within = (column >= 0) & (column < 32) & (row >= 0) & (row < 32)
            there = views.depths[moment, other].astype(float)[row[within], column[within]]
            nearer = np.linalg.norm(seen[:, within], axis=0) - there  # positive: hidden behind something
            agreements.append(np.nanmedian(np.abs(nearer[nearer < 0.05])))
    assert len(agreements) == len(views) * (VIEWS - 1)
    assert np.median(agreements) < 0.008, "a head is 0.3 deep"


def test_cameras_differ_and_are_valid_and_the_first_is_the_photos_own(views: Views) -> None:
    assert all(camera_problem(camera) is None for camera in views.cameras.reshape(-1, 25))
    angles = view_angles(views.cameras)
    assert np.ptp(angles[..., 0]) > 40 and (np.ptp(angles[..., 0], axis=1) > 3).all()
    assert not np.array_equal(views.images[:, 0], views.images[:, 1])


def test_nobody_held_out_is_trained_on_and_the_same_seed_gives_the_same_views(
    monkeypatch: pytest.MonkeyPatch, views: Views
) -> None:
    from clstudy.generators.pretraining import training_views

    people = []

    class Watched(training_views.Sitter):
        def __init__(self, person: training_views.Person):
            people.append(person)
            super().__init__(person)

    monkeypatch.setattr(training_views, "Sitter", Watched)
    again = views_chunk(0, 0, people=2)
    for entry in fields(Views):
        assert np.array_equal(getattr(again, entry.name), getattr(views, entry.name), equal_nan=entry.name == "depths")
    held_out = {portrait for person in held_out_virtual() for portrait in person.portraits}
    assert held_out.isdisjoint({portrait for person in people for portrait in person.portraits})


def test_views_survive_their_file_and_a_wrong_file_is_refused(views: Views, tmp_path: Path) -> None:
    views.save(tmp_path / "views.npz")
    read = Views.read(tmp_path / "views.npz")
    assert all(
        np.array_equal(getattr(read, entry.name), getattr(views, entry.name), equal_nan=entry.name == "depths")
        for entry in fields(Views)
    )
    (tmp_path / "text.npz").write_text("no views")
    np.savez(tmp_path / "other.npz", **{entry.name: np.zeros(3) for entry in fields(Views)})
    for name in ("missing.npz", "text.npz", "other.npz"):
        with pytest.raises(UserError, match=name):
            Views.read(tmp_path / name)


def test_a_mirrored_moment_is_seen_by_mirrored_cameras(views: Views) -> None:
    """Photos, depths and cameras of a batch still fit: the face's depth is where its points are, from both sides."""
    settings = replace(QUICK, batch=12, grey_share=0.0, recolouring=0.0)
    batch = drawn_batch(views, settings, np.random.default_rng(3))
    assert batch.photos.shape == (12, 3, 64, 64) and batch.targets.shape == (24, 3, 64, 64)
    assert torch.equal(batch.photos, batch.targets[::2])
    turned = view_angles(batch.cameras.numpy())[:, 0]
    known = {round(float(angle), 3): 1 for angle in view_angles(views.cameras.reshape(-1, 25))[:, 0]}
    mirrored = np.array([round(float(angle), 3) not in known for angle in turned])
    assert 0 < mirrored.sum() < 24 and (mirrored[::2] == mirrored[1::2]).all(), "a moment is mirrored as a whole"
    nose = batch.points[:, 2]
    for index in range(24):
        column, row = (nose[index] / 2).long().tolist()
        around = batch.depths[index, 0, max(row - 2, 0) : row + 3, max(column - 2, 0) : column + 3]
        face = batch.depths[index, 0]
        assert float(around[~around.isnan()].min()) < float(face[~face.isnan()].median()), "the nose is near"


def test_depth_losses_are_of_the_head_and_of_what_lies_behind_it() -> None:
    target = torch.full((1, 1, 8, 8), float("nan"))
    target[..., 3:5, 3:5] = 2.5
    depth = torch.full((1, 1, 8, 8), 3.0)
    depth[..., 3:5, 3:5] = 2.6
    inside, outside = depth_losses(depth, target, 2.9)
    assert float(inside) == pytest.approx(0.1) and float(outside) == 0
    depth[..., 2, 3] = 1.0  # the rim is neither
    assert float(depth_losses(depth, target, 2.9)[1]) == 0
    depth[..., 0, 0] = 1.9
    assert float(depth_losses(depth, target, 2.9)[1]) == pytest.approx(1 / (64 - 16))
    assert float(depth_losses(depth, torch.full((1, 1, 8, 8), 2.0), 2.9)[1]) == 0, "no backdrop at all"


def test_training_lowers_the_loss_and_repeats(views: Views) -> None:
    settings = replace(
        QUICK, cycles=(Cycle3D(steps=25, learning_rate=5e-3, encoder_learning_rate=1e-3, identity_faces=0),), batch=2
    )
    moment = views[:1]

    def error(networks: Networks3D) -> float:
        return float(side_figures(networks, moment)["psnr_db"])

    before = error(fresh_networks(settings))
    found = [fresh_networks(settings) for _ in range(2)]
    for networks in found:
        train_cycle(networks, moment, settings, 0, lambda networks: None)
    assert error(found[0]) > before + 2
    for one, other in zip(found[0].generator.parameters(), found[1].generator.parameters(), strict=True):
        assert torch.equal(one, other)


def test_killed_in_a_cycle_it_goes_on_and_ends_in_the_same_bits(
    views: Views, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from clstudy.generators.pretraining import train_3d

    monkeypatch.setattr(train_3d, "SNAPSHOT_STEPS", 3)
    cycle = Cycle3D(steps=7, learning_rate=5e-3, encoder_learning_rate=1e-3, identity_faces=1, identity_from=2)
    settings = replace(QUICK, cycles=(cycle,))
    whole = train_cycle(fresh_networks(settings), views, settings, 0, lambda networks: None)

    class Killed(Exception):
        pass

    taken = 0

    def kill_at_the_second(networks: Networks3D) -> None:
        nonlocal taken
        taken += 1
        if taken == 2:
            raise Killed

    progress = tmp_path / "progress.pt"
    with pytest.raises(Killed):
        train_cycle(fresh_networks(settings), views, settings, 0, kill_at_the_second, progress)
    taken = 5
    resumed = train_cycle(fresh_networks(settings), views, settings, 0, kill_at_the_second, progress)
    assert taken == 5, "the seventh step alone was left"
    for one, other in ((whole.generator, resumed.generator), (whole.encoder, resumed.encoder)):
        for name, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name
    again = replace(settings, cycles=(cycle, cycle))
    train_cycle(fresh_networks(settings), views, again, 1, lambda networks: None, progress)  # not another cycle's


def test_a_whole_run_leaves_weights_card_and_grid_and_goes_on(views: Views, unseen: Views, tmp_path: Path) -> None:
    pretrain_3d(views, unseen, tmp_path, QUICK)
    weights = tmp_path / "embedded_3d.safetensors"
    assert weights.stat().st_size <= 8_000_000
    assert {path.name for path in tmp_path.iterdir()} == {
        "cycle_0.safetensors",
        "embedded_3d.safetensors",
        "model_card_3d.json",
        "model_card_3d_grid.png",
        "settings.json",
    }
    with pytest.raises(UserError, match=r"settings.json is of a training with other settings; give another --out"):
        pretrain_3d(views, unseen, tmp_path, replace(QUICK, seed=1))
    first = weights.read_bytes()
    networks = Networks3D.read(weights)
    assert networks.generator.settings == embedded_3d.SETTINGS
    assert bool(networks.generator.backbone.mapping.w_avg.any())
    assert tuple(networks.directions) == tuple(sorted(EXPRESSIONS)) and bool(networks.directions["smile"].any())
    pretrain_3d(views, unseen, tmp_path / "more", QUICK, begin=1, autoencoder=tmp_path / "cycle_0.safetensors")
    assert (tmp_path / "more" / "embedded_3d.safetensors").read_bytes() == first


def test_directions_are_what_moves_w_with_an_expression_within_people(views: Views) -> None:
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(30), 4)
    expressions = rng.random((120, len(EXPRESSIONS))).astype(np.float32)
    expressions[:, 1] += people / 30  # who smiles more also differs in w
    cameras = np.repeat(views.cameras[:4, :1], 30, axis=0)
    known = Views(*(getattr(views[:1], entry.name).repeat(120, 0) for entry in fields(Views)))
    known = replace(known, people=people, expressions=expressions, cameras=cameras)
    slopes = rng.normal(size=(len(EXPRESSIONS), 16))
    w = rng.normal(size=(30, 16))[people] * 5 + expressions @ slopes + 0.01 * rng.normal(size=(120, 16))
    found = semantic_directions(w.astype(np.float32), known)
    assert list(found) == list(EXPRESSIONS)
    np.testing.assert_allclose(np.stack(list(found.values())), slopes, atol=0.05)


def test_figures_tell_a_flat_head_from_a_round_one(unseen: Views) -> None:
    """The true depth correlates with itself inside the face, and another face's place with nothing."""
    true = unseen.depths[0, 0].astype(float)
    inside = inside_face(true, unseen.points[0, 0])
    assert 100 < inside.sum() < 600 and np.isfinite(true[inside]).all()
    networks = fresh_networks(QUICK)
    figures = evaluate(networks, unseen)
    assert figures["encoder"]["moments"] == 3
    assert abs(figures["encoder"]["depth_correlation"]) < 0.7, "random weights know no faces"
    assert figures["inversion"]["lpips"] < figures["encoder"]["lpips"]


def test_the_grid_shows_photos_images_and_depths(unseen: Views, tmp_path: Path) -> None:
    from PIL import Image

    networks = fresh_networks(QUICK)
    write_grid(networks, unseen, tmp_path / "grid.png", people=2)
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.size == (3 * VIEWS * 64, 2 * 64)
        shown = np.asarray(grid)
    assert np.array_equal(shown[:64, :64], unseen.images[0, 0])
    seen = networks.seen(networks.encode(unseen.images[:1, 0]), unseen.cameras[:1, 0])
    assert np.array_equal(shown[:64, VIEWS * 64 : (VIEWS + 1) * 64], to_uint8(seen.image)[0])
