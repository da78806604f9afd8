"""Occasions as footage: walks, modes, settings, and which frames become photos."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from clstudy.errors import UserError
from clstudy.identities.virtual.backdrops import BACKDROPS
from clstudy.identities.virtual.clothes import NECKLINES
from clstudy.identities.virtual.occasions import GAP, Frame, Occasion, evenly_spread, frames
from clstudy.identities.virtual.person import OLDEST, Person, draw_virtual_person
from clstudy.identities.virtual.presets import DEFAULT_PRESET, MOST_MODES, PRESETS, Preset
from clstudy.identities.virtual.setting import _KINDS, _NECKLINES
from clstudy.identities.virtual.stored_png import stored_png
from clstudy.identities.virtual.walk import COORDINATES, HELD_PER_MODE, PIECE, mode_centres, unequal_visits
from clstudy.seeding import derive_rng

SHA256 = {
    "strong": "55ef6fea81b9c8cdc6a62ad0e8c477dc83e58d264c2f1ee995b21fb236b7501c",
    "one_clip": "bdbabb5ab7a09bc80fe85555661d92994c3aba0867bb862050c4b28f32e7c906",
}
"""Of the moments of some frames: they, and the renderer's own test, fix every byte of a photo."""

LIVELY = Preset(description="modes far apart, little jitter", drift=0.5, spread=1.0, jitter=0.3)


@pytest.fixture(scope="module")
def person() -> Person:
    return draw_virtual_person(0, 3)


def moments(chosen: Sequence[Frame]) -> list[dict[str, object]]:
    return [asdict(frame) for frame in chosen]


def yaws_of(chosen: Sequence[Frame]) -> np.ndarray:
    return np.array([frame.moment.pose.yaw for frame in chosen])


# --- the walk --------------------------------------------------------------------------------------------------------


def digests() -> dict[str, str]:
    found = {}
    for name in SHA256:
        occasion = Occasion(draw_virtual_person(0, 3), PRESETS[name], 7, 2)
        chosen = [*occasion.train(130), *occasion.test(3), *occasion.balanced(3)]
        text = json.dumps(moments(chosen), sort_keys=True)
        found[name] = hashlib.sha256(text.encode()).hexdigest()
    return found


def test_frames_are_what_they_were_when_this_was_written() -> None:
    assert digests() == SHA256


def test_frames_do_not_depend_on_the_instructions_that_numpy_uses() -> None:
    from numpy._core._multiarray_umath import __cpu_dispatch__ as dispatched

    environment = {**os.environ, "NPY_DISABLE_CPU_FEATURES": " ".join(dispatched)}
    code = "import json; from tests.identities.virtual.test_occasions import digests; print(json.dumps(digests()))"
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout) == SHA256


def test_a_walk_goes_slowly(person: Person) -> None:
    walked = frames(person, PRESETS["strong"], 0, 0)
    yaw = yaws_of(walked)
    assert [frame.number for frame in walked] == list(range(PIECE))
    assert np.abs(np.diff(yaw)).mean() < 0.6 * np.abs(yaw[:-60] - yaw[60:]).mean()
    assert len({frame.moment.noise_seed for frame in walked}) == PIECE, "no two frames have the same noise"


def test_time_is_divided_unequally_and_every_mode_gets_some() -> None:
    for seed in range(20):
        preset = replace(LIVELY, dwell_ratio=0.5)
        counts = sorted(Counter(unequal_visits(preset, derive_rng("test", seed)).tolist()).values(), reverse=True)
        assert sum(counts) == PIECE and len(counts) == preset.modes
        assert all(less == pytest.approx(more / 2, abs=2.5) for more, less in pairwise(counts))


def test_equal_dwell_is_possible() -> None:
    counts = Counter(unequal_visits(replace(LIVELY, dwell_ratio=1.0), derive_rng("test")).tolist())
    assert max(counts.values()) - min(counts.values()) <= LIVELY.modes


