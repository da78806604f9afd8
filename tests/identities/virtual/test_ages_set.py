"""The data set ``virtual_ages``: what arrives when, and what is known of other ages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clstudy.errors import UserError
from clstudy.identities.catalogue import open_data_set
from clstudy.identities.check import inspect_folder
from clstudy.identities.dataset import DataSet
from clstudy.identities.known_ages import Target, target_among
from clstudy.identities.virtual.ages_set import PHOTOS_OF_MOMENT, TARGETS, learned_ages

COUNTS: dict[str, Any] = {"timestamps": 2, "train": 2, "test": 2 * PHOTOS_OF_MOMENT, "data_seed": 3}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return open_data_set("virtual_ages", identities=1, cache=tmp_path_factory.mktemp("cache"), **COUNTS)


def test_photos_arrive_age_after_age(made: DataSet) -> None:
    assert inspect_folder(made.root, image_size=64).problems == ()
    for stamp, age in zip(made.identities[0].timestamps, (30, 66), strict=True):
        assert [photo.conditions["age"] for photo in stamp.train] == [(float(age),)] * 2
        assert [photo.conditions["target"] for photo in stamp.train] == [(0.0,)] * 2


def test_a_test_moment_is_seen_at_its_own_age_and_at_all_targets(made: DataSet) -> None:
    for stamp, age in zip(made.identities[0].timestamps, (30, 66), strict=True):
        known = [{name: photo.conditions[name][0] for name in ("age", "moment", "target")} for photo in stamp.test]
        for moment in (0, 1):
            group = known[moment * PHOTOS_OF_MOMENT : (moment + 1) * PHOTOS_OF_MOMENT]
            assert [one["moment"] for one in group] == [moment] * PHOTOS_OF_MOMENT
            kinds = [Target.BEYOND, Target.LEARNED, *[Target.BETWEEN] * 3, *[Target.BEYOND] * 2]  # of 30 and 66
            known_as = [(age, Target.OWN), *zip(TARGETS, kinds, strict=True)]
            assert [(one["age"], one["target"]) for one in group] == known_as
        first = stamp.test[0].conditions
        for photo in stamp.test[1:PHOTOS_OF_MOMENT]:
            assert {name: photo.conditions[name] for name in ("expression", "light", "gaze", "pose")} == {
                name: first[name] for name in ("expression", "light", "gaze", "pose")
            }, "all else is equal"


def test_age_shows(made: DataSet) -> None:
    """Far ages differ more than near ones, in every moment."""
    for stamp in made.identities[0].timestamps:
        for moment in (0, 1):
            at = moment * PHOTOS_OF_MOMENT + 1
            images = np.stack([photo.read() for photo in stamp.test[at : at + len(TARGETS)]]).astype(float)
            apart = [np.abs(images[0] - image).mean() for image in images]
            assert apart[-1] > apart[2] > apart[1] > 0


def test_ages_are_whole_years_evenly_spread() -> None:
    assert learned_ages(1) == [30] and learned_ages(2) == [30, 66] and learned_ages(5) == [30, 39, 48, 57, 66]
    assert len(set(learned_ages(37))) == 37
    with pytest.raises(UserError, match="38 timestamps; expected at most 37, one for each year"):
        learned_ages(38)


def test_an_age_within_three_years_of_a_learned_one_is_learned() -> None:
    kinds = [target_among(age, [30, 48, 66]) for age in (26.9, 27, 33, 33.1, 60, 69, 70)]
    learned, between, beyond = Target.LEARNED, Target.BETWEEN, Target.BEYOND
    assert kinds == [beyond, learned, learned, between, between, learned, beyond]


def test_parts_of_moments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"virtual_ages data set: test = 6; expected a multiple of 8"):
        open_data_set("virtual_ages", identities=1, cache=tmp_path, **{**COUNTS, "test": 6}, look_only=True)
