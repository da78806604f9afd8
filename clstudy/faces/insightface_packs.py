"""Faces by the networks of an insightface pack (a folder such as ``buffalo_l``): read by us, or by insightface itself.

``PackFinder`` needs onnxruntime only; ``InsightFaceFinder`` is the extra ``clstudy[insightface]``. Both give the same
boxes, scores and landmarks to 1e-5 (tests). Nothing is ever downloaded: the packs are insightface's, for
non-commercial research (https://github.com/deepinsight/insightface/releases/tag/v0.7).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnxruntime
import torch

from clstudy.assets.extras import import_extra
from clstudy.assets.readers.onnx_file import first_node_names
from clstudy.assets.readers.onnx_network import open_network, takes_raw_pixels
from clstudy.errors import UserError
from clstudy.faces.face_finder import Face, distinct_boxes
from clstudy.faces.opencv_sampling import resize_bilinear, warp_bilinear

DETECTION_SIZE = 640
"""Side of the square that a photo is fitted into, unless the detection network fixes its own."""

STRIDES = (8, 16, 32)
"""Stride in pixels of each level of the detection network (SCRFD)."""

ANCHORS = 2
"""Boxes per position."""

MIN_SCORE = 0.5
MAX_OVERLAP = 0.4

LANDMARK_CROP = 192
LANDMARK_OUTPUTS = 3309
"""Number of outputs of ``1k3d68.onnx``: 1,103 points in three dimensions, the last 68 of them the iBUG landmarks."""

_MARGIN = 1.5  # the landmark crop's side, as a multiple of the box's longer side


def default_pack() -> Path:
    """Where insightface keeps its pack ``buffalo_l``."""
    return Path("~/.insightface/models/buffalo_l").expanduser()


def pack_networks(folder: Path | None) -> tuple[Path, Path]:
    """The files of a pack's detection and landmark networks.

    Args:
        folder: of the pack; None: where insightface keeps its own.

    Raises:
        UserError: no such folder, or it lacks one of the networks.
    """
    pack = default_pack() if folder is None else folder
    if not pack.is_dir():
        raise UserError(f"no insightface pack at {pack}; {_REMEDY}")
    detection = _network(pack, "det_*.onnx", "detection network", _detects)
    landmarks = _network(pack, "1k3d68.onnx", "network of 68 landmarks", _has_landmarks)
    return detection, landmarks


_REMEDY = (
    "unpack insightface's buffalo_l.zip (https://github.com/deepinsight/insightface/releases/tag/v0.7) and name the "
    "folder with det_10g.onnx and 1k3d68.onnx: --detector pack=FOLDER or insightface=FOLDER; or use the packaged "
    "detector (`--detector packaged`)"
)


def _network(pack: Path, usual: str, what: str, fits: Callable[[onnxruntime.InferenceSession], bool]) -> Path:
    files = sorted(pack.glob("*.onnx"))
    usually = [path for path in files if path.match(usual)]
    for path in [*usually, *(path for path in files if path not in usually)]:
        if fits(open_network(path, 1, torch.device("cpu"))):
            return path
    held = ", ".join(path.name for path in files) or "no .onnx file"
    raise UserError(f"{pack} has no {what} (it has {held}); {_REMEDY}")


def _detects(session: onnxruntime.InferenceSession) -> bool:
    return len(session.get_outputs()) in (2 * len(STRIDES), 3 * len(STRIDES))


def _has_landmarks(session: onnxruntime.InferenceSession) -> bool:
    shape, outputs = session.get_inputs()[0].shape, session.get_outputs()
    return list(shape[2:]) == [LANDMARK_CROP] * 2 and list(outputs[0].shape[1:]) == [LANDMARK_OUTPUTS]


class PackFinder:
    """A pack's detector (SCRFD) and 68 landmarks through onnxruntime, as insightface decodes them.

    Sources: J. Guo et al., "Sample and Computation Redistribution for Efficient Face Detection" (2105.04714), and
    insightface's classes ``SCRFD`` and ``Landmark``.

    Raises:
        UserError: as ``pack_networks``, or a network cannot be read.
    """

    reads_packs: ClassVar[bool] = True

    def __init__(self, pack: Path | None = None, *, threads: int = 1):
        detection, landmarks = pack_networks(pack)
        self._detection = open_network(detection, threads, torch.device("cpu"))
        self._landmarks = open_network(landmarks, threads, torch.device("cpu"))
        self._raw = _normalises_itself(landmarks)

    def faces(self, image: np.ndarray) -> list[Face]:
        """Return every face of the image, best first."""
        scores, boxes = self._detect(image)
        kept = distinct_boxes(scores, boxes, max_overlap=MAX_OVERLAP, edge=1)
        return [
            Face(score=float(scores[index]), box=boxes[index], landmarks=self.landmarks(image, boxes[index]))
            for index in kept
        ]

    def landmarks(self, image: np.ndarray, box: np.ndarray) -> np.ndarray:
        """Return 68 landmarks ``[68, 2]`` of the face inside a box (x0, y0, x1, y1)."""
        inverse = landmark_crop(box)
        crop = warp_bilinear(image, inverse, LANDMARK_CROP).astype(np.float32)
        blob = crop if self._raw else (crop - np.float32(127.5)) * np.float32(1 / 128)
        name = self._landmarks.get_inputs()[0].name
        found = self._landmarks.run(None, {name: blob.transpose(2, 0, 1)[None]})[0][0].reshape(-1, 3)[-68:]
        in_crop = (found[:, :2] + 1) * (LANDMARK_CROP // 2)
        points: np.ndarray = (in_crop @ inverse[:, :2].T + inverse[:, 2]).astype(np.float32)
        return points

    def _detect(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores ``[n]`` and boxes ``[n, 4]`` in the image's pixels, of all positions with ``MIN_SCORE`` or more."""
        asked = self._detection.get_inputs()[0]
        height, width = (side if isinstance(side, int) else DETECTION_SIZE for side in asked.shape[2:])
        fitted, scale = fit_into(image, width, height)
        blob = (fitted.astype(np.float32) - np.float32(127.5)) * np.float32(1 / 128)
        outputs = self._detection.run(None, {asked.name: blob.transpose(2, 0, 1)[None]})
        levels = [decode(*level, width, height) for level in _levels(outputs)]
        scores, boxes = (np.concatenate(part) for part in zip(*levels, strict=True))
        return scores, (boxes / scale).astype(np.float32)


