"""From face landmarks to square crops and cameras: a person's rigid head, fitted once per video.

The 478 landmarks are aligned over all frames (generalised Procrustes) to canonical space (i4d_bench.types); the median
shape is then refined together with one perspective camera per frame so that it projects onto the landmarks of the
frames' crops (bundle adjustment; only landmarks that expressions hardly move count). Every crop gets the same field of
view, that of the canonical camera, whatever lens filmed it: the shape absorbs the difference.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial.transform import Rotation

from i4d_bench.data.video.landmarker import to68

FOV = 18.837
"""Vertical field of view of the canonical camera, degrees."""
RADIUS = 2.7
"""Distance of the canonical camera from the origin."""
HALF = RADIUS * np.tan(np.radians(FOV / 2))
"""Half the side of what the canonical camera sees in the plane z = 0."""
RISE = 0.03
"""How far above the canonical origin crops are centred (canonical units): real hair stands higher than a mesh's cap."""
GAP = 0.25
"""Seconds without a frame after which a new scene begins."""

# fmt: off
RIGID = np.array([
    168, 6, 197, 195, 5, 4,  # ridge of the nose
    122, 351, 193, 417, 196, 419, 3, 248, 236, 456, 174, 399, 198, 420,  # its flanks
    33, 133, 362, 263, 130, 359, 243, 463,  # corners of the eyes
    10, 109, 338, 67, 297, 103, 332, 54, 284, 21, 251, 162, 389,  # hairline and temples
    127, 356, 234, 454, 34, 264, 227, 447, 143, 372, 116, 345, 111, 340,  # beside the eyes, before the ears
])
"""Landmarks that expressions hardly move."""

ANCHORS = {  # iBUG number → canonical position; the average head of ICT-FaceKit at 1 unit = 38 cm
    27: (0, .143, .229), 28: (0, .114, .249), 29: (0, .088, .270), 30: (0, .057, .289),
    31: (-.032, .017, .233), 33: (0, .015, .250), 35: (.032, .017, .233),
    36: (-.115, .135, .174), 39: (-.048, .130, .189), 42: (.048, .130, .189), 45: (.115, .135, .174),
    48: (-.065, -.045, .215), 51: (0, -.018, .257), 54: (.065, -.045, .215),
}
# fmt: on
"""Where canonical space is in a face: what fixes its origin, its axes and its unit."""

FLIP = np.diag([1.0, -1.0, -1.0])
"""Between OpenCV axes (y down, z forward) and canonical ones (y up, z out)."""


@dataclass(frozen=True)
class HeadFit:
    """A person in canonical space and a camera per frame.

    error: median distance in pixels between the rigid landmarks of a frame and their projection.
    """

    shape: Float[np.ndarray, "478 3"]
    viewmats: Float[np.ndarray, "F 4 4"]
    K: Float[np.ndarray, "3 3"]
    error: Float[np.ndarray, " F"]


def intrinsics(size: int) -> Float[np.ndarray, "3 3"]:
    """Of the canonical camera on a size × size grid."""
    focal = size / 2 / np.tan(np.radians(FOV / 2))
    return np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])


def project(
    points: Float[np.ndarray, "*#F P 3"], viewmats: Float[np.ndarray, "*#F 4 4"], K: Float[np.ndarray, "3 3"]
) -> Float[np.ndarray, "*#F P 2"]:
    """Canonical points to pixels, each by its own camera or all by one."""
    p = points @ viewmats[..., :3, :3].swapaxes(-1, -2) + viewmats[..., None, :3, 3]
    return p[..., :2] / p[..., 2:] * np.diagonal(K)[:2] + K[:2, 2]


@dataclass(frozen=True)
class Similarity:
    """y = scale · rotation · x + shift, for a batch of frames, in D = 2 or 3 dimensions."""

    scale: Float[np.ndarray, " F"]
    rotation: Float[np.ndarray, "F D D"]
    shift: Float[np.ndarray, "F D"]

    def inverse(self, y: Float[np.ndarray, "F P D"]) -> Float[np.ndarray, "F P D"]:
        return (y - self.shift[:, None]) @ self.rotation / self.scale[:, None, None]


def similarity(source: Float[np.ndarray, "P D"], target: Float[np.ndarray, "F P D"]) -> Similarity:
    """The least-squares similarity from one point set to each of F others (Umeyama 1991)."""
    x, y = source - source.mean(0), target - target.mean(1, keepdims=True)
    u, s, vt = np.linalg.svd(np.einsum("fpi,pj->fij", y, x))
    sign = np.ones(s.shape)
    sign[:, -1] = np.sign(np.linalg.det(u @ vt))
    rotation = (u * sign[:, None]) @ vt
    scale = (s * sign).sum(1) / (x**2).sum()
    return Similarity(scale, rotation, target.mean(1) - scale[:, None] * (rotation @ source.mean(0)))


