"""The canonical camera, once: the worlds' orbit and the frontal view that planes, photos and Gaussians share."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

RADIUS, FOV = 2.7, 18.837
"""The paper's camera: distance in canonical units, vertical field of view in degrees (PAPER §1)."""


def unit(v) -> np.ndarray:
    """v over its length."""
    v = np.asarray(v, float)
    return v / np.linalg.norm(v)


def look_at(
    yaw: float, pitch: float, size: int, radius: float = RADIUS, fov: float = FOV
) -> tuple[Float[np.ndarray, "4 4"], Float[np.ndarray, "3 3"]]:
    """World → camera and K of a camera that orbits the origin. Degrees; positive yaw sees the subject's left side."""
    y, p = math.radians(yaw), math.radians(pitch)
    eye = radius * np.array([math.sin(y) * math.cos(p), math.sin(p), math.cos(y) * math.cos(p)])
    forward = -eye / radius
    right = unit(np.cross(forward, [0.0, 1.0, 0.0]))
    view = np.eye(4)
    view[:3, :3] = np.stack([right, np.cross(forward, right), forward])
    view[:3, 3] = -view[:3, :3] @ eye
    focal = 0.5 * size / math.tan(math.radians(fov) / 2)
    return view, np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])


def project(
    points: Float[np.ndarray, "V 3"], viewmat: Float[np.ndarray, "4 4"], K: Float[np.ndarray, "3 3"]
) -> Float[np.ndarray, "V 2"]:
    """Pixels (x right, y down) of canonical points."""
    p = (points @ viewmat[:3, :3].T + viewmat[:3, 3]) @ K.T
    return p[:, :2] / p[:, 2:]
