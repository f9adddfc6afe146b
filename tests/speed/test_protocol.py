"""Times that are compared are taken in turn."""

from __future__ import annotations

import time

import pytest
import torch

from i4d_bench.speed import protocol
from i4d_bench.speed.plan import Plan
from i4d_bench.speed.splatted import Gradients

CPU = torch.device("cpu")


def test_calls_in_turn_see_the_same_spells_of_the_host():
    """Half of the time everything takes longer: one after the other, one of the two would have had all of it."""
    made = []

    def call(name, seconds):
        def run(k):
            made.append((k, name))
            time.sleep(seconds * (1 + 9 * (k >= 5)))

        return run

    few, many = protocol.in_turn([call("few", 1e-3), call("many", 4e-3)], 11, CPU, warmup=2)
    assert made == [(k, name) for k in [0, 1, *range(11)] for name in ("few", "many")]
    assert 10 < few.ms < many.ms and few.p5 < 10 < many.p95
    assert few.host_ms == few.ms


@pytest.mark.gpu
def test_gradients_are_timed_beside_gsplats():
    row = Gradients(2, 300, 32).measure(Plan(frames=3), torch.device("cuda"))
    (theirs,) = row["beside"].values()
    assert row["status"] == "ok" and 0 < row["ms"] and 0 < theirs["ms"], row
