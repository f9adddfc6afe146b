"""The 52 ARKit expressions on a FLAME file that knows nothing of them, transferred by shape from a head that does.

The head with the map is brought onto the file's template (affine, by closest points), its 52 displacement fields are
read at the template's vertices, and each is fitted in the file's own expression components. Jaw and eyes turn by the same
angles in both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.spatial import KDTree

from i4d_bench.heads.expressions import NAMES
from i4d_bench.heads.flame import FlameModel
from i4d_bench.types import UserError

FACE = 0.05
"""Vertices further in front (canonical z) belong to the face; the scalp and neck say nothing of expression."""
REACH = 0.03
"""Canonical units between corresponding points; what is further apart (eyeballs, inner mouth) is left out."""
FEWEST = 30
"""Corresponding vertices, at least."""
LEAST = 0.3
"""Share of the expressions' motion below which components are no face's: ICT-FaceKit's expressions hold 69 % of the embedded
head's, its first five 60 %, identity shapes in their place 58 %, components of noise or turned axes below 5 %."""


@dataclass(frozen=True)
class Match:
    """Where a head's face finds itself on another head that was laid over it."""

    face: Int[np.ndarray, " N"]  # vertices of the one
    moved: Float[np.ndarray, "W 3"]  # all vertices of the other, laid over it
    affine: Float[np.ndarray, "4 3"]  # what moved them: [x, 1] @ affine
    nearest: Int[np.ndarray, "N 3"]  # the other's three nearest vertices to each of `face`
    weight: Float[np.ndarray, "N 3"]  # of these


def lay_over(template: Float[np.ndarray, "V 3"], source: Float[np.ndarray, "W 3"], steps: int = 30) -> Match:
    """Lays `source` over `template` by an affine map of closest points. Raises UserError when they have no face in common."""
    front = np.flatnonzero(template[:, 2] > FACE)
    if len(front) < FEWEST:
        raise UserError(
            f"{len(front)} of its {len(template)} vertices lie where the embedded head's face is: it is no face"
        )
    moved = source
    for _ in range(steps):
        distance, nearest = map(np.asarray, KDTree(moved).query(template[front]))
        kept = distance < max(REACH, np.median(distance))
        homogeneous = np.c_[source[nearest[kept]], np.ones(kept.sum())]
        affine = np.linalg.lstsq(homogeneous, template[front][kept], rcond=None)[0]
        moved = np.c_[source, np.ones(len(source))] @ affine
    distance, nearest = map(np.asarray, KDTree(moved).query(template[front], k=3))
    near = distance[:, 0] < REACH
    if near.sum() < FEWEST:
        raise UserError(f"{near.sum()} of its {len(template)} vertices meet the embedded head's face: it is no face")
    weight = 1 / (distance[near] + 1e-4)
    return Match(front[near], moved, affine, nearest[near], weight / weight.sum(1, keepdims=True))


@torch.no_grad()
def transfer_expressions(model: FlameModel, known: FlameModel, ridge: float = 1e-3) -> float:
    """Gives `model` the maps `arkit_expression` [52,E] and `arkit_pose` [52,15] of `known`, in its own components.

    Returns the share of the displacements (mean square over the face) that the components express, 0..1. Raises UserError
    when that is less than LEAST, or the heads have no face in common.
    """
    still = lambda m: (torch.zeros(1, m.n_shape), torch.zeros(1, m.n_expression), torch.zeros(1, 15))  # noqa: E731
    template, source = model(*still(model))[0].double().numpy(), known(*still(known))[0].double().numpy()
    match = lay_over(template, source)
    face, affine, nearest, weight = match.face, match.affine, match.nearest, match.weight

    expression, pose = known.arkit(torch.eye(len(NAMES)))
    zero_shape = torch.zeros(len(pose), 1)
    fields = known(zero_shape, expression, pose).double().numpy() - source
    fields = np.einsum("nk,enkc->enc", weight, (fields @ affine[:3])[:, nearest])  # [52,N,3] at the face's vertices
    jaw_and_eyes = model(zero_shape, torch.zeros(len(pose), 1), pose).double().numpy()[:, face] - template[face]
    basis = model.expressiondirs[face].double().numpy().reshape(-1, model.n_expression)
    wanted = (fields - jaw_and_eyes).reshape(len(pose), -1)
    normal = basis.T @ basis
    normal += ridge * np.trace(normal) / len(normal) * np.eye(len(normal))
    coefficients = np.linalg.solve(normal, basis.T @ wanted.T).T
    share = float(1 - ((wanted - coefficients @ basis.T) ** 2).sum() / (fields**2).sum())
    if share < LEAST:
        raise UserError(f"its components hold {share:.0%} of the motion of the 52 expressions (a face's hold more than "
                        f"{LEAST:.0%}): expression's may be other columns than those after {model.n_shape}")  # fmt: skip
    model.arkit_expression = torch.as_tensor(coefficients, dtype=torch.float32)
    model.arkit_pose = pose
    return share
