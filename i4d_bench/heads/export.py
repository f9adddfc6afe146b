"""Head worlds as FLAME-format models: the same designs then run on them and on a real FLAME file.

A world is sampled in its own *linear* part; its people give the shape components and its 52 expressions the expression
components, both by PCA. What the world does beyond that, a FLAME-format model loses, as the real one does.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from i4d_bench.cache import atomic_file
from i4d_bench.heads.base import HeadIdentity, HeadWorld
from i4d_bench.heads.expressions import NAMES
from i4d_bench.heads.flame import JOINTS, FlameModel
from i4d_bench.heads.posing import skin
from i4d_bench.types import FlameCode

STILL = 3.0
"""How much more a joint's motion with an expression weighs than its distance from a person's own."""


def _unposed(world: HeadWorld, identity: HeadIdentity, expression: np.ndarray) -> np.ndarray:
    """The linear mesh with its joints turned back."""
    posed = world.vertices(identity, expression, linear=True)
    pose = world.pose(expression)
    if not pose.any():
        return posed
    basis = np.stack([skin(e, world.joints(identity), pose, world.skin_weights) for e in _probes(len(posed))])
    linear, offset = (basis[1:] - basis[0]).transpose(1, 2, 0), basis[0]
    return np.linalg.solve(linear, (posed - offset)[..., None])[..., 0]


def _probes(count: int) -> np.ndarray:
    """Origin and unit vectors for every vertex: what skinning does to them is its affine map."""
    return np.concatenate([np.zeros((1, count, 3)), np.repeat(np.eye(3)[:, None], count, 1)])


def export_flame(world: HeadWorld, path: Path, n_shape: int = 40, n_expression: int = 40, samples: int = 150) -> None:
    """Writes the world as a FLAME-format .npz: FLAME's keys, and `arkit_expression` [52,E] and `arkit_pose` [52,15], which
    map ARKit coefficients to the model's. Coefficients of people have unit variance. Raises UserError if it cannot write.
    """
    people = [world.identity(10**6 + k) for k in range(samples)]  # nobody's seed in a data set
    still = np.zeros(len(NAMES), np.float32)
    neutral = np.stack([world.vertices(p, still, linear=True) for p in people]).astype(np.float32)
    template = neutral.mean(0)
    shapes, scores = _pca(neutral - template, n_shape)
    scale = scores.std(0)
    moved = np.stack([_unposed(world, people[0], e) - neutral[0] for e in np.eye(len(NAMES), dtype=np.float32)])
    expressions, mapping = _pca(moved, n_expression)
    unit = np.abs(mapping).max(0)
    joints = np.stack([world.joints(p) for p in people])
    arrays = {
        "v_template": template,
        "shapedirs": np.concatenate([shapes * scale[:, None, None], expressions * unit[:, None, None]]).transpose(
            1, 2, 0
        ),
        "posedirs": np.zeros((*template.shape, 9 * (JOINTS - 1)), np.float32),
        "J_regressor": _regress(neutral, joints, moved),
        "weights": world.skin_weights,
        "kintree_table": np.array([[-1, 0, 1, 1, 1], range(JOINTS)]),
        "f": world.faces,
        "n_shape": len(shapes),
        "arkit_expression": mapping / unit,
        "arkit_pose": np.stack([world.pose(e) for e in np.eye(len(NAMES))]),
    }
    with atomic_file(path) as partial:
        stored = {k: np.asarray(v, np.float32) if np.asarray(v).dtype == float else v for k, v in arrays.items()}
        np.savez(partial, **stored)  # pyright: ignore[reportArgumentType]  (no array is called allow_pickle)


def _pca(rows: np.ndarray, keep: int) -> tuple[np.ndarray, np.ndarray]:
    """Directions [K,V,3] (orthonormal) and scores [N,K] of rows [N,V,3] that are centred already."""
    flat = rows.reshape(len(rows), -1).astype(np.float64)
    values, vectors = np.linalg.eigh(flat @ flat.T)
    order = np.argsort(values)[::-1][:keep]
    order = order[values[order] > 1e-10 * values[order[0]]]
    directions = vectors[:, order].T @ flat / np.sqrt(values[order])[:, None]
    return directions.reshape(-1, *rows.shape[1:]), vectors[:, order] * np.sqrt(values[order])


def _regress(
    neutral: np.ndarray, joints: np.ndarray, moved: np.ndarray, region: int = 4000, count: int = 256
) -> np.ndarray:
    """[5,V]: each joint as an affine combination of vertices around it, fitted over people (rows sum to 1).

    A FLAME-format model's joints follow its expressions, a world's do not, so that the expressions' motion of the vertices,
    `moved`, is made to cancel. The vertices are spread over the nearest `region`: joints lie deep in the head, and the very
    nearest, all on one side, would have to extrapolate.
    """
    out = np.zeros((JOINTS, neutral.shape[1]))
    mean = neutral.mean(0)
    for j in range(JOINTS):
        order = np.argsort(((mean - joints[:, j].mean(0)) ** 2).sum(1))[:region]
        near = order[np.unique(np.linspace(0, len(order) - 1, count).astype(int))]
        people, expressions = (x[:, near].transpose(0, 2, 1).reshape(-1, len(near)) for x in (neutral, moved))
        weight = 1e3  # of the row that makes the combination affine
        A = np.concatenate([people, STILL * expressions, np.full((1, len(near)), weight)]).astype(float)
        b = np.concatenate([joints[:, j].reshape(-1), np.zeros(len(expressions)), [weight]])
        ridge = 1e-3 * np.eye(len(near))
        out[j, near] = np.linalg.solve(A.T @ A + ridge, A.T @ b)
        out[j, near] /= out[j, near].sum()
    return out


class Coder:
    """Coefficients of a world's people in its exported model: shape by least squares on the true resting mesh, expression
    and pose from the true ARKit coefficients."""

    def __init__(self, world: HeadWorld, model: FlameModel):
        self.world, self.model = world, model
        dirs = model.shapedirs.double().flatten(0, 1)
        self.solve = torch.linalg.solve(dirs.T @ dirs, dirs.T)

    def __call__(self, identity: HeadIdentity, expressions: Float[np.ndarray, "E 52"]) -> FlameCode:
        """One row per expression."""
        neutral = self.world.vertices(identity, np.zeros(len(NAMES), np.float32), linear=True)
        shape = (self.solve @ (torch.as_tensor(neutral).double() - self.model.v_template).flatten()).float()
        e = torch.as_tensor(expressions, dtype=torch.float32)
        return FlameCode(shape.expand(len(e), -1), *self.model.arkit(e))
