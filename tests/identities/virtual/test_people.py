"""Who the people are: distinct, reproducible, as the packaged networks see them, and as old as they are said to be."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clstudy.assets import asset_path, manifest
from clstudy.errors import UserError
from clstudy.faces.embedding import IdentityEmbedder
from clstudy.faces.face_finder import FaceFinder
from clstudy.faces.geometry import five_points
from clstudy.identities.virtual.assets import FILE, virtual_assets
from clstudy.identities.virtual.backdrops import BACKDROPS
from clstudy.identities.virtual.clothes import NECKLINES
from clstudy.identities.virtual.head import grey_share
from clstudy.identities.virtual.moment import Backdrop, Clothes, Expression, Light, Moment, Pose
from clstudy.identities.virtual.person import draw_virtual_person
from clstudy.identities.virtual.photo import Photograph, Sitter, photograph
from clstudy.identities.virtual.skin import wrinkle_depth
from clstudy.images import to_unit_range


@pytest.fixture(scope="module")
def sitters() -> list[Sitter]:
    return [Sitter(draw_virtual_person(0, index)) for index in range(8)]


def _gap(photo: Photograph) -> float:
    """Between the lips, in eye distances."""
    points = photo.landmarks
    eyes = np.linalg.norm(points[36:42].mean(0) - points[42:48].mean(0))
    return float(np.linalg.norm(points[62] - points[66]) / eyes)


def test_the_packaged_file_is_small_and_made_of_integers() -> None:
    assert asset_path(FILE).stat().st_size <= 3_000_000 and manifest()[FILE]["bytes"] <= 3_000_000
    assets = virtual_assets()
    assert all(np.issubdtype(array.dtype, np.integer) for array in assets.arrays.values())
    assert assets.portraits >= 200
    assert len(assets.rows["hair"]) >= 6 and len(assets.rows["beards"]) >= 2 and len(assets.rows["hats"]) >= 3
    assert set(assets.rows["expressions"]) == set(Expression().weights())


def test_people_are_distinct_beyond_the_portraits() -> None:
    people = [draw_virtual_person(0, index) for index in range(2 * virtual_assets().portraits)]
    assert len({person.shape for person in people}) == len(people)
    first = people[: virtual_assets().portraits]
    assert sorted(person.portraits[0] for person in first) == list(range(virtual_assets().portraits))
    assert all(person.blend == 0 for person in first)
    blended = people[virtual_assets().portraits :]
    assert all(person.portraits[0] != person.portraits[1] and 0.3 <= person.blend <= 0.7 for person in blended)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**40), st.integers(0, 10**6))
def test_a_person_depends_on_seed_and_index_only(seed: int, index: int) -> None:
    assert draw_virtual_person(seed, index) == draw_virtual_person(seed, index)
    assert draw_virtual_person(seed, index) != draw_virtual_person(seed + 1, index)


def test_people_without_a_place_are_refused() -> None:
    with pytest.raises(UserError, match="virtual person -1; expected an index of at least 0"):
        draw_virtual_person(0, -1)


def test_the_packaged_networks_find_people_where_they_are_and_tell_them_apart(sitters: list[Sitter]) -> None:
    torch.set_num_threads(1)
    finder, embedder = FaceFinder(), IdentityEmbedder()
    photos = [
        [sitter.photograph(Moment(pose=Pose(yaw=yaw), light=Light(azimuth=-2 * yaw)), 64) for yaw in (-20.0, 0.0, 20.0)]
        for sitter in sitters
    ]
    for photo in (photo for row in photos for photo in row):
        face = finder.find(photo.image)
        assert face is not None
        true = five_points(photo.landmarks)
        assert np.linalg.norm(face.points - true, axis=1).mean() < 0.25 * np.linalg.norm(true[0] - true[1])
    images = np.stack([photo.image for row in photos for photo in row])
    embeddings = embedder(to_unit_range(images)).numpy()
    cosines = embeddings @ embeddings.T
    owner = np.repeat(np.arange(len(sitters)), 3)
    same = owner[:, None] == owner
    assert cosines[same].mean() > 0.75 and cosines[~same].mean() < 0.35


def test_found_landmarks_lie_near_the_true_ones(sitters: list[Sitter]) -> None:
    finder = FaceFinder()
    off = []
    for sitter in sitters:
        photo = sitter.photograph(Moment(pose=Pose(zoom=0.8)), 128)
        face = finder.find(photo.image)
        assert face is not None
        eyes = np.linalg.norm(photo.landmarks[36] - photo.landmarks[45])
        off.append(np.linalg.norm(face.landmarks - photo.landmarks, axis=1) / eyes)
    median = np.median(off, axis=0)
    assert median[17:].mean() < 0.08 and median[:17].mean() < 0.2, "of the distance between the outer eye corners"


def test_expressions_move_what_they_name(sitters: list[Sitter]) -> None:
    def points(**weights: float) -> np.ndarray:
        return sitters[1].photograph(Moment(expression=Expression(**weights)), 64).landmarks

    def width(found: np.ndarray) -> float:
        return float(np.linalg.norm(found[48] - found[54]) / np.linalg.norm(found[36] - found[45]))

    gaps = [_gap(sitters[1].photograph(Moment(expression=Expression(jaw=jaw)), 64)) for jaw in (0.0, 0.3, 0.6, 1.0)]
    assert gaps == sorted(gaps) and gaps[-1] > gaps[0] + 0.3
    assert width(points(smile=1.0)) > 1.05 * width(points()) > width(points(pucker=1.0))
    closed, still = points(blink=1.0), points()
    assert closed[41, 1] - closed[37, 1] < 0.5 * (still[41, 1] - still[37, 1])
    assert points(brow_up=1.0)[19, 1] - points(brow_up=1.0)[37, 1] < still[19, 1] - still[37, 1]


def test_gaze_moves_the_irises(sitters: list[Sitter]) -> None:
    left, right = (sitters[2].photograph(Moment(gaze=(way, 0.0), glasses=False), 128) for way in (-30.0, 30.0))
    changed = np.abs(left.image.astype(int) - right.image).sum(-1) > 30
    rows, columns = np.nonzero(changed)
    eyes = left.landmarks[36:48]
    assert len(rows) > 8
    assert eyes[:, 1].min() - 4 < rows.min() and rows.max() < eyes[:, 1].max() + 4
    assert eyes[:, 0].min() - 4 < columns.min() and columns.max() < eyes[:, 0].max() + 4


def test_age_deepens_wrinkles_and_greys_hair_without_a_step_back(sitters: list[Sitter]) -> None:
    ages = [float(age) for age in range(20, 81, 5)]
    for sitter in sitters:
        depth = [float(wrinkle_depth(sitter.person, age, Expression()).mean()) for age in ages]
        grey = [grey_share(sitter.person, age) for age in ages]
        assert depth == sorted(depth) and depth[0] < 0.001 and depth[-1] > 0.02
        assert grey == sorted(grey) and grey[0] == 0 and grey[-1] > 0.7


def test_age_shows_in_photos(sitters: list[Sitter]) -> None:
    def roughness(photo: Photograph) -> float:
        face = photo.image[24:100, 40:88].astype(float)
        return float(np.abs(np.diff(face, axis=0)).mean())

    young, old = (
        [roughness(s.photograph(Moment(age=age, glasses=False), 128, framing="embedded")) for s in sitters]
        for age in (22.0, 78.0)
    )
    assert np.mean(old) > 1.12 * np.mean(young)


def test_hats_and_glasses_are_worn_when_asked(sitters: list[Sitter]) -> None:
    for sitter in sitters[:3]:
        bare, worn = (sitter.photograph(Moment(hat=hat, glasses=hat), 64) for hat in (False, True))
        assert (bare.image != worn.image).any(-1)[:16].mean() > 0.1
        assert (bare.image != worn.image).any(-1)[22:36, 14:50].mean() > 0.1


@pytest.mark.parametrize("kind", list(BACKDROPS))
def test_backdrops_fill_what_the_person_leaves(kind: str) -> None:
    person = draw_virtual_person(0, 1)
    one, two = (photograph(person, Moment(backdrop=Backdrop(kind=kind, seed=seed))) for seed in (1, 2))
    assert (one.image[one.mask & two.mask] == two.image[one.mask & two.mask]).mean() > 0.9
    assert (one.image != two.image).any(-1)[~one.mask].mean() > 0.1


@pytest.mark.parametrize("neckline", list(NECKLINES))
def test_clothes_lie_below_the_face(neckline: str) -> None:
    person = dataclasses.replace(draw_virtual_person(0, 1), hair="cropped")
    red, blue = (
        photograph(person, Moment(pose=Pose(zoom=0.6), clothes=Clothes(neckline=neckline, colour=colour)))
        for colour in ((0.8, 0.0, 0.0), (0.0, 0.0, 0.8))
    )
    rows, _ = np.nonzero((red.image != blue.image).any(-1))
    assert len(rows) > 20 and rows.min() > red.landmarks[57, 1]


def test_light_from_the_left_brightens_the_left(sitters: list[Sitter]) -> None:
    left, right = (sitters[0].photograph(Moment(light=Light(azimuth=a, ambient=0.2)), 64).image for a in (-70, 70))
    assert left[30:46, 18:28].mean() > 1.3 * left[30:46, 36:46].mean()
    assert right[30:46, 36:46].mean() > 1.3 * right[30:46, 18:28].mean()


def test_noise_and_blur_do_what_they_say(sitters: list[Sitter]) -> None:
    still, noisy = (sitters[0].photograph(Moment(noise=noise), 64).image.astype(float) for noise in (0.0, 5.0))
    assert (noisy - still)[still > 20].std() == pytest.approx(5, rel=0.1)
    soft = sitters[0].photograph(Moment(blur=2.0), 64).image.astype(float)
    assert np.abs(np.diff(soft, axis=0)).mean() < 0.85 * np.abs(np.diff(still, axis=0)).mean()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Expression(jaw=1.2), r"Expression: jaw = 1.2; expected 0.0 to 1.0"),
        (lambda: Expression(smile=float("nan")), r"Expression: smile = nan"),
        (lambda: Pose(yaw=75), r"Pose: yaw = 75; expected -60 to 60"),
        (lambda: Light(ambient=-0.1), r"Light: ambient = -0.1; expected 0 to 1"),
        (lambda: Light(colour=(1.0, 1.0)), r"Light: colour = \(1.0, 1.0\); expected red, green and blue"),
        (lambda: Backdrop(colour=(0.0, 2.0, 0.0)), r"Backdrop: colour = 2.0; expected 0.0 to 1.0"),
        (lambda: Clothes(stripes=9), r"Clothes: stripes = 9; expected 0 to 8"),
        (lambda: Moment(age=12), r"Moment: age = 12; expected 18.0 to 90.0"),
        (lambda: Moment(gaze=(50, 0)), r"Moment: gaze = 50; expected -35 to 35"),
        (lambda: photograph(draw_virtual_person(0, 0), Moment(), 65), r"photo of 65 px; expected an even number"),
        (lambda: photograph(draw_virtual_person(0, 0), Moment(), 512), r"photo of 512 px; expected an even number"),
        (
            lambda: photograph(draw_virtual_person(0, 0), Moment(backdrop=Backdrop(kind="walls"))),
            r"unknown backdrop 'walls'. Did you mean 'wall'",
        ),
        (
            lambda: photograph(draw_virtual_person(0, 0), Moment(clothes=Clothes(neckline="crow"))),
            r"unknown neckline 'crow'. Did you mean 'crew'",
        ),
    ],
)
def test_what_cannot_be_photographed_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


def test_one_photo_is_that_of_a_sitter_whatever_was_taken_before(sitters: list[Sitter]) -> None:
    moment = Moment(age=33.0, pose=Pose(yaw=5))
    sitters[4].photograph(Moment(age=70.0), 64)
    np.testing.assert_array_equal(
        sitters[4].photograph(moment, 64).image, photograph(sitters[4].person, moment, 64).image
    )


_MOMENTS = st.builds(
    Moment,
    age=st.floats(18, 90),
    expression=st.builds(Expression, **dict.fromkeys(Expression().weights(), st.floats(0, 1))),
    gaze=st.tuples(st.floats(-35, 35), st.floats(-35, 35)),
    pose=st.builds(Pose, yaw=st.floats(-60, 60), pitch=st.floats(-35, 35), roll=st.floats(-30, 30)),
    light=st.builds(Light, azimuth=st.floats(-180, 180), elevation=st.floats(-90, 90), ambient=st.floats(0, 1)),
    backdrop=st.builds(Backdrop, kind=st.sampled_from(list(BACKDROPS)), seed=st.integers(0, 2**31)),
    clothes=st.builds(Clothes, neckline=st.sampled_from(list(NECKLINES)), stripes=st.floats(0, 8)),
    glasses=st.sampled_from([None, False, True]),
    hat=st.booleans(),
    noise=st.floats(0, 20),
    blur=st.floats(0, 3),
)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), _MOMENTS)
def test_every_valid_moment_of_anybody_can_be_photographed(index: int, moment: Moment) -> None:
    with np.errstate(divide="raise", invalid="raise", over="raise"):
        photo = photograph(draw_virtual_person(1, index), moment, 64)
    assert photo.image.shape == (64, 64, 3) and photo.image.dtype == np.uint8 and photo.depth.dtype == np.float32
    assert np.isfinite(photo.landmarks).all() and np.isfinite(photo.camera).all()
    assert (
        0.15 < photo.mask.mean() < 1 and (photo.depth[photo.mask] > 2).all() and (photo.depth[photo.mask] < 3.4).all()
    )
