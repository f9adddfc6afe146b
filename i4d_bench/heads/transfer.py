"""The 52 ARKit expressions on a FLAME file that knows nothing of them, transferred by shape from a head that does.

The head with the map is brought onto the file's template (affine, by closest points), its 52 displacement fields are
read at the template's vertices, and each is fitted in the file's own expression components. Jaw and eyes turn by the same
angles in both.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import cKDTree

from i4d_bench.heads.flame import FlameModel

FACE = 0.05
"""Vertices further in front (canonical z) belong to the face; the scalp and neck say nothing of expression."""
REACH = 0.03
"""Canonical units between corresponding points; what is further apart (eyeballs, inner mouth) is left out."""


@torch.no_grad()
def transfer_expressions(model: FlameModel, known: FlameModel, ridge: float = 1e-3, steps: int = 30) -> float:
    """Gives `model` the maps `arkit_expression` [52,E] and `arkit_pose` [52,15] of `known`, in its own components.

    Returns the share of the displacements (mean square over the face) that the components express, 0..1.
    """
    still = lambda m: (torch.zeros(1, m.n_shape), torch.zeros(1, m.n_expression), torch.zeros(1, 15))  # noqa: E731
    template, source = model(*still(model))[0].double().numpy(), known(*still(known))[0].double().numpy()
    face = np.flatnonzero(template[:, 2] > FACE)
    moved = source
    for _ in range(steps):
        distance, nearest = cKDTree(moved).query(template[face])
        kept = distance < max(REACH, np.median(distance))
        homogeneous = np.c_[source[nearest[kept]], np.ones(kept.sum())]
        affine = np.linalg.lstsq(homogeneous, template[face][kept], rcond=None)[0]
        moved = np.c_[source, np.ones(len(source))] @ affine
    distance, nearest = cKDTree(moved).query(template[face], k=3)
    face, distance, nearest = (a[distance[:, 0] < REACH] for a in (face, distance, nearest))
    weight = 1 / (distance + 1e-4)
    weight /= weight.sum(1, keepdims=True)

    pose = known.arkit_pose
    zero_shape = torch.zeros(len(pose), 1)
    fields = known(zero_shape, known.arkit_expression, pose).double().numpy() - source
    fields = np.einsum("nk,enkc->enc", weight, (fields @ affine[:3])[:, nearest])  # [52,N,3] at the face's vertices
    jaw_and_eyes = model(zero_shape, torch.zeros(len(pose), 1), pose).double().numpy()[:, face] - template[face]
    basis = model.expressiondirs[face].double().numpy().reshape(-1, model.n_expression)
    wanted = (fields - jaw_and_eyes).reshape(len(pose), -1)
    normal = basis.T @ basis
    normal += ridge * np.trace(normal) / len(normal) * np.eye(len(normal))
    coefficients = np.linalg.solve(normal, basis.T @ wanted.T).T
    model.arkit_expression = torch.as_tensor(coefficients, dtype=torch.float32)
    model.arkit_pose = pose.clone()
    left = wanted - coefficients @ basis.T
    return float(1 - (left**2).sum() / (fields**2).sum())
