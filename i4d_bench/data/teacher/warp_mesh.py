"""The face mesh of the animator `warp`: how its points move, and which place of a photo each pixel then shows.

A `shape` is the 478 landmarks in canonical space (i4d_bench.types), which knows neither the head's pose nor its size; what is
said to be in pixels are landmarks of a picture.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numba
import numpy as np
from jaxtyping import Float, Int

from i4d_bench.data.video.headfit import FLIP, RIGID, Similarity, similarity

# fmt: off
OVAL = np.array([10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
                 152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109])
"""The outline, in order."""
MOUTH = np.array([[78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308], [78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308]])
EYES = (np.array([[33, 246, 161, 160, 159, 158, 157, 173, 133], [33, 7, 163, 144, 145, 153, 154, 155, 133]]),
        np.array([[362, 398, 384, 385, 386, 387, 388, 466, 263], [362, 382, 381, 380, 374, 373, 390, 249, 263]]))
# fmt: on
"""Rims of the openings, upper and lower, each from corner to corner from the picture's left to its right."""
BRIDGE, TIP, BASE = 168, 4, np.array([1, 2, 98, 327])
"""Of the nose."""
STILL = np.r_[RIGID, BASE]
"""Landmarks that stay; the movement of others sets in over EASE (canonical units) from them."""
EASE = 0.04
MOUTHS = (0.75, 1.1)
"""Width of the source's mouth in parts of the driver's: beyond these it moves as if it were these."""
SHUT = 0.06
"""Distance between MediaPipe's lids in a closed eye, in parts of the eye's width."""
WIDEST = 1.3
"""So many times as far as in the photo an eye opens at most."""
LID = 0.03
"""How far up the skin follows the lid (canonical units)."""
RING = 1.6
"""Size of the ring of fixed points around the face, in parts of its outline."""
PRECISE = 1024
"""Up to this side a picture is drawn with two samples a pixel, each way."""


def gap(shape: Float[np.ndarray, "478 3"], rims: Int[np.ndarray, "2 P"]) -> float:
    """Mean height of an opening."""
    upper, lower = shape[rims[:, 1:-1], 1]
    return float((upper - lower).mean())


def width(shape: Float[np.ndarray, "478 3"], rims: Int[np.ndarray, "2 P"]) -> float:
    return float(np.linalg.norm(shape[rims[0, 0]] - shape[rims[0, -1]]))


def laid_on(shape: Float[np.ndarray, "478 3"], pixels: Float[np.ndarray, "478 3"]) -> Float[np.ndarray, "478 3"]:
    """A picture's landmarks as a shape: turned, scaled and moved so that those which expressions hardly move lie on `shape`'s."""
    upright = (pixels.astype(float) @ FLIP)[None]
    return similarity(shape[RIGID], upright[:, RIGID]).inverse(upright)[0]


def to_pixels(shape: Float[np.ndarray, "478 3"], pose: Similarity) -> Float[np.ndarray, "478 3"]:
    """pose: of one frame, as `headfit.align` returns it."""
    return (pose.scale[0] * shape @ pose.rotation[0].T + pose.shift[0]) @ FLIP


def moved(
    source: Float[np.ndarray, "478 3"], neutral: Float[np.ndarray, "478 3"], driver: Float[np.ndarray, "478 3"]
) -> Float[np.ndarray, "478 3"]:
    """The source's shape plus what the driver's differs by from `neutral`. The mouth moves in proportion to its width, a lid in
    proportion to how far the eye is open, and neither lips nor lids cross. Below the eyes all is relative to the nose."""
    step = driver - neutral
    below = _eased((source[BRIDGE, 1] - source[:, 1]) / (source[BRIDGE, 1] - source[TIP, 1]))
    step -= below[:, None] * step[BASE].mean(0)
    step *= _eased(_distances(source, STILL).min(1) / EASE)[:, None]
    wide = width(source, MOUTH)
    near = np.exp(-0.5 * (np.linalg.norm(source - source[MOUTH].mean((0, 1)), axis=1) / wide) ** 2)
    step *= 1 + near[:, None] * (np.clip(wide / width(neutral, MOUTH), *MOUTHS) - 1)
    out = source + step
    for rims in EYES:
        _move_lid(out, source, rims, _open(driver, rims) / max(_open(neutral, rims), SHUT))
    upper, lower = MOUTH
    crossed = np.maximum(out[lower, 1] - out[upper, 1], 0) / 2
    out[upper, 1] += crossed
    out[lower, 1] -= crossed
    return out


def _open(shape: Float[np.ndarray, "478 3"], eye: Int[np.ndarray, "2 P"]) -> float:
    return max(gap(shape, eye) / width(shape, eye) - SHUT, 0.0)


def _move_lid(out: np.ndarray, source: np.ndarray, eye: np.ndarray, share: float) -> None:
    """Puts the upper lid at `share` of its height over the lower one, and the skin above with it."""
    upper, lower = eye
    lid = out[lower] + min(share, WIDEST) * (source[upper] - source[lower])
    to_lid = _distances(source, upper)
    follows = np.exp(-((to_lid.min(1) / LID) ** 2)) * (to_lid.min(1) < _distances(source, lower[1:-1]).min(1))
    out += follows[:, None] * (lid - out[upper])[to_lid.argmin(1)]
    out[upper] = lid