def align(landmarks: Float[np.ndarray, "F 478 3"], rounds: int = 3) -> tuple[Float[np.ndarray, "478 3"], Similarity]:
    """Canonical median shape of the landmarks (pixels, z too), and its similarity to every frame (y up, z out)."""
    upright = landmarks.astype(float) @ FLIP
    numbers, anchors = list(ANCHORS), np.array(list(ANCHORS.values()), float)
    fit = similarity(anchors, to68(upright)[:, numbers])
    shape = np.median(fit.inverse(upright), 0)
    for _ in range(rounds):
        shape = to_canonical(shape)[0]
        fit = similarity(shape[RIGID], upright[:, RIGID])
        shape = np.median(fit.inverse(upright), 0)
    shape, _ = to_canonical(shape)
    return shape, similarity(shape[RIGID], upright[:, RIGID])


def to_canonical(shape: Float[np.ndarray, "478 3"]) -> tuple[Float[np.ndarray, "478 3"], Similarity]:
    """Moves a shape so that its anchors lie where canonical space wants them; also the similarity used (F = 1)."""
    numbers, anchors = list(ANCHORS), np.array(list(ANCHORS.values()), float)
    fit = similarity(anchors, to68(shape)[None, numbers])
    return fit.inverse(shape[None])[0], fit


def crops(landmarks: Float[np.ndarray, "F 478 3"]) -> Float[np.ndarray, "F 3"]:
    """Square crops (centre x, centre y, side; pixels of the frame) that show what the canonical camera sees.

    They are centred RISE above the canonical origin, and not smooth yet.
    """
    shape, fit = align(landmarks)
    # In scaled-orthographic terms the scale holds at the depth of the rigid landmarks, nearer than the origin.
    unit = fit.scale * (RADIUS - shape[RIGID, 2].mean()) / RADIUS
    centre = fit.shift[:, :2] * [1, -1] - np.stack([0 * unit, RISE * unit], 1)
    return np.c_[centre, 2 * HALF * unit]


def scenes(boxes: Float[np.ndarray, "F 3"], times: Float[np.ndarray, " F"]) -> Int[np.ndarray, " F"]:
    """Numbers the stretches between jumps of the head (cuts) or gaps in time, over which nothing may be smoothed."""
    side = boxes[1:, 2:]
    jump = (np.abs(np.diff(boxes[:, :2], axis=0)) > 0.25 * side).any(1) | (np.abs(np.diff(np.log(boxes[:, 2]))) > 0.25)
    return np.r_[0, np.cumsum(jump | (np.diff(times) > GAP))]


def smooth(
    values: Float[np.ndarray, "F D"],
    times: Float[np.ndarray, " F"],
    scene: Int[np.ndarray, " F"],
    seconds: float,
) -> Float[np.ndarray, "F D"]:
    """Local line fit over time with a Gaussian window (standard deviation `seconds`), scene by scene.

    times: seconds, ascending; frames may be missing. A line, not a mean: a mean lags behind at the ends of a scene.
    """
    out = np.empty_like(values)
    for k, t in enumerate(times):
        lo, hi = np.searchsorted(times, [t - 3 * seconds, t + 3 * seconds + 1e-9])
        apart = (times[lo:hi] - t) / seconds
        weight = np.exp(-0.5 * apart**2) * (scene[lo:hi] == scene[k])
        design = np.stack([np.ones(hi - lo), apart], 1)
        normal = design.T @ (weight[:, None] * design) + np.diag([0, 1e-6])  # a lone frame has no slope
        out[k] = np.linalg.solve(normal, design.T @ (weight[:, None] * values[lo:hi]))[0]
    return out


def fit_head(pixels: Float[np.ndarray, "F 478 3"], size: int, rounds: int = 12) -> HeadFit:
    """Shape and cameras from the landmarks in crop pixels."""
    K = intrinsics(size)
    shape, fit = align(pixels)
    prior = shape.copy()
    viewmats = np.tile(np.eye(4), (len(pixels), 1, 1))
    viewmats[:, :3, :3] = FLIP @ fit.rotation
    mean = shape[RIGID].mean(0)
    z = K[0, 0] / fit.scale
    xy = (pixels[:, RIGID, :2].mean(1) - K[:2, 2]) / K[0, 0] * z[:, None]
    viewmats[:, :3, 3] = np.c_[xy, z] - viewmats[:, :3, :3] @ mean
    noise = size / 128  # pixels that a landmark is taken to be off, mostly the same way in all frames
    target = pixels[..., :2].astype(float)
    for _ in range(rounds):
        viewmats = _refine_cameras(shape[RIGID], target[:, RIGID], viewmats, K, noise)
        shape = _refine_shape(shape, prior, target, viewmats, K, noise)
    viewmats = _refine_cameras(shape[RIGID], target[:, RIGID], viewmats, K, noise, steps=10)
    shape, gauge = to_canonical(shape)
    r, s, t = gauge.rotation[0], gauge.scale[0], gauge.shift[0]
    # old = s·r·new + t, and a camera's picture does not change when its space is scaled.
    viewmats[:, :3, 3] = (viewmats[:, :3, 3] + viewmats[:, :3, :3] @ t) / s
    viewmats[:, :3, :3] = viewmats[:, :3, :3] @ r
    return HeadFit(shape, viewmats, K, errors(shape, target, viewmats, K))


