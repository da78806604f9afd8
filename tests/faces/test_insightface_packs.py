"""insightface packs read by us and by insightface: networks of the packs' layout with random weights, real photos."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from clstudy.errors import UserError
from clstudy.faces.detectors import DETECTORS, detector_key, detector_title, open_detector, parse_detector
from clstudy.faces.face_finder import Face, FaceFinder
from clstudy.faces.insightface_packs import LANDMARK_OUTPUTS, STRIDES, PackFinder, fit_into, landmark_crop
from clstudy.faces.opencv_sampling import resize_bilinear, warp_bilinear
from clstudy.identities.orl import fetch_orl, read_orl_photo

_PASSING = 6
"""Places per level of the detection network that reach the threshold on the first photo, about."""


def save(path: Path, nodes: list, tensors: dict[str, np.ndarray], given: list, made: list[tuple[str, list]]) -> None:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("input.1", TensorProto.FLOAT, given)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in made],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def detection_network(path: Path, bias: tuple[float, ...], *, batched: bool = False) -> None:
    """SCRFD's outputs: scores of three levels, then distances, then five points; a convolution and no more each."""
    rng = np.random.default_rng(1)
    nodes, tensors, made = [], {}, []
    for kind, width, activation in (("score", 1, "Sigmoid"), ("box", 4, "Relu"), ("points", 10, "Identity")):
        for level, stride in enumerate(STRIDES):
            name = f"{kind}{stride}"
            weights = rng.standard_normal((2 * width, 3, stride, stride)) * (3.0 / stride)
            offsets = np.full(2 * width, bias[level] if kind == "score" else 3.0)
            tensors |= {f"{name}.w": weights.astype(np.float32), f"{name}.b": offsets.astype(np.float32)}
            tensors[f"{name}.s"] = np.array([1, -1, width] if batched else [-1, width])
            nodes += [
                helper.make_node("Conv", ["input.1", f"{name}.w", f"{name}.b"], [f"{name}.c"], strides=[stride] * 2),
                helper.make_node("Transpose", [f"{name}.c"], [f"{name}.t"], perm=[0, 2, 3, 1]),
                helper.make_node(activation, [f"{name}.t"], [f"{name}.a"]),
                helper.make_node("Reshape", [f"{name}.a", f"{name}.s"], [name]),
            ]
            made.append((name, [1, None, width] if batched else [None, width]))
    save(path, nodes, tensors, [1, 3, "?", "?"], made)


def calibrated_detection_network(path: Path, photo: np.ndarray, *, batched: bool = False) -> None:
    """With biases for which a few places of the photo pass."""
    detection_network(path, (0, 0, 0), batched=batched)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    blob = ((fit_into(photo, 640, 640)[0].astype(np.float32) - 127.5) / 128).transpose(2, 0, 1)[None]
    scores = session.run(None, {"input.1": blob})[: len(STRIDES)]
    logits = [np.sort(np.log(score / (1 - score)).ravel())[-_PASSING] for score in scores]
    detection_network(path, tuple(-float(value) for value in logits), batched=batched)


