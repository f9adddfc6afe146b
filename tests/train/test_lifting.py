"""The lifting network: pictures from other sides, with their cameras, regions and landmarks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from i4d_bench.camera import look_at, project
from i4d_bench.config import presets
from i4d_bench.data.splits import triples
from i4d_bench.drivers.driver import Driver
from i4d_bench.loader import Loader
from i4d_bench.metrics.image import psnr
from i4d_bench.model.avatar import Backbone
from i4d_bench.train.lifting import Lifter, stacked

CPU, SIZE = torch.device("cpu"), 32


@pytest.fixture(scope="module")
def sources(smoke_frames):
    """Near frontal pictures."""
    rows = triples(smoke_frames, "test", "recon")
    return Loader(smoke_frames, Driver("sliders", smoke_frames), CPU).targets(rows.source, SIZE)


@pytest.fixture(scope="module")
def lifter():
    """A network that starts as the picture, painted on a mean head."""
    torch.manual_seed(0)
    return Lifter(Backbone(presets.smoke().model))


def test_from_its_own_side_a_picture_stays(lifter, sources):
    seen = lifter.seen(sources, sources.camera)
    grey = torch.full((len(sources.rgb), 3), 0.5)
    assert psnr(seen.over(grey), sources.over(grey)).min() > 16
    both = (seen.regions & sources.regions).sum((1, 2)) / (seen.regions | sources.regions).sum((1, 2))
    assert both.min() > 0.3, "eyes and mouth"
    assert (seen.landmarks - sources.landmarks).abs().max() < 0.5


def test_landmarks_turn_with_the_head(lifter, sources):
    view, K = look_at(30, 0, SIZE)
    seen = lifter.seen(sources, stacked([(view, K)] * len(sources.rgb), SIZE, CPU))
    nose, ear = 30, 0  # in front, and at the side
    straight = lifter.seen(sources, stacked([look_at(0, 0, SIZE)] * len(sources.rgb), SIZE, CPU)).landmarks
    moved = (seen.landmarks - straight)[..., 0].mean(0)
    z = {k: project(np.array([[0, 0, d]]), view, K)[0, 0] - SIZE / 2 for k, d in {nose: 0.3, ear: 0.0}.items()}
    assert moved[nose] == pytest.approx(z[nose], abs=1.5), "the nose moves as a point in front does"
    assert abs(moved[nose] - moved[ear]) > 1


def test_landmarks_that_nobody_wants_are_unknown(lifter, sources):
    a, b = lifter.seen(sources, sources.camera), Lifter(lifter.backbone, landmarks=False).seen(sources, sources.camera)
    assert b.landmarks.isnan().all() and torch.equal(a.rgb, b.rgb) and torch.equal(a.regions, b.regions)


def test_it_is_frozen(lifter):
    assert not any(p.requires_grad for p in lifter.backbone.parameters()) and not lifter.backbone.training
