"""Joint rotations and linear blend skinning in numpy, and vertex normals: what both head worlds do with a mesh."""

from __future__ import annotations

import math

import numba
import numpy as np
from jaxtyping import Float, Int

from i4d_bench.heads.expressions import INDEX

JAW_OPEN, JAW_SIDE, GAZE_UP, GAZE_SIDE = 0.36, 0.12, 0.42, 0.5
"""Radians at coefficient 1."""


def pose(e: Float[np.ndarray, "52"], jaw: bool = True) -> Float[np.ndarray, "15"]:
    """Axis-angle of root, neck, jaw, left eye, right eye: linear in the coefficients. `jaw` off: a world that opens the
    mouth by blendshape alone."""
    at = lambda name: e[INDEX[name]]  # noqa: E731
    out = np.zeros(15)
    if jaw:
        out[6], out[7] = JAW_OPEN * at("jawOpen"), JAW_SIDE * (at("jawLeft") - at("jawRight"))
    for start, side, outward in ((9, "Left", 1), (12, "Right", -1)):
        out[start] = GAZE_UP * (at(f"eyeLookDown{side}") - at(f"eyeLookUp{side}"))
        out[start + 1] = GAZE_SIDE * outward * (at(f"eyeLookOut{side}") - at(f"eyeLookIn{side}"))
    return out


def rodrigues(v: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3 3"]:
    angle = np.linalg.norm(v)
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = v / angle
    K = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * K + (1 - np.cos(angle)) * K @ K


def skin(
    rest: Float[np.ndarray, "V 3"],
    joints: Float[np.ndarray, "5 3"],
    pose: Float[np.ndarray, "15"],
    weights: Float[np.ndarray, "V 5"],
) -> Float[np.ndarray, "V 3"]:
    """Linear blend skinning (PAPER §5). The tree is FLAME's: root → neck → jaw, left eye, right eye."""
    A = np.zeros((5, 4, 4))
    for j, parent in enumerate((-1, 0, 1, 1, 1)):
        local = np.eye(4)
        local[:3, :3] = rodrigues(pose[3 * j : 3 * j + 3])
        local[:3, 3] = joints[j] - local[:3, :3] @ joints[j]
        A[j] = local if parent < 0 else A[parent] @ local
    out = np.array(rest, float)  # weights sum to 1, so Σ w_j A_j x = x + Σ w_j (A_j x − x), and resting joints drop out
    for j in range(5):
        change = A[j, :3] - np.eye(4)[:3]
        if change.any():
            on = np.flatnonzero(weights[:, j])
            out[on] += weights[on, j, None] * (rest[on] @ change[:, :3].T + change[:, 3])
    return out


def vertex_normals(vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"]) -> Float[np.ndarray, "V 3"]:
    """Unit normals, weighted by triangle area."""
    return _vertex_normals(np.ascontiguousarray(vertices, np.float64), np.ascontiguousarray(faces))


@numba.njit(cache=True)
def _vertex_normals(vertices, faces):
    out = np.zeros_like(vertices)
    for t in range(len(faces)):
        i, j, k = faces[t]
        ax, ay, az = vertices[j, 0] - vertices[i, 0], vertices[j, 1] - vertices[i, 1], vertices[j, 2] - vertices[i, 2]
        bx, by, bz = vertices[k, 0] - vertices[i, 0], vertices[k, 1] - vertices[i, 1], vertices[k, 2] - vertices[i, 2]
        x, y, z = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
        for v in (i, j, k):
            out[v, 0] += x
            out[v, 1] += y
            out[v, 2] += z
    for v in range(len(out)):
        length = max(math.sqrt(out[v, 0] ** 2 + out[v, 1] ** 2 + out[v, 2] ** 2), 1e-12)
        for c in range(3):
            out[v, c] /= length
    return out