def test_a_mode_is_where_its_frames_are(person: Person) -> None:
    occasion = Occasion(person, LIVELY, 0, 0)
    held = occasion.balanced(LIVELY.modes * HELD_PER_MODE)
    yaws = yaws_of(held)
    of = np.array([frame.mode for frame in held])
    for mode, centre in enumerate(occasion.centres[:, list(COORDINATES).index("yaw")]):
        assert yaws[of == mode].mean() == pytest.approx(centre, abs=2.0)


def test_modes_do_not_coincide() -> None:
    for count in (2, 5, MOST_MODES):
        preset = replace(LIVELY, modes=count)
        extents = np.array([each.extent for each in COORDINATES.values()])
        moving = np.flatnonzero(extents)
        for seed in range(30):
            centres = mode_centres(preset, derive_rng("test", seed))
            unit = centres[:, moving] / extents[moving]
            assert np.abs(unit).max() <= 1
            for first in range(count):
                for second in range(first):
                    assert np.abs(unit[first] - unit[second]).min() > 0.999 / count
            assert len(np.unique(centres[:, len(COORDINATES) :], axis=0)) == count, "an expression each"


# --- photos of a walk ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(PRESETS))
def test_more_photos_begin_with_the_fewer(person: Person, name: str) -> None:
    for draw in ("train", "test", "balanced"):
        few, many = (getattr(Occasion(person, PRESETS[name], 0, 1), draw)(count) for count in (4, 9))
        assert moments(many[:4]) == moments(few)


@pytest.mark.parametrize("name", ["strong", "one_clip"])
def test_no_test_photo_is_or_neighbours_a_training_photo(person: Person, name: str) -> None:
    occasion = Occasion(person, PRESETS[name], 0, 1)
    train = {frame.number for frame in occasion.train(300)}
    test = {frame.number for frame in occasion.test(150)}
    assert len(train) == 300 and len(test) == 150, "a walk goes on when its frames are used up"
    assert min(abs(one - other) for one in train for other in test) >= GAP  # type: ignore[operator]
    balanced = occasion.balanced(60)
    assert {frame.number for frame in balanced} == {None}
    assert len({frame.moment.pose for frame in (*occasion.train(300), *occasion.test(150), *balanced)}) == 510


def test_photos_by_frequency_show_modes_as_often_as_the_walk_does(person: Person) -> None:
    occasion = Occasion(person, LIVELY, 0, 0)
    walked = Counter(frame.mode for frame in occasion.frames())
    for photos in (occasion.train(40), occasion.test(40)):
        shown = Counter(frame.mode for frame in photos)
        assert all(shown[mode] / 40 == pytest.approx(walked[mode] / PIECE, abs=0.1) for mode in walked)


@pytest.mark.parametrize("count", [1, 4, 5, 7, 23, 120])
def test_balanced_photos_show_all_modes_equally_often(person: Person, count: int) -> None:
    shown = Counter(frame.mode for frame in Occasion(person, LIVELY, 0, 0).balanced(count))
    each = [shown[mode] for mode in range(LIVELY.modes)]
    assert max(each) - min(each) <= 1


def test_beginnings_of_the_order_of_frames_are_spread_evenly() -> None:
    for count in (1, 2, 60, 120):
        order = evenly_spread(count)
        assert sorted(order) == list(range(count))
    first = sorted(evenly_spread(120)[:8])
    assert max(later - earlier for earlier, later in pairwise(first)) <= 16


# --- from occasion to occasion ---------------------------------------------------------------------------------------


def test_one_clip_goes_on_from_timestamp_to_timestamp(person: Person) -> None:
    first, second = (Occasion(person, PRESETS["one_clip"], 0, t) for t in (1, 2))
    assert first.setting == second.setting
    np.testing.assert_array_equal(first.centres, second.centres)
    assert moments(first.frames()) != moments(second.frames())
    assert moments(Occasion(person, PRESETS["one_clip"], 0, 2, before=first).frames()) == moments(second.frames())
    cuts = []
    for index in range(10):
        someone = draw_virtual_person(0, index)
        before, after = (Occasion(someone, PRESETS["one_clip"], 0, t).frames() for t in (0, 1))
        cuts.append(yaws_of((before[-1], after[0])))
    steps = np.diff(yaws_of(first.frames()))
    assert np.abs(np.diff(cuts)).mean() < 2 * np.abs(steps).mean()


