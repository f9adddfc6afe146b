"""Batches of the training loop."""

from __future__ import annotations

import numpy as np

from i4d_bench.config.experiment import Stage
from i4d_bench.data.splits import split_of
from i4d_bench.loader import Batches


def test_batches_depend_on_the_step_alone(smoke_frames):
    stage = Stage(1, 32, 16, 3, 4)
    within = np.flatnonzero(split_of(smoke_frames) == 0)
    a, b = (Batches(smoke_frames, within, seed=0) for _ in range(2))
    for step in (7, 3):
        for x, y in zip(a.draw(step, stage, True), b.draw(step, stage, True), strict=True):
            np.testing.assert_array_equal(x, y)
    source, target = a.draw(0, stage, True)
    assert (smoke_frames.identity[source].repeat(4) == smoke_frames.identity[target]).all()
    changed = smoke_frames.expression[target].reshape(3, 4) != smoke_frames.expression[source][:, None]
    assert (changed.sum(1) == 3).all(), "one of four keeps the source's expression"
