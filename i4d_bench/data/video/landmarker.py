"""Finds the face in a picture: MediaPipe Face Landmarker (478 landmarks, 52 blendshapes, head pose).

The network is Google's `face_landmarker.task` (Apache-2.0), which the user downloads. Its blendshapes are ARKit's
without `tongueOut`, which is always 0 here.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Shaped, UInt8
from PIL import Image

from i4d_bench.assets import LANDMARKER, find, missing
from i4d_bench.extras import install
from i4d_bench.heads.expressions import NAMES
from i4d_bench.types import UserError

MIN_SIDE = 256
"""Smaller images are enlarged to this shorter side before detection; coordinates come back in the caller's pixels."""

VERTICAL_FOV = 63.0
"""Degrees: the pinhole camera (principal point in the middle) in which MediaPipe expresses `Face.pose`."""

# fmt: off
IBUG68 = np.array([
    127, 234, 93, 132, 172, 136, 149, 176, 152, 400, 378, 365, 397, 361, 323, 454, 356,  # jaw line, right ear to left
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300,  # brows
    168, 197, 5, 4, 98, 97, 2, 326, 327,  # nose
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,  # eyes
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181,  # lips, outside
    78, 82, 13, 312, 308, 317, 14, 87,  # lips, inside
])
# fmt: on
"""iBUG's 68 points in MediaPipe's mesh."""


@dataclass(frozen=True)
class Face:
    """One detected face.

    landmarks: pixels, pixel centres at half integers; z in the same unit, smaller is nearer.
    blendshapes: 0..1, in the order of heads.expressions.NAMES.
    pose: MediaPipe's canonical face (cm; x to the subject's left, y up, z out) → camera, OpenCV axes.
    """

    landmarks: Float[np.ndarray, "478 3"]
    blendshapes: Float[np.ndarray, " 52"]
    pose: Float[np.ndarray, "4 4"]


def to68(landmarks: Shaped[np.ndarray, "*B 478 D"]) -> Shaped[np.ndarray, "*B 68 D"]:
    """The 68 landmarks in iBUG order."""
    return landmarks[..., IBUG68, :]


def find_model(path: str | Path | None = None) -> Path:
    """The model file: `path` itself, else where `i4d-bench assets` looks. Raises UserError when it is nowhere."""
    found = find(LANDMARKER) if path is None else Path(path)
    if found is None:
        raise UserError(missing(LANDMARKER))
    if not found.is_file():
        raise UserError(f"there is no model {found}: `i4d-bench assets` says where to download it")
    return found


class Landmarker:
    """MediaPipe's detector for still images. It holds native threads: use it in a `with` block, or it closes at exit.

    most: how many faces `faces` may find. Raises UserError when mediapipe or its model file is missing or damaged.
    """

    def __init__(self, model_path: str | Path | None = None, most: int = 1):
        path = find_model(model_path)
        try:
            import mediapipe
            from mediapipe.tasks.python import BaseOptions, vision
        except ImportError as e:
            raise UserError(f"finding faces needs mediapipe: {install('video')}") from e
        self._image = lambda rgb: mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=rgb)
        options = vision.FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_path=str(path)),
            num_faces=most,
            output_face_blendshapes=True,
            output_facial_transformation_matrixes=True,
        )
        try:
            self._detector = vision.FaceLandmarker.create_from_options(options)
        except (RuntimeError, ValueError) as e:
            raise UserError(f"{path} is not a usable Face Landmarker model ({e}): download it again") from e
        except (
            OSError
        ) as e:  # of its native library, where the system has no graphics (a bare server's Debian: libegl1, libgles2)
            raise UserError(
                f"mediapipe cannot be loaded ({e}): install what it lacks, on Debian libegl1 and libgles2"
            ) from e
        self.close = weakref.finalize(self, self._detector.close)

    def __enter__(self) -> Landmarker:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def __call__(self, rgb: UInt8[np.ndarray, "H W 3"]) -> Face | None:
        """The most prominent face, or None. Raises ValueError when `rgb` is not a uint8 RGB image."""
        return next(iter(self.faces(rgb)), None)

    def faces(self, rgb: UInt8[np.ndarray, "H W 3"]) -> list[Face]:
        """The faces found, most prominent first. Raises ValueError when `rgb` is not a uint8 RGB image."""
        if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
            raise ValueError(f"expected a uint8 [H,W,3] image, got {rgb.dtype} {rgb.shape}")
        h, w = rgb.shape[:2]
        if min(h, w) < MIN_SIDE:
            k = MIN_SIDE / min(h, w)
            rgb = np.asarray(Image.fromarray(rgb).resize((round(w * k), round(h * k)), Image.Resampling.BICUBIC))
        found = self._detector.detect(self._image(np.ascontiguousarray(rgb)))
        parts = zip(found.face_landmarks, found.face_blendshapes, found.facial_transformation_matrixes, strict=True)
        return [self._face(points, shapes, matrix, w, h) for points, shapes, matrix in parts]

    @staticmethod
    def _face(points, shapes, matrix, width: int, height: int) -> Face:
        scores = {c.category_name: c.score for c in shapes}
        return Face(
            # MediaPipe normalises z by the image's width, as it does x.
            np.array([(p.x * width, p.y * height, p.z * width) for p in points], np.float32),
            np.array([scores.get(name, 0.0) for name in NAMES], np.float32),
            np.diag([1.0, -1.0, -1.0, 1.0]) @ matrix,
        )