def _eased(x: Float[np.ndarray, " P"]) -> Float[np.ndarray, " P"]:
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def _distances(shape: Float[np.ndarray, "478 3"], others: Int[np.ndarray, " Q"]) -> Float[np.ndarray, "478 Q"]:
    return np.linalg.norm(shape[:, None] - shape[others], axis=-1)


@functools.cache
def triangles() -> Int[np.ndarray, "T 3"]:
    """MediaPipe's mesh with holes for eyes and mouth; and from its outline to a ring, whose points are numbered from 478."""
    from mediapipe.tasks.python.vision import FaceLandmarksConnections

    starts = np.array([edge.start for edge in FaceLandmarksConnections.FACE_LANDMARKS_TESSELATION])
    inner, outer = np.r_[OVAL, OVAL[0]], 478 + np.r_[: len(OVAL), 0]
    between = np.r_[inner, outer][strip(len(inner))]
    return np.concatenate([starts.reshape(-1, 3), between])


def ring(pixels: Float[np.ndarray, "478 3"]) -> Float[np.ndarray, "R 2"]:
    """The points around a face that stay where they are."""
    outline = pixels[OVAL, :2]
    return outline.mean(0) + RING * (outline - outline.mean(0))


def strip(count: int) -> Int[np.ndarray, "T 3"]:
    """Triangles between two lines of `count` points, which are numbered one line after the other."""
    k = np.arange(count - 1)
    return np.concatenate([np.c_[k, k + 1, count + k], np.c_[k + 1, count + k + 1, count + k]])


def uncovered(
    before: Float[np.ndarray, "478 3"], now: Float[np.ndarray, "478 3"], rims: Int[np.ndarray, "2 P"]
) -> Float[np.ndarray, "2 P 2"]:
    """Where the photo shows what lies at the rims of an opening (pixels): eyes and teeth stand still while a rim closes over
    them, and are stretched to one that opens further than in the photo."""
    along = before[rims[0, -1], :2] - before[rims[0, 0], :2]
    down = np.array([-along[1], along[0]]) / np.linalg.norm(along)
    step = (now[rims, :2] - before[rims, :2]) @ down
    closing = np.stack([np.maximum(step[0], 0), np.minimum(step[1], 0)])
    return before[rims, :2] + closing[..., None] * down


@dataclass(frozen=True)
class Canvas:
    """A window of a picture, drawn with `fine` samples a pixel each way. left, top: where it begins, pixels."""

    left: int
    top: int
    width: int
    height: int
    fine: int

    @staticmethod
    def around(points: Float[np.ndarray, "P 2"], width: int, height: int) -> Canvas:
        """The smallest that shows these points of a picture of that size, as far as it does."""
        low = np.clip(np.floor(points.min(0)), 0, [width - 1, height - 1])
        high = np.clip(np.ceil(points.max(0)), low + 1, [width, height])
        w, h = (int(n) for n in high - low)
        return Canvas(int(low[0]), int(low[1]), w, h, 2 if max(w, h) <= PRECISE else 1)

    @property
    def window(self) -> tuple[slice, slice]:
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)

    def places(self) -> Float[np.ndarray, "h w 2"]:
        """Where each sample lies in the picture."""
        across, down = (np.arange(self.fine * n, dtype=np.float32) + 0.5 for n in (self.width, self.height))
        return np.stack(np.meshgrid(across / self.fine + self.left, down / self.fine + self.top), -1)

    def draw(
        self,
        out: Float[np.ndarray, "h w 2"],
        points: Float[np.ndarray, "P 2"],
        values: Float[np.ndarray, "P 2"],
        faces: Int[np.ndarray, "T 3"],
    ) -> None:
        """Fills triangles between points of the picture with values that are linear in each; later ones cover earlier ones."""
        _draw(self.fine * (points - [self.left, self.top]), values, faces, out)

    def pixels(self, samples: Float[np.ndarray, "h w C"]) -> Float[np.ndarray, "H W C"]:
        return samples.reshape(self.height, self.fine, self.width, self.fine, -1).mean((1, 3))


@numba.njit(cache=True)
def _draw(points, values, faces, out):
    height, width = out.shape[:2]
    for a, b, c in faces:
        xa, ya = points[a]
        xb, yb = points[b]
        xc, yc = points[c]
        area = (xb - xa) * (yc - ya) - (xc - xa) * (yb - ya)
        if abs(area) < 1e-9:
            continue
        left, right = max(int(min(xa, xb, xc) - 0.5), 0), min(int(max(xa, xb, xc) + 0.5), width - 1)
        top, bottom = max(int(min(ya, yb, yc) - 0.5), 0), min(int(max(ya, yb, yc) + 0.5), height - 1)
        for row in range(top, bottom + 1):
            for column in range(left, right + 1):
                x, y = column + 0.5, row + 0.5
                u = ((xb - x) * (yc - y) - (xc - x) * (yb - y)) / area
                v = ((xc - x) * (ya - y) - (xa - x) * (yc - y)) / area
                w = 1 - u - v
                if min(u, v, w) >= -1e-6:
                    for k in range(2):
                        out[row, column, k] = u * values[a, k] + v * values[b, k] + w * values[c, k]
