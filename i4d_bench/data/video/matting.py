"""The head's mask in video crops, without a learned matting network: graph cuts guided by the fitted head.

Colours of person and background are modelled once per video (GrabCut on a mosaic of its frames; Rother et al. 2004),
then every frame is cut with the models frozen, seeded by the fitted head's outline, so that the mask does not flicker.
Shoulders are cut off by a shape that moves with the head. Edges are soft (guided filter, He et al. 2010), and colours
at the edge are freed from the background (blur-fusion, Forte 2021).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy.ndimage import gaussian_filter

from i4d_bench.data.video.headfit import RIGID, project, similarity
from i4d_bench.data.video.landmarker import to68
from i4d_bench.extras import install
from i4d_bench.heads.base import REGIONS
from i4d_bench.types import UserError

try:
    import cv2
except ImportError as e:
    raise UserError(f"cutting heads out of video needs OpenCV, which comes with mediapipe: {install('video')}") from e

METHOD = "GrabCut seeded by the fitted head, shoulders cut off with the head's pose, guided filter"
GRID = 128
"""Side of the grid on which graphs are cut."""
NO_BOX = (0, 0, 0, 0)
"""GrabCut starts from masks here, never from a box."""
THIN = 5
"""What is narrower than this on the grid is no part of a head."""
SAME, OTHER = 8, 12
"""Differences of 0..255: up to which two pictures of a place agree, and how much worse another must do."""


def _sphere() -> Float[np.ndarray, "P 3"]:
    """Directions spread evenly over the unit sphere (Fibonacci lattice)."""
    k = np.arange(200) + 0.5
    y, angle = 1 - 2 * k / len(k), np.pi * (1 + 5**0.5) * k
    r = np.sqrt(1 - y**2)
    return np.stack([r * np.cos(angle), y, r * np.sin(angle)], 1)


def _ellipsoid(centre, radii) -> np.ndarray:
    return np.array(centre) + np.array(radii) * _sphere()


def _neck(radius: float, bottom: float) -> np.ndarray:
    """A rounded column from inside the head down to canonical height `bottom`."""
    return np.concatenate([_ellipsoid((0, 0, -0.03), (radius,) * 3),
                           _ellipsoid((0, bottom + 0.6 * radius, -0.05), (radius, 0.6 * radius, radius))])  # fmt: skip


# Canonical units. CORE is inside every head, bald or not; LIMIT is what is kept at most, hair and some neck, and ends
# above the shoulders. Outside WIDE and TORSO is certainly background; long hair must not be there.
CORE = (_ellipsoid((0, 0.13, -0.02), (0.15, 0.22, 0.20)), _neck(0.08, -0.24))
LIMIT = (_ellipsoid((0, 0.15, -0.05), (0.42, 0.37, 0.42)), _neck(0.16, -0.31))
WIDE = _ellipsoid((0, 0, -0.05), (0.42, 0.52, 0.42))
TORSO = _ellipsoid((0, -0.62, -0.08), (0.55, 0.38, 0.2))
"""Counts as person while cutting, so that clothes are not taken for background; removed with LIMIT afterwards."""


@dataclass(frozen=True)
class Mask:
    """Of one crop. rgb: premultiplied by alpha, background colours removed at the edge."""

    rgb: UInt8[np.ndarray, "S S 3"]
    alpha: UInt8[np.ndarray, "S S"]
    region: UInt8[np.ndarray, "S S"]


def outline(points: Float[np.ndarray, "P 3"], viewmat, K, shape: tuple[int, int]) -> UInt8[np.ndarray, "H W"]:
    """1 inside the silhouette of a convex body given by points on it."""
    return _fill(project(points, viewmat, K), shape)


def _fill(pixels: Float[np.ndarray, "P 2"], shape: tuple[int, int]) -> UInt8[np.ndarray, "H W"]:
    out = np.zeros(shape, np.uint8)
    # OpenCV's pixel centres are integers, ours half integers.
    hull = cv2.convexHull(np.round(16 * (pixels - 0.5)).astype(np.int32))
    cv2.fillConvexPoly(out, hull, 1, cv2.LINE_8, 4)
    return out


@dataclass(frozen=True)
class Shot:
    """What is known of one crop before it is cut. valid: 1 where the video shows something (crops may overhang it)."""

    rgb: UInt8[np.ndarray, "S S 3"]
    valid: UInt8[np.ndarray, "S S"]
    box: Float[np.ndarray, " 3"]  # the crop in the video: centre x, centre y, side
    landmarks: Float[np.ndarray, "478 2"]  # in crop pixels
    viewmat: Float[np.ndarray, "4 4"]
    K: Float[np.ndarray, "3 3"]  # of the crop


class MaskMaker:
    """Masks of one video, whose colours are learnt from `shots`, a handful of its frames."""

    def __init__(self, shots: list[Shot]):
        self.size = len(shots[0].rgb)
        self.models = np.zeros((1, 65)), np.zeros((1, 65))
        images, seeds = map(np.stack, zip(*map(self._prepare, shots), strict=True))
        seeds[(seeds == cv2.GC_PR_BGD) & _standing(shots, images)] = cv2.GC_BGD
        mosaic, seeds = images.reshape(-1, GRID, 3), seeds.reshape(-1, GRID)
        _sort_by_colour(mosaic, seeds)
        cv2.setRNGSeed(0)
        cv2.grabCut(mosaic, seeds, NO_BOX, *self.models, 4, cv2.GC_INIT_WITH_MASK)

    def _prepare(self, shot: Shot) -> tuple[UInt8[np.ndarray, "G G 3"], UInt8[np.ndarray, "G G"]]:
        """The small picture and GrabCut's four labels for it; PR_BGD stands for "no idea"."""
        shape = (GRID, GRID)
        image = cv2.resize(shot.rgb, shape, interpolation=cv2.INTER_AREA)
        small_K = shot.K * np.array([GRID / self.size, GRID / self.size, 1])[:, None]
        body = lambda points: outline(points, shot.viewmat, small_K, shape)  # noqa: E731
        core = np.maximum.reduce([*map(body, CORE), _fill(shot.landmarks * GRID / self.size, shape)])
        seeds = np.full(shape, cv2.GC_BGD, np.uint8)
        seeds[body(WIDE) > 0] = cv2.GC_PR_BGD
        seeds[body(TORSO) > 0] = cv2.GC_PR_FGD
        seeds[core > 0] = cv2.GC_FGD
        seeds[cv2.resize(shot.valid, shape, interpolation=cv2.INTER_NEAREST) == 0] = cv2.GC_PR_BGD
        return image, seeds

    def cut(self, shot: Shot) -> Float[np.ndarray, "G G"]:
        """1 where the person is, on the small grid. Thin things (cables, edges of furniture) are dropped."""
        image, seeds = self._prepare(shot)
        background, person = (m.copy() for m in self.models)
        cv2.grabCut(image, seeds, NO_BOX, background, person, 1, cv2.GC_EVAL_FREEZE_MODEL)
        person = ((seeds == cv2.GC_FGD) | (seeds == cv2.GC_PR_FGD)).astype(np.uint8)
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (THIN, THIN))
        return cv2.morphologyEx(person, cv2.MORPH_OPEN, disc).astype(np.float32)

    def finish(self, shot: Shot, person: Float[np.ndarray, "G G"]) -> Mask:
        """Soft, limited to head and neck, with region labels."""
        coarse = cv2.resize(person, (self.size, self.size), interpolation=cv2.INTER_LINEAR)
        alpha = _guided(shot.rgb.astype(np.float32) / 255, coarse, round(4 * self.size / 128), 1e-4)
        # Only the band of doubt around the cut is soft.
        alpha = np.clip((alpha - 0.15) / 0.7, 0, 1)
        return trimmed(shot.rgb, alpha, shot.valid, to68(shot.landmarks), shot.viewmat, shot.K)