def landmark_network(path: Path, *, raw: bool = False) -> None:
    """``1k3d68.onnx``: a 192 px crop in, 1,103 points out; with MXNet's node names if it takes raw pixels."""
    rng = np.random.default_rng(2)
    tensors = {
        "w": (rng.standard_normal((8, 3, 16, 16)) / (16 * (128 if raw else 1))).astype(np.float32),
        "m": (rng.standard_normal((8 * 144, LANDMARK_OUTPUTS)) / 60).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["input.1", "w"], ["c"], strides=[16, 16], name="bn_data" if raw else "Conv_0"),
        helper.make_node("Flatten", ["c"], ["f"]),
        helper.make_node("MatMul", ["f", "m"], ["fc1"]),
    ]
    save(path, nodes, tensors, [None, 3, 192, 192], [("fc1", [1, LANDMARK_OUTPUTS])])


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    """Real photographs (ORL, 92 x 112), tinted, as they are and in a wide and a tall picture of another size."""
    faces = fetch_orl(tmp_path_factory.mktemp("orl"))
    tint = np.array([1.0, 0.8, 0.6])
    small = [(read_orl_photo(faces / f"s{person}" / "1.pgm") * tint).astype(np.uint8) for person in (1, 5)]
    sides = (np.concatenate(small, axis=1), np.concatenate(small, axis=0))
    large = [np.asarray(Image.fromarray(both).resize((both.shape[1] * 9 // 2, both.shape[0] * 4))) for both in sides]
    return [*small, *large]


def pack_of(folder: Path, photo: np.ndarray, *, batched: bool = False, raw: bool = False) -> Path:
    folder.mkdir()
    calibrated_detection_network(folder / "det_10g.onnx", photo, batched=batched)
    landmark_network(folder / "1k3d68.onnx", raw=raw)
    return folder


def needs_insightface() -> None:
    for module in ("insightface", "cv2"):
        if importlib.util.find_spec(module) is None:
            pytest.skip("install the insightface extra to compare with it")


def difference(ours: list[Face], theirs: list[Face]) -> float:
    """The largest relative difference of scores, boxes and landmarks (of coordinates: by the photo's size)."""
    assert len(ours) == len(theirs) > 1
    gaps = [0.0]
    for a, b in zip(ours, theirs, strict=True):
        size = max(1.0, np.abs(b.box).max(), np.abs(b.landmarks).max())
        gaps += [
            abs(a.score - b.score),
            np.abs(a.box - b.box).max() / size,
            np.abs(a.landmarks - b.landmarks).max() / size,
        ]
    return max(gaps)


@pytest.mark.parametrize(("batched", "raw"), [(False, True), (True, False)])
def test_our_reader_equals_insightface(tmp_path: Path, photos: list[np.ndarray], batched: bool, raw: bool) -> None:
    needs_insightface()
    pack = pack_of(tmp_path / "buffalo_x", photos[0], batched=batched, raw=raw)
    ours, theirs = open_detector(f"pack={pack}"), open_detector(f"insightface={pack}")
    for photo in photos:
        found, expected = ours.faces(photo), theirs.faces(photo)
        gap = difference(found, expected)
        print(f"{photo.shape[1]} x {photo.shape[0]}: {len(found)} boxes, largest relative difference {gap:.1e}")
        assert gap < 1e-5
        box = np.array([0.13, 0.22, 0.81, 0.74]) * np.tile(photo.shape[1::-1], 2)
        np.testing.assert_allclose(ours.landmarks(photo, box), theirs.landmarks(photo, box), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("size", [(640, 640), (466, 640), (640, 480), (92, 112), (31, 200)])
def test_resizing_is_opencvs_to_the_bit(photos: list[np.ndarray], size: tuple[int, int]) -> None:
    needs_insightface()
    import cv2

    for photo in photos:
        assert np.array_equal(resize_bilinear(photo, *size), cv2.resize(photo, size))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_landmark_crop_is_opencvs(photos: list[np.ndarray], dtype: type) -> None:
    """insightface's own function on boxes inside and partly outside, in photos and in noise."""
    needs_insightface()
    import cv2
    from insightface.utils import face_align

    rng = np.random.default_rng(0)
    differing, largest = [], 0
    for photo in [*photos, rng.integers(0, 256, (700, 500, 3), dtype=np.uint8)]:
        for _ in range(4):
            box = (np.sort(rng.uniform(-0.2, 1.1, (2, 2)), axis=0) * photo.shape[1::-1]).ravel().astype(dtype)
            longer = max(box[2] - box[0], box[3] - box[1])
            centre = (box[2] + box[0]) / 2, (box[3] + box[1]) / 2
            expected, _ = face_align.transform(photo, centre, 192, 192 / (longer * 1.5), 0)
            gap = np.abs(warp_bilinear(photo, landmark_crop(box), 192).astype(int) - expected)
            differing.append((gap > 0).mean())
            largest = max(largest, gap.max())
    print(f"OpenCV {cv2.__version__}: {np.mean(differing):.2%} of the values differ, by at most {largest}")
    assert largest <= (0 if cv2.__version__.startswith("5") else 4)


def test_resampling_without_opencv_is_bilinear() -> None:
    """Oracle without OpenCV: a ramp stays a ramp, away from the border."""
    ramp = np.repeat(np.arange(0, 200, 2, dtype=np.uint8)[None, :, None], 50, axis=0).repeat(3, axis=2)
    wide = resize_bilinear(ramp, 200, 50)[25, 5:-5, 0].astype(float)
    np.testing.assert_allclose(wide, (np.arange(5, 195) + 0.5) - 1, atol=1)
    moved = warp_bilinear(ramp, np.array([[0.5, 0, 10.25], [0, 0.5, 3]]), 60)[20, :, 0].astype(float)
    np.testing.assert_allclose(moved, 2 * (np.arange(60) * 0.5 + 10.25), atol=0.51)
    assert (warp_bilinear(ramp, np.array([[1, 0, -50.0], [0, 1, -20.0]]), 40) == 0).all(), "black beyond the photo"


def test_a_pack_gives_faces_without_insightface(tmp_path: Path, photos: list[np.ndarray]) -> None:
    """Boxes by hand: the best place's box is that place plus or minus its distances, in the photo's pixels."""
    pack = pack_of(tmp_path / "pack", photos[0])
    faces = open_detector(f"pack={pack}").faces(photos[0])
    assert len(faces) > 1 and all(0.5 <= face.score <= 1 for face in faces)
    assert [face.score for face in faces] == sorted((face.score for face in faces), reverse=True)
    assert all(face.landmarks.shape == (68, 2) and np.isfinite(face.landmarks).all() for face in faces)
    session = onnxruntime.InferenceSession(str(pack / "det_10g.onnx"), providers=["CPUExecutionProvider"])
    fitted, scale = fit_into(photos[0], 640, 640)
    outputs = session.run(None, {"input.1": ((fitted.astype(np.float32) - 127.5) / 128).transpose(2, 0, 1)[None]})
    level = int(np.argmax([scores.max() for scores in outputs[:3]]))
    best, stride = int(outputs[level].argmax()), STRIDES[level]
    row, column = divmod(best // 2, 640 // stride)
    left, top, right, bottom = outputs[3 + level][best] * stride
    x, y = column * stride, row * stride
    np.testing.assert_allclose(faces[0].box, np.array([x - left, y - top, x + right, y + bottom]) / scale, rtol=1e-4)
    assert faces[0].score == pytest.approx(float(outputs[level].max()), abs=1e-6)
    detection_network(pack / "det_10g.onnx", (-9, -9, -9))
    assert PackFinder(pack).faces(np.zeros((80, 60, 3), np.uint8)) == []


def test_a_detector_is_chosen_by_name_and_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert isinstance(open_detector("packaged"), FaceFinder) and set(DETECTORS) == {"packaged", "insightface", "pack"}
    assert parse_detector("insightface") == ("insightface", None) and parse_detector(f"pack={tmp_path}")[1] == tmp_path
    with pytest.raises(UserError, match="'packaged' takes no folder; .*insightface=FOLDER, pack=FOLDER"):
        parse_detector(f"packaged={tmp_path}")
    with pytest.raises(UserError, match="no folder 'nowhere'; name the folder of an insightface pack"):
        parse_detector("pack=nowhere")
    with pytest.raises(UserError, match="unknown face detector 'pak'.*Did you mean 'pack'"):
        parse_detector("pak=nowhere")
    with pytest.raises(UserError, match=r"no insightface pack at .*home/\.insightface.*buffalo_l\.zip"):
        open_detector("pack")
    landmark_network(tmp_path / "1k3d68.onnx")
    with pytest.raises(UserError, match=r"has no detection network \(it has 1k3d68\.onnx\)"):
        open_detector(f"pack={tmp_path}")
    assert detector_title(f"pack={tmp_path}") == f"pack ({tmp_path.name})" and detector_title("packaged") == "packaged"


def test_the_key_of_a_scan_follows_a_packs_content(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        detection_network(tmp_path / name / "det_10g.onnx", (0, 0, 0))
        landmark_network(tmp_path / name / "1k3d68.onnx")
    keys = [detector_key(f"pack={tmp_path / name}") for name in ("a", "b")]
    assert keys[0] == keys[1] and detector_key("packaged") == "packaged"
    detection_network(tmp_path / "b" / "det_10g.onnx", (1, 0, 0))
    assert detector_key(f"pack={tmp_path / 'b'}") != keys[0]


def test_insightface_never_downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs_insightface()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("insightface.utils.storage.download_file", lambda *a, **k: pytest.fail("it downloads"))
    with pytest.raises(UserError, match=r"no insightface pack at .*\.insightface/models/buffalo_l"):
        open_detector("insightface")


def test_insightface_is_optional(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "insightface", None)
    with pytest.raises(UserError, match=r"clstudy\[insightface\].*--detector pack=FOLDER"):
        open_detector(f"insightface={tmp_path}")
