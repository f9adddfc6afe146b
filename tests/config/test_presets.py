"""The preset paper: the published numbers, and resolutions that grow."""

from __future__ import annotations

import pytest
import torch

from i4d_bench.config import presets
from i4d_bench.config.experiment import from_dict
from i4d_bench.config.override import override
from i4d_bench.model.avatar import Backbone
from i4d_bench.model.sampling import PlaneSampling
from i4d_bench.model.surface import HeadSurface
from i4d_bench.types import FEATURE_DIM, UserError
from variants import names
from variants.base import defaults


@pytest.fixture(scope="module")
def paper():
    return presets.paper()


def test_the_loss_is_the_papers(paper):
    loss = paper.train.loss
    assert (loss.l1, loss.lpips, loss.identity, loss.regions, loss.delta) == (1.0, 1.0, 0.1, 0.1, 0.001)
    assert (loss.adversarial, loss.adversarial_from, loss.ssim) == (0.025, 0.5, 0.0)
    assert loss.identity_network not in paper.evaluate.identity


def test_the_training_is_the_papers(paper):
    train = paper.train
    assert train.lr == train.lr_fusion == 1e-4 and train.accumulate > 1 and paper.model.bf16
    assert {stage.sources for stage in (*train.warmup, *train.stages)} == {32}
    assert all("lr" not in own for own in paper.overrides.values())
    pairs = sum(stage.steps * stage.sources * (stage.frames - 1) for stage in train.stages)
    assert pairs == 8 * 480_000


def test_resolution_and_grid_grow_alike(paper):
    stages = paper.train.stages
    assert [stage.resolution for stage in stages] == [64, 128, 256, 512]
    assert all(stage.grid / stage.resolution == paper.model.grid / 512 for stage in stages)
    assert stages[-1].grid == paper.model.grid and paper.world.resolution == stages[-1].resolution


def test_every_design_has_the_papers_constants(paper):
    for name in names():
        own = paper.fusion(name)
        if "delta_scale" in defaults(name):
            assert paper.resolved(name)["delta_scale"] == 0.01 and own.delta_scale == 0.01, name
        if "w_std" in defaults(name):
            assert paper.resolved(name)["w_std"] == 0.02 and 0.018 < float(own.W.weight.detach().std()) < 0.022, name


def test_the_planes_are_the_papers(paper):
    """512² in, 256² × 96 out, in each stage as many texels as its Gaussians can read."""
    model = paper.model
    assert (model.size, model.planes, FEATURE_DIM + model.motion_basis) == (512, 256, 96)
    HeadSurface()  # kept from here on: it is made of numbers
    with torch.device("meta"):
        backbone = Backbone(model)
    images = torch.empty(1, 3, 512, 512, device="meta")
    texels = [backbone.texels(PlaneSampling(stage.grid)) for stage in paper.train.stages]
    assert texels == [64, 128, 256, 256]
    assert backbone.encoder(images, texels[-1]).full().shape == (1, 3, 96, 256, 256)


def test_there_are_about_200_000_gaussians(paper):
    anchors, _, _ = PlaneSampling(paper.model.grid, paper.model.focus)._sheets(HeadSurface())
    assert abs(len(anchors) - 200_000) < 1000


def test_it_comes_back_from_json(paper):
    assert from_dict(paper.to_dict()) == paper
    older = paper.to_dict()
    older["evaluate"]["timed_frames"] = 200
    assert from_dict(older) == paper


def test_the_number_of_steps_can_be_set(paper):
    shorter = override(paper, ["train.stages=[[10,64,53,32,2],[20,512,424,32,2]]"])
    assert [stage.steps for stage in shorter.train.stages] == [10, 20]


def test_planes_that_do_not_divide_the_picture_are_refused(paper):
    with pytest.raises(UserError, match=r"model\.planes=100 does not divide model\.size=512"):
        Backbone(override(paper, ["model.planes=100"]).model)
