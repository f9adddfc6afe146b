"""Who is trained, validated and tested on what (DESIGN §3)."""

from __future__ import annotations

import numpy as np

from i4d_bench.data.splits import SETS, SPLITS, split_of, triples, yaw
from i4d_bench.heads.expressions import ACTIONS, held_out


def test_splits_keep_people_views_and_expressions_apart(smoke_frames):
    split = split_of(smoke_frames)
    by_split = [set(smoke_frames.identity[split == k]) for k in range(len(SPLITS))]
    assert not (by_split[0] & by_split[2]) and not (by_split[0] & by_split[1])
    assert np.abs(yaw(smoke_frames)[split == 0]).max() <= 35.5
    for name in SETS:
        rows = triples(smoke_frames, "test", name)
        assert len(rows) and (split[rows.source] == 2).all()
        assert (np.abs(yaw(smoke_frames)[rows.source]) <= 12.5).all()
    assert (np.abs(yaw(smoke_frames)[triples(smoke_frames, "test", "novel").target]) >= 34.5).all()
    cross = triples(smoke_frames, "test", "cross")
    assert (smoke_frames.identity[cross.driving] != smoke_frames.identity[cross.source]).all()
    assert (smoke_frames.identity[cross.target] == smoke_frames.identity[cross.source]).all()
    np.testing.assert_array_equal(smoke_frames.coefficients[cross.driving], smoke_frames.coefficients[cross.target])
    pairs = [(m, e) for m in ACTIONS["mouth"] for e in ACTIONS["eyes"]]
    assert 0.1 < np.mean([held_out(*p) for p in pairs]) < 0.35
