"""Counting without numbers agrees with what a real step makes and keeps."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from helpers.tracing import untraced

import kernels
from i4d_bench.config import presets
from i4d_bench.config.experiment import Stage
from i4d_bench.config.override import override
from i4d_bench.heads.worlds import exported_head
from i4d_bench.model.avatar import Avatar, Backbone
from i4d_bench.speed.cost import LiveBytes
from i4d_bench.train import footprint
from i4d_bench.train.footprint import META, Counter, _Lesson
from i4d_bench.types import MotionCode, UserError
from variants import names

STAGE = Stage(1, 32, 16, 2, 2)


@pytest.fixture(scope="module")
def experiment():
    return override(presets.smoke(), ["train.loss.ssim=0.0"])


@pytest.fixture
def counter(experiment):
    return Counter(experiment, exported_head("procedural"))


def kept(avatar, images, source, driving) -> int:
    """Bytes that autograd saves of a forward pass, weights apart."""
    storages = {}

    def pack(t):
        storages[t.untyped_storage()._cdata] = t.untyped_storage()
        return t

    own = {p.untyped_storage()._cdata for p in avatar.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = avatar(images, source, driving, STAGE.grid)
        total = sum(s.nbytes() for key, s in storages.items() if key not in own)
    assert out.means.requires_grad
    return total


@pytest.mark.parametrize("design", ["local_adaln", "global_cross_attention"])
def test_what_is_saved_for_the_backward_pass_is_what_a_real_one_saves(experiment, counter, design):
    real = Avatar(Backbone(experiment.model), experiment.fusion(design))
    images, code = torch.rand(2, 3, 32, 32), lambda n: MotionCode(torch.randn(n, 512))
    counter._place(STAGE.grid)
    lesson = _Lesson(2, STAGE, 32, counter.head)
    bare = Avatar(counter.backbone, experiment.fusion(design).to(META))
    with kernels.using("eager"):
        measured = kept(real, images, code(2), code(4))
        counted = kept(bare, lesson.images, lesson.source, lesson.driving)
    assert counted == pytest.approx(measured, rel=0.03)


def test_the_peak_holds_what_is_saved(experiment, counter, monkeypatch):
    """Of a real step in plain torch, splatting apart."""
    monkeypatch.setattr(footprint, "OPS", ())
    counted = counter.footprint("local_adaln", STAGE).two.peak
    real = Avatar(Backbone(experiment.model), experiment.fusion("local_adaln"))
    images, code = torch.rand(2, 3, 32, 32), lambda n: MotionCode(torch.randn(n, 512))
    real(images, code(2), code(4), STAGE.grid)  # what is kept for all pictures is made
    with LiveBytes() as live:
        g = real(images, code(2), code(4), STAGE.grid)
        (g.means.sum() + g.quats.sum() + g.scales.sum() + g.opacities.sum() + g.colors.sum()).backward()
    assert counted == pytest.approx(live.peak, rel=0.25)


def test_all_designs_can_be_counted(counter):
    """Unseen by coverage, to which the others here show what a count executes: nearly all is torch's own Python."""
    footprint = untraced(counter.footprint)
    for name in names():
        at = footprint(name, STAGE)
        assert at.one.flops > 0 and at.two.peak > at.one.peak > 0 and at.gaussians >= 16**2, name


def test_work_grows_with_people_resolution_and_gaussians(counter):
    small = counter.footprint("local_adaln", STAGE)
    large = counter.footprint("local_adaln", dataclasses.replace(STAGE, resolution=64, grid=32))
    assert large.one.peak > small.one.peak and large.one.flops > small.one.flops
    assert large.gaussians > 3 * small.gaussians
    assert small.at(4).peak == pytest.approx(2 * small.two.peak - (2 * small.one.peak - small.two.peak))
    judged = counter.footprint("local_adaln", STAGE, adversarial=True)
    assert judged.one.flops > small.one.flops and judged.one.made > small.one.made


def test_nothing_stays_replaced(counter):
    before = torch.autocast, torch.nn.functional.scaled_dot_product_attention, kernels.reference.decode
    counter.footprint("static", STAGE)
    assert before == (torch.autocast, torch.nn.functional.scaled_dot_product_attention, kernels.reference.decode)


def test_rays_are_refused(experiment):
    with pytest.raises(UserError, match="sampling plane"):
        Counter(override(experiment, ["model.sampling=ray"]), exported_head("procedural"))
