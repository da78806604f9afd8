"""Faces in a photo with the packaged ONNX networks: detection and landmarks.

Used when a data set is made; evaluation never detects faces: identity embeddings (``IdentityEmbedder``) and the metric
of eyes and mouth look where the alignment puts the face. Conventions: as ``clstudy.faces.geometry``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import onnxruntime
from PIL import Image

from clstudy.assets import asset_path
from clstudy.faces.geometry import FACE_SIZE, aligned_template, five_points, similarity_transform, warp


@dataclass(frozen=True)
class Face:
    """A detected face: detector score in [0, 1], box (x0, y0, x1, y1) and 68 landmarks, all in pixels."""

    score: float
    box: np.ndarray
    landmarks: np.ndarray

    @property
    def points(self) -> np.ndarray:
        """Eyes, nose tip, mouth corners ``[5, 2]``."""
        return five_points(self.landmarks)

    def yaw(self) -> float:
        """Rough left-right turn: nose offset between the eyes, 0 for a frontal face, about 0.5 at a profile."""
        left, right, nose = self.points[0], self.points[1], self.points[2]
        axis = right - left
        return float((nose - left) @ axis / (axis @ axis) - 0.5)


def distinct_boxes(scores: np.ndarray, boxes: np.ndarray, *, max_overlap: float = 0.3, edge: float = 0) -> np.ndarray:
    """Indices of the best boxes that overlap no better one by more than ``max_overlap``, best first.

    Args:
        scores: ``[n]``, higher is better.
        boxes: ``[n, 4]`` as (x0, y0, x1, y1).
        max_overlap: intersection over union in [0, 1].
        edge: added to every side; 1 where coordinates are pixels and both ends count.
    """
    areas = (boxes[:, 2] - boxes[:, 0] + edge) * (boxes[:, 3] - boxes[:, 1] + edge)
    left = np.argsort(-scores, kind="stable")
    kept = []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        sides = np.minimum(boxes[best, 2:], boxes[left, 2:]) - np.maximum(boxes[best, :2], boxes[left, :2]) + edge
        shared = sides.clip(min=0).prod(1)
        left = left[shared <= max_overlap * (areas[best] + areas[left] - shared)]
    return np.array(kept, int)


def onnx_session(name: str, threads: int) -> onnxruntime.InferenceSession:
    """Open a packaged ONNX network on the CPU with the given number of threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(asset_path(name)), options, providers=["CPUExecutionProvider"])


class FaceDetector(Protocol):
    """A face detector, as needed to prepare photos; ``clstudy.faces.detectors`` lists detectors by name."""

    def faces(self, image: np.ndarray) -> list[Face]:
        """Return every face of the image, best first."""

    def landmarks(self, image: np.ndarray, box: np.ndarray) -> np.ndarray:
        """Return 68 landmarks ``[68, 2]`` of the face inside a box (x0, y0, x1, y1)."""


class FaceFinder:
    """The packaged detector and landmark network, loaded on first use."""

    def __init__(self, *, threads: int = 1, min_score: float = 0.65):
        self._threads = threads
        self._min_score = min_score

    @cached_property
    def _detector(self) -> onnxruntime.InferenceSession:
        return onnx_session("face_detector.onnx", self._threads)

    @cached_property
    def _landmarker(self) -> onnxruntime.InferenceSession:
        return onnx_session("face_landmarks.onnx", self._threads)

    def find(self, image: np.ndarray) -> Face | None:
        """Return the best face of the image, or None if no box reaches the minimum score."""
        scores, boxes = self._detect(image)
        best = int(scores.argmax())
        return self._face(image, scores[best], boxes[best]) if scores[best] >= self._min_score else None

    def faces(self, image: np.ndarray) -> list[Face]:
        """Return every face of the image, best first; the first one is that of ``find``."""
        scores, boxes = self._detect(image)
        likely = np.flatnonzero(scores >= self._min_score)
        kept = likely[distinct_boxes(scores[likely], boxes[likely])]
        return [self._face(image, scores[index], boxes[index]) for index in kept]

    def _detect(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores ``[n]`` and boxes ``[n, 4]`` in pixels, one for every position that the detector examines."""
        height, width = image.shape[:2]
        # The detector expects 4:3 pictures in which a face does not touch the border.
        full = max(width / 4, height / 3) * 1.25
        top, left = int((3 * full - height) / 2), int((4 * full - width) / 2)
        grown = np.pad(image, ((top, top), (left, left), (0, 0)), mode="constant")
        small = np.asarray(Image.fromarray(grown).resize((320, 240), Image.Resampling.BILINEAR), np.float32)
        scores, boxes = self._detector.run(None, {"input": ((small - 127) / 128).transpose(2, 0, 1)[None]})
        size = np.array(grown.shape[1::-1] * 2)
        return scores[0, :, 1], boxes[0] * size - np.array([left, top, left, top])

    def _face(self, image: np.ndarray, score: np.floating, box: np.ndarray) -> Face:
        return Face(score=float(score), box=box, landmarks=self.landmarks(image, box))

    def landmarks(self, image: np.ndarray, box: np.ndarray) -> np.ndarray:
        """Return 68 landmarks ``[68, 2]`` of the face inside a box (x0, y0, x1, y1)."""
        height, width = image.shape[:2]
        x0, y0 = np.clip(np.round(box[:2]), 0, [width - 2, height - 2]).astype(int)
        x1, y1 = np.clip(np.round(box[2:]), [x0 + 2, y0 + 2], [width, height]).astype(int)
        grey = Image.fromarray(np.ascontiguousarray(image[y0:y1, x0:x1])).convert("L")
        values = np.asarray(grey.resize((64, 64), Image.Resampling.BILINEAR), np.float32) / 256
        found = self._landmarker.run(None, {"input": values[None, None]})[0].reshape(68, 2)
        points: np.ndarray = found * np.array([x1 - x0, y1 - y0]) + np.array([x0, y0])
        return points

    def align(self, image: np.ndarray, *, size: int = FACE_SIZE) -> tuple[np.ndarray, Face] | None:
        """Return the aligned photo ``[size, size, 3]`` and the face in *source* pixels, or None if none is found."""
        face = self.find(image)
        if face is None:
            return None
        return warp(image, similarity_transform(face.points, aligned_template(size)), size), face