def test_other_presets_begin_anew_at_every_timestamp(person: Person) -> None:
    first, second = (Occasion(person, PRESETS[DEFAULT_PRESET], 0, t) for t in (1, 2))
    assert first.setting != second.setting
    assert not np.array_equal(first.centres, second.centres)


def test_presets_are_ordered_by_how_much_occasions_differ() -> None:
    def difference(preset: Preset) -> float:
        """Of light and colours, mean over people and pairs of occasions."""
        total = []
        for index in range(8):
            someone = draw_virtual_person(0, index)
            settings = [Occasion(someone, preset, 0, t).setting for t in range(4)]
            numbers = np.array(
                [
                    [s.light.azimuth / 90, s.light.elevation / 60, s.light.strength, *s.light.colour]
                    + [*s.backdrop.colour, *s.clothes.colour]
                    for s in settings
                ]
            )
            total.append(np.abs(numbers[:, None] - numbers).mean())
        return float(np.mean(total))

    found = [difference(preset) for _, preset in PRESETS.items()]
    assert all(more > 1.2 * less for more, less in pairwise(found))
    assert found[-1] == 0


def test_occasions_of_strong_drift_are_never_alike_by_chance() -> None:
    for index in range(10):
        someone = draw_virtual_person(0, index)
        azimuths = [Occasion(someone, PRESETS["strong"], 0, t).setting.light.azimuth for t in range(5)]
        assert min(abs(one - other) for place, one in enumerate(azimuths) for other in azimuths[:place]) > 20


def test_backdrops_and_necklines_exist() -> None:
    settings = [
        Occasion(draw_virtual_person(0, i), PRESETS["strong"], 0, t).setting for i in range(8) for t in range(5)
    ]
    assert {setting.backdrop.kind for setting in settings} == set(_KINDS) <= set(BACKDROPS)
    assert {setting.clothes.neckline for setting in settings} == set(_NECKLINES) <= set(NECKLINES)
    assert 0 < sum(setting.hat for setting in settings) < 20


def test_years_pass(person: Person) -> None:
    preset = replace(PRESETS["mild"], years=2.5)
    assert Occasion(person, preset, 0, 3).age == person.base_age + 7.5
    assert {frame.moment.age for frame in Occasion(person, PRESETS["mild"], 0, 3).train(3)} == {person.base_age}
    with pytest.raises(UserError, match=rf"timestamp 60; expected at most {OLDEST:.0f}.*fewer years"):
        Occasion(person, preset, 0, 60)


# --- refusals and files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"drift": 1.5}, "drift = 1.5; expected 0 to 1"),
        ({"step": 0.0}, "step = 0.0; expected 0.02 to 1"),
        ({"jitter": float("nan")}, "jitter = nan"),
        ({"modes": 9}, "modes = 9; expected 2 to 8"),
        ({"continuous": True}, "drift = 0.5 of a continuous walk.*set drift to 0"),
    ],
)
def test_impossible_presets_are_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        replace(LIVELY, **wrong)  # type: ignore[arg-type]


def test_a_timestamp_before_the_first_is_refused(person: Person) -> None:
    with pytest.raises(UserError, match="occasion -1 of virtual person 3; expected at least 0"):
        Occasion(person, LIVELY, 0, -1)


def test_the_digest_of_a_preset_is_of_its_numbers() -> None:
    assert replace(LIVELY, description="other words").digest() == LIVELY.digest()
    assert replace(LIVELY, jitter=0.31).digest() != LIVELY.digest()


@pytest.mark.parametrize("size", [(1, 1), (64, 64), (256, 256), (3, 40000)])
def test_png_files_hold_their_pixels(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    with Image.open(io.BytesIO(stored_png(pixels))) as image:
        image.load()
        assert image.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(image), pixels)


def test_png_files_are_of_rgb() -> None:
    with pytest.raises(ValueError, match=r"expected uint8 pixels \[h, w, 3\], got float64"):
        stored_png(np.zeros((4, 4, 3)))