def trimmed(
    rgb: UInt8[np.ndarray, "S S 3"],
    person: Float[np.ndarray, "S S"],
    valid: UInt8[np.ndarray, "S S"],
    landmarks: Float[np.ndarray, "68 2"],
    viewmat: Float[np.ndarray, "4 4"],
    K: Float[np.ndarray, "3 3"],
) -> Mask:
    """A person's mask 0..1, limited to head and neck, with region labels."""
    size = len(rgb)
    shape, unit = (size, size), size / 128
    limit = np.maximum.reduce([outline(body, viewmat, K, shape) for body in LIMIT]).astype(np.float32)
    alpha = person * cv2.GaussianBlur(limit, (0, 0), 1.5 * unit)
    edge = cv2.erode(valid, np.ones((3, 3), np.uint8), iterations=round(2 * unit), borderType=cv2.BORDER_REPLICATE)
    alpha = alpha * cv2.GaussianBlur(edge.astype(np.float32), (0, 0), 1.0 * unit) * valid
    alpha = _largest(alpha)
    front = _foreground(rgb.astype(np.float32) / 255, alpha, round(6 * unit))
    rgb8 = np.rint(front * alpha[..., None] * 255).astype(np.uint8)
    return Mask(rgb8, np.rint(alpha * 255).astype(np.uint8), regions(landmarks, viewmat, K, alpha))


