"""An avatar stays closed in pictures of more pixels than it was trained at, and as it was in those of training."""

from __future__ import annotations

import torch
from helpers.scenes import camera
from torch.utils._python_dispatch import TorchDispatchMode

from i4d_bench.play.widened import in_training, widened
from i4d_bench.render import render
from i4d_bench.types import Gaussians

TRAINED, MORE = 32, 128


def sheet() -> Gaussians:
    """White, a Gaussian for each pixel of a picture in training, and thinner than one."""
    pixel = in_training(TRAINED) / 0.3**0.5
    at = pixel * (torch.arange(25.0) - 12)
    means = torch.stack([*torch.meshgrid(at, at, indexing="xy"), torch.zeros(25, 25)], -1).reshape(1, -1, 3)
    n = means.shape[1]
    turns = torch.tensor([1.0, 0, 0, 0]).expand(1, n, 4)
    return Gaussians(means, turns, torch.full((1, n, 3), 0.2 * pixel), torch.full((1, n), 0.95), torch.ones(1, n, 3))


def middle(g: Gaussians, size: int) -> torch.Tensor:
    rgb = render(g, camera(1, size, size), torch.zeros(1, 3), depth=False).rgb[0, ..., 0]
    return rgb[size // 3 : -size // 3, size // 3 : -size // 3]


def test_a_closed_surface_stays_closed():
    width = in_training(TRAINED)
    assert middle(sheet(), TRAINED).min() > 0.6
    assert middle(sheet(), MORE).min() < 0.2, "what nobody would want to see"
    for seen in (camera(1, MORE, MORE), None):
        assert middle(widened(sheet(), width, seen), MORE).min() > 0.6


def test_pictures_of_training_are_as_they_were():
    as_trained = widened(sheet(), in_training(TRAINED), camera(1, TRAINED, TRAINED))
    torch.testing.assert_close(as_trained.scales, sheet().scales, rtol=1e-3, atol=0)
    fewer = widened(sheet(), in_training(MORE), camera(1, TRAINED, TRAINED))
    assert torch.equal(fewer.scales, sheet().scales.square().sqrt()), "pictures of fewer pixels are wider by themselves"


class WithinAGraph(TorchDispatchMode):
    """Refuses tensors made of Python's numbers: a CUDA graph cannot copy them to its GPU."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func is not torch.ops.aten.lift_fresh.default
        return func(*args, **(kwargs or {}))


def test_a_graph_can_hold_it():
    g, seen = sheet(), camera(1, MORE, MORE)
    with WithinAGraph():
        widened(g, in_training(TRAINED), seen)
