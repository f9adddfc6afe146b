"""Joint rotations and linear blend skinning in numpy, and vertex normals: what both head worlds do with a mesh."""

from __future__ import annotations

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
    T = (weights @ A[:, :3].reshape(5, 12)).reshape(-1, 3, 4)
    return (T[..., :3] * rest[:, None]).sum(-1) + T[..., 3]


def vertex_normals(vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"]) -> Float[np.ndarray, "V 3"]:
    """Unit normals, weighted by triangle area."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    area = np.cross(b - a, c - a)
    out = np.stack([sum(np.bincount(faces[:, k], area[:, i], len(vertices)) for k in range(3)) for i in range(3)], -1)
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)
