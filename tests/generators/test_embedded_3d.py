"""The packaged 3D generator: its contract, and heads of people it has not seen, from all sides."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from clstudy.assets import asset_path, manifest
from clstudy.assets.readers.tensor_files import read_with_metadata
from clstudy.errors import UserError
from clstudy.generators.conformance import CHECKS as GENERATOR_CHECKS
from clstudy.generators.pretraining import training_views
from clstudy.generators.pretraining.figures_3d import side_figures, smile_figures
from clstudy.generators.pretraining.networks_3d import Networks3D
from clstudy.generators.pretraining.training_views import Views, held_out_views
from clstudy.images import to_unit_range
from clstudy.registry import findings_of
from clstudy.settings.profiles import ViewSettings, embedded_3d
from clstudy.study.opened_parts import opened_generator, opened_workload
from clstudy.workloads.conformance import CHECKS, WorkloadInHand

FILE = "embedded_3d.safetensors"
PEOPLE = 8


@pytest.fixture(scope="module")
def networks() -> Networks3D:
    return Networks3D.read(asset_path(FILE))


@pytest.fixture(scope="module")
def unseen(module_patch: pytest.MonkeyPatch) -> Views:
    """One moment of each of eight people on whom studies report, and whom it was not trained on."""
    everybody = training_views.reported_virtual()
    module_patch.setattr(training_views, "reported_virtual", lambda: everybody[:PEOPLE])
    return held_out_views(1)


@pytest.fixture(scope="module")
def module_patch():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def test_generator_and_workload_keep_their_contracts() -> None:
    assert not [one for one in findings_of(GENERATOR_CHECKS, opened_generator(embedded_3d(), ())) if not one.passed]
    in_hand = WorkloadInHand(*opened_workload(embedded_3d(), ()))
    assert not [one for one in findings_of(CHECKS, in_hand) if not one.passed]


def test_a_direction_that_it_does_not_have_is_refused() -> None:
    profile = replace(embedded_3d(), views=ViewSettings(edit="sneer"))
    with pytest.raises(UserError, match=r"views.edit is 'sneer', and the file of directions has .*smile"):
        opened_generator(profile, ())


def test_its_weights_are_small_and_half_precision() -> None:
    arrays, metadata = read_with_metadata(asset_path(FILE))
    assert {str(values.dtype) for values in arrays.values()} == {"float16"}
    assert manifest()[FILE]["bytes"] <= 8_000_000 and "settings" in metadata


def test_heads_of_unseen_people_are_round_and_theirs(networks: Networks3D, unseen: Views) -> None:
    """As the card says of all of them: a flat depth would have no correlation, another face no identity."""
    card = json.loads(asset_path(FILE).with_name("model_card_3d.json").read_text())["held_out"]["encoder"]
    found = side_figures(networks, unseen)
    assert found["depth_correlation"] >= 0.9
    assert found["own_above_other"] > 0.9 and found["own_above_other_sides"] > 0.9
    for name in ("lpips", "lpips_sides", "depth_correlation", "identity_own", "identity_own_sides"):
        assert found[name] == pytest.approx(card[name], abs=0.06), name


def test_a_head_is_one_scene_from_all_sides(networks: Networks3D, unseen: Views) -> None:
    """Turned by the camera alone, the picture moves as the head in the photos does: better than not turning it."""
    w = networks.encode(unseen.images[:, 0])
    turned = networks.seen(w, unseen.cameras[:, 1]).image
    straight = networks.seen(w, unseen.cameras[:, 2]).image
    photos = to_unit_range(unseen.images[:, 1])
    error, without = (float((image - photos).square().mean()) for image in (turned, straight))
    assert error < 0.7 * without


def test_its_direction_lifts_the_corners_of_mouths(networks: Networks3D, unseen: Views) -> None:
    found = smile_figures(networks, unseen, networks.encode(unseen.images[:, 0]))
    assert found["lifted"] > 0.5 and found["lift"] > 0
