"""Batches of the training loop, and loaders whose coefficients are off."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from i4d_bench.config.experiment import Stage
from i4d_bench.data.splits import split_of
from i4d_bench.drivers.driver import Driver
from i4d_bench.drivers.tracked import tracked
from i4d_bench.loader import Batches, Loader


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


@pytest.mark.parametrize("name", ["sliders", "flame"])
def test_a_tracked_loader_shares_all_but_coefficients_and_what_the_driver_reads_of_them(smoke_frames, name):
    loader = Loader(smoke_frames, Driver(name, smoke_frames), torch.device("cpu"))
    assert loader.flame is not None and loader.tracked(0) is loader
    own = loader.tracked(0.5)
    assert own.flame is not None
    changed = {k for k in vars(loader) if vars(own)[k] is not vars(loader)[k]}
    assert changed == {"flame", "motion"} if name == "flame" else changed == {"flame"}
    train = split_of(smoke_frames) == 0
    wanted = tracked(loader.flame, smoke_frames.identity, 0.5, train)
    assert torch.equal(own.flame.expression, wanted.expression) and not torch.equal(wanted.pose, loader.flame.pose)
    if name == "flame":
        code = loader.driver.codes(
            *(smoke_frames.arrays[k][:4] for k in ("rgb", "landmarks", "coefficients")), wanted[:4]
        )
        assert torch.allclose(own.code(np.arange(4)).motion, code, atol=1e-5)
        assert not torch.allclose(code, loader.motion[:4], atol=1e-2)