def _standing(shots: list[Shot], images: UInt8[np.ndarray, "R G G 3"]) -> Bool[np.ndarray, "R G G"]:
    """Where the picture stands still in the video while the head moves: background, whatever its colour.

    Every shot is compared with the others laid over it frame on frame and head on head. A hair edge may look so in one
    shot, so most shots must agree on a place beside the head. A moving camera or a still head gives no evidence.
    """
    scale = GRID / len(shots[0].rgb)
    marks = [shot.landmarks[RIGID].astype(float) * scale for shot in shots]
    corners = [shot.box[:2] - shot.box[2] / 2 for shot in shots]

    def on_head(source: int, target: int) -> np.ndarray:
        fit = similarity(marks[target], marks[source][None])
        return np.c_[fit.scale[0] * fit.rotation[0], fit.shift[0]]

    def on_frame(source: int, target: int) -> np.ndarray:
        k = shots[target].box[2] / shots[source].box[2]
        shift = (corners[target] - corners[source]) * GRID / shots[source].box[2]
        return np.array([[k, 0, shift[0]], [0, k, shift[1]]])

    def laid(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        return cv2.warpAffine(image, matrix, (GRID, GRID), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)

    still = np.zeros(images.shape[:3], bool)
    for k, image in enumerate(images):
        others = [j for j in range(len(shots)) if j != k]
        apart = [
            np.median([cv2.GaussianBlur(cv2.absdiff(image, laid(images[j], place(j, k))).max(-1), (0, 0), 1.0)
                       for j in others] or [np.full((GRID, GRID), 255)], 0)
            for place in (on_frame, on_head)
        ]  # fmt: skip
        seen = cv2.resize(shots[k].valid, (GRID, GRID), interpolation=cv2.INTER_NEAREST) > 0
        still[k] = seen & (apart[0] < SAME) & (apart[1] > apart[0] + OTHER)
    votes = np.mean([laid(s.astype(np.float32), on_head(k, 0)) for k, s in enumerate(still)], 0)
    return still & np.stack([laid(votes, on_head(0, k)) > 0.5 for k in range(len(shots))])


def _sort_by_colour(image: np.ndarray, seeds: np.ndarray, bins: int = 16) -> None:
    """Gives pixels of no idea (PR_BGD) to whichever side's certain pixels look more like them, in place.

    GrabCut would learn the whole of them as background, long hair too.
    """
    cell = (image // (256 // bins)).astype(int)

    def density(label: int) -> np.ndarray:
        counts = np.zeros((bins,) * 3)
        np.add.at(counts, tuple(cell[seeds == label].T), 1)
        counts = gaussian_filter(counts, 0.7)
        return counts / max(counts.sum(), 1)

    person, background = density(cv2.GC_FGD), density(cv2.GC_BGD)
    looks = (person > background)[tuple(np.moveaxis(cell, -1, 0))]
    seeds[(seeds == cv2.GC_PR_BGD) & looks] = cv2.GC_PR_FGD


def regions(points: Float[np.ndarray, "68 2"], viewmat, K, alpha) -> UInt8[np.ndarray, "S S"]:
    """Labels of heads.base.REGIONS: hulls of eyes and mouth widened by 0.03 canonical units, inside the mask."""
    shape = alpha.shape
    reach = max(1, round(0.03 * K[0, 0] / viewmat[2, 3]))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    out = np.full(shape, REGIONS.index("head"), np.uint8)
    for name, parts in (("eyes", (slice(36, 42), slice(42, 48))), ("mouth", (slice(48, 68),))):
        for part in parts:
            out[cv2.dilate(_fill(points[part], shape), disc) > 0] = REGIONS.index(name)
    out[alpha <= 0.5] = REGIONS.index("background")
    return out


def _largest(alpha: np.ndarray) -> np.ndarray:
    """Drops islands: what is not connected to the largest piece."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats((alpha > 0.05).astype(np.uint8))
    if len(stats) < 2:
        return alpha
    return alpha * (labels == 1 + stats[1:, cv2.CC_STAT_AREA].argmax())


def _mean(image: np.ndarray, radius: int) -> np.ndarray:
    return cv2.blur(image, (2 * radius + 1,) * 2, borderType=cv2.BORDER_REFLECT)


def _guided(guide: Float[np.ndarray, "S S 3"], image: Float[np.ndarray, "S S"], radius: int, eps: float) -> np.ndarray:
    """Guided filter with a colour guide (He et al. 2010, eq. 19 and 20)."""
    mean_i, mean_p = _mean(guide, radius), _mean(image, radius)
    cov_ip = _mean(guide * image[..., None], radius) - mean_i * mean_p[..., None]
    outer = (guide[..., :, None] * guide[..., None, :]).reshape(*image.shape, 9)
    cov = np.dstack([_mean(outer[..., k], radius) for k in range(9)]).reshape(*image.shape, 3, 3)
    cov += eps * np.eye(3, dtype=np.float32) - mean_i[..., :, None] * mean_i[..., None, :]
    a = np.linalg.solve(cov, cov_ip[..., None])[..., 0]
    b = mean_p - (a * mean_i).sum(-1)
    return (_mean(a, radius) * guide).sum(-1) + _mean(b, radius)


def _foreground(image: np.ndarray, alpha: np.ndarray, radius: int) -> np.ndarray:
    """The head's own colour under a soft edge (Forte 2021, one pass)."""
    a = alpha[..., None]
    weight = _mean(alpha, radius)[..., None]
    front = _mean(image * a, radius) / (weight + 1e-5)
    back = _mean(image * (1 - a), radius) / (1 - weight + 1e-5)
    return np.clip(front + a * (image - a * front - (1 - a) * back), 0, 1)