def errors(
    shape: Float[np.ndarray, "478 3"],
    pixels: Float[np.ndarray, "F 478 D"],
    viewmats: Float[np.ndarray, "F 4 4"],
    K: Float[np.ndarray, "3 3"],
) -> Float[np.ndarray, " F"]:
    """Median distance in pixels of the rigid landmarks, per frame."""
    return np.median(np.linalg.norm(project(shape[RIGID], viewmats, K) - pixels[:, RIGID, :2], axis=-1), 1)


def steady(
    viewmats: Float[np.ndarray, "F 4 4"],
    times: Float[np.ndarray, " F"],
    scene: Int[np.ndarray, " F"],
    seconds: float,
) -> Float[np.ndarray, "F 4 4"]:
    """Cameras smoothed over time (see `smooth`): takes out the detector's jitter."""
    flat = smooth(viewmats[:, :3].reshape(len(viewmats), 12), times, scene, seconds).reshape(-1, 3, 4)
    out = viewmats.copy()
    u, _, vt = np.linalg.svd(flat[:, :, :3])
    out[:, :3, :3], out[:, :3, 3] = u @ vt, flat[:, :, 3]
    return out


def _residual(shape, target, viewmats, K, noise):
    """Residuals [F,P,2], their derivative by the camera-space point [F,P,2,3], Huber weights [F,P], camera points."""
    p = shape @ viewmats[:, :3, :3].swapaxes(1, 2) + viewmats[:, None, :3, 3]
    f, z = K[0, 0], p[..., 2]
    r = p[..., :2] / z[..., None] * f + K[:2, 2] - target
    J = np.zeros((*z.shape, 2, 3))
    J[..., 0, 0] = J[..., 1, 1] = f / z
    J[..., :, 2] = -f * p[..., :2] / z[..., None] ** 2
    distance = np.linalg.norm(r, axis=-1)
    return r, J, np.minimum(1, 2 * noise / np.maximum(distance, 1e-9)), p


def _refine_cameras(shape, target, viewmats, K, noise, steps: int = 2):
    """Gauss-Newton on every frame's pose (perspective-n-point)."""
    for _ in range(steps):
        r, J, w, p = _residual(shape, target, viewmats, K, noise)
        rotated = p - viewmats[:, None, :3, 3]
        x, y, z = np.moveaxis(rotated, -1, 0)
        o = np.zeros_like(x)
        cross = np.stack([np.stack(c, -1) for c in ((o, z, -y), (-z, o, x), (y, -x, o))], -2)  # ∂(ω × p)/∂ω
        A = np.concatenate([J @ cross, J], -1)
        normal = np.einsum("fpai,fp,fpaj->fij", A, w, A) + 1e-9 * np.eye(6)
        step = -np.linalg.solve(normal, np.einsum("fpai,fp,fpa->fi", A, w, r)[..., None])[..., 0]
        viewmats = viewmats.copy()
        viewmats[:, :3, :3] = Rotation.from_rotvec(step[:, :3]).as_matrix() @ viewmats[:, :3, :3]
        viewmats[:, :3, 3] += step[:, 3:]
    return viewmats


def _refine_shape(shape, prior, target, viewmats, K, noise, looseness: float = 0.005):
    """One Gauss-Newton step on every landmark's place, held to `prior` with standard deviation `looseness` (units)."""
    r, J, w, _ = _residual(shape, target, viewmats, K, noise)
    A = J @ viewmats[:, None, :3, :3]
    # Frames of a video repeat each other: together they weigh like a few dozen independent ones.
    weight = w * min(1.0, 30 / len(target)) / noise**2
    hold = 1 / looseness**2
    normal = np.einsum("fpai,fp,fpaj->pij", A, weight, A) + hold * np.eye(3)
    rhs = -np.einsum("fpai,fp,fpa->pi", A, weight, r) + hold * (prior - shape)
    return shape + np.linalg.solve(normal, rhs[..., None])[..., 0]
