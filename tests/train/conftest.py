"""What tests of training share: pairs of the smoke preset's world, and what trains on them."""

from __future__ import annotations

import pytest
import torch

from i4d_bench.config import presets
from i4d_bench.data.teacher.pairs import make
from i4d_bench.data.teacher.spoils import Spoil
from i4d_bench.data.teacher.store import Store
from i4d_bench.data.teacher.world import WorldMaker
from i4d_bench.drivers.driver import Driver
from i4d_bench.heads.worlds import exported_head
from i4d_bench.train.distil import FromPairs


@pytest.fixture(scope="session")
def pairs(tmp_path_factory) -> Store:
    """Two pairs of everyone in the smoke preset's world, each as the animator made it and from one true side."""
    folder = tmp_path_factory.mktemp("teacher") / "pairs"
    assert make(WorldMaker(presets.smoke().world, Spoil.moderate(), pairs=2, views=2), folder) == 0
    return Store(folder)


@pytest.fixture
def lessons(pairs, smoke_frames):
    """Makes lessons of the pairs."""

    def made(**more) -> FromPairs:
        driver = Driver("sliders", smoke_frames)
        return FromPairs(pairs, driver, exported_head("procedural"), size=32, seed=0, **more)

    torch.manual_seed(0)
    return made
