"""FLAME files made up: a head of 120 vertices that has everything FLAME's own files have, and how a stranger changes one."""

import numpy as np

V, S, E = 120, 300, 100
PARENTS = np.array([-1, 0, 1, 1, 1])
JOINTS = [[0, -0.15, -0.03], [0, -0.1, -0.03], [0, -0.02, -0.02], [0.033, 0.02, 0.03], [-0.033, 0.02, 0.03]]
"""Root, neck, jaw, left eye, right eye, metres."""
OUTLINE = [*JOINTS, [0, -0.01, 0.085], [0, 0.14, -0.02], [0, 0.03, -0.11]]
"""What tells a head from a heap of points: the joints, the tip of the nose, crown and back of the head."""


def random_arrays(seed=0):
    """Everything a FLAME file has, in FLAME's own metres and axes; random but for what makes a head of it."""
    rng = np.random.default_rng(seed)
    weights = rng.random((V, 5)) ** 3
    template = rng.normal(0, 0.03, (V, 3)).clip(-0.06, 0.06)
    template[: len(OUTLINE)] = OUTLINE
    regressor = rng.random((5, V)) * (rng.random((5, V)) < 0.1)
    regressor = 0.1 * regressor / regressor.sum(1, keepdims=True) + 0.9 * np.eye(5, V)
    return {
        "v_template": template,
        "shapedirs": rng.normal(0, 0.01, (V, 3, S + E)),
        "posedirs": rng.normal(0, 0.01, (V, 3, 36)),
        "J_regressor": regressor,
        "weights": weights / weights.sum(1, keepdims=True),
        "kintree_table": np.stack([np.where(PARENTS < 0, 2**32 - 1, PARENTS), np.arange(5)]),
        "f": rng.integers(0, V, (200, 3)).astype(np.uint32),
    }


def changed(arrays, axes, scale=1.0):
    """The same head with every position p at scale · axes @ p."""
    turned = {k: scale * np.einsum("ij,vj...->vi...", axes, arrays[k]) for k in ("v_template", "shapedirs", "posedirs")}
    return arrays | turned