def fit_into(image: np.ndarray, width: int, height: int) -> tuple[np.ndarray, float]:
    """The image scaled to fit the top left of a black ``[height, width, 3]``, and the scaling factor."""
    ratio = image.shape[0] / image.shape[1]
    if ratio > height / width:
        new_height, new_width = height, int(height / ratio)
    else:
        new_width, new_height = width, int(width * ratio)
    fitted = np.zeros((height, width, 3), np.uint8)
    fitted[:new_height, :new_width] = resize_bilinear(image, new_width, new_height)
    return fitted, new_height / image.shape[0]


def _levels(outputs: list[np.ndarray]) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Stride, scores ``[n, 1]`` and distances ``[n, 4]`` of each level; some exports have a batch axis in front."""
    count = len(STRIDES)
    for level, stride in enumerate(STRIDES):
        scores, distances = outputs[level], outputs[level + count]
        yield (stride, scores.reshape(-1, 1), distances.reshape(-1, 4))


def decode(
    stride: int, scores: np.ndarray, distances: np.ndarray, width: int, height: int
) -> tuple[np.ndarray, np.ndarray]:
    """Scores ``[n]`` and boxes ``[n, 4]`` of a level's likely faces, from distances to the four sides in strides."""
    y, x = np.mgrid[: height // stride, : width // stride].astype(np.float32) * stride
    places = np.repeat(np.stack([x.ravel(), y.ravel()], axis=1), ANCHORS, axis=0)
    likely = np.flatnonzero(scores[:, 0] >= MIN_SCORE)
    reach = distances[likely] * stride
    return scores[likely, 0], np.hstack([places[likely] - reach[:, :2], places[likely] + reach[:, 2:]])


def landmark_crop(box: np.ndarray) -> np.ndarray:
    """The map ``[2, 3]`` from pixels of the landmark crop to those of the image, for a box."""
    sides = box[2:] - box[:2]
    scale = LANDMARK_CROP / (max(sides) * _MARGIN)
    shift = LANDMARK_CROP / 2 - np.asarray((box[2:] + box[:2]) / 2 * scale, float)
    inverse = float(scale) * (1 / (float(scale) * float(scale)))  # OpenCV's order of operations
    return np.array([[inverse, 0, -inverse * shift[0]], [0, inverse, -inverse * shift[1]]])


def _normalises_itself(path: Path) -> bool:
    """Whether a landmark network takes pixels 0..255, by insightface's rule for networks exported from MXNet."""
    return takes_raw_pixels(path) or "bn_data" in first_node_names(path.read_bytes(), 3)


class InsightFaceFinder:
    """InsightFace's own detector and 68 landmarks on the weights of a pack.

    Raises:
        UserError: the package is not installed, or the pack is not there or cannot be read.
    """

    reads_packs: ClassVar[bool] = True

    def __init__(self, pack: Path | None = None) -> None:
        wanted = {
            "extra": "insightface",
            "wanted_by": "face detector 'insightface'",
            "instead": "read its packs without it (`--detector pack=FOLDER`), or use the packaged detector "
            "(`--detector packaged`)",
        }
        analysis = import_extra("insightface.app", **wanted).FaceAnalysis
        self._found: Callable[..., Any] = import_extra("insightface.app.common", **wanted).Face
        detection, _ = pack_networks(pack)  # insightface would download the contents of a missing folder
        try:
            self._app = analysis(
                name=str(detection.parent.resolve()),
                allowed_modules=["detection", "landmark_3d_68"],
                providers=["CPUExecutionProvider"],
            )
            self._app.prepare(ctx_id=-1, det_size=(DETECTION_SIZE, DETECTION_SIZE))
        except Exception as error:  # insightface passes on whatever onnxruntime raises
            raise UserError(
                f"face detector 'insightface' could not open {detection.parent} ({error or type(error).__name__}); "
                f"{_REMEDY}"
            ) from error

    def faces(self, image: np.ndarray) -> list[Face]:
        """Return every face of the image, best first."""
        found = sorted(self._app.get(_blue_first(image)), key=lambda face: -face.det_score)
        return [
            Face(score=float(face.det_score), box=np.asarray(face.bbox), landmarks=face.landmark_3d_68[:, :2])
            for face in found
        ]

    def landmarks(self, image: np.ndarray, box: np.ndarray) -> np.ndarray:
        """Return 68 landmarks ``[68, 2]`` of the face inside a box (x0, y0, x1, y1)."""
        model = self._app.models["landmark_3d_68"]
        points: np.ndarray = model.get(_blue_first(image), self._found(bbox=np.asarray(box)))[:, :2]
        return points


def _blue_first(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image[..., ::-1])
