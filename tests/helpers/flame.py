"""A random head in FLAME's layout."""

from __future__ import annotations

import numpy as np

V, S, E = 120, 300, 100
PARENTS = np.array([-1, 0, 1, 1, 1])


def random_arrays(seed=0):
    """Everything a FLAME file has, random, for 120 vertices."""
    rng = np.random.default_rng(seed)
    weights = rng.random((V, 5)) ** 3
    regressor = rng.random((5, V)) * (rng.random((5, V)) < 0.1)
    return {
        "v_template": rng.normal(0, 0.1, (V, 3)),
        "shapedirs": rng.normal(0, 0.01, (V, 3, S + E)),
        "posedirs": rng.normal(0, 0.01, (V, 3, 36)),
        "J_regressor": regressor / regressor.sum(1, keepdims=True),
        "weights": weights / weights.sum(1, keepdims=True),
        "kintree_table": np.stack([np.where(PARENTS < 0, 2**32 - 1, PARENTS), np.arange(5)]),
        "f": rng.integers(0, V, (200, 3)).astype(np.uint32),
    }
