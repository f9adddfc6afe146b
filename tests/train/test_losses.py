"""The training loss."""

from __future__ import annotations

import pytest
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from i4d_bench.config.experiment import Loss
from i4d_bench.train.losses import reconstruction, ssim


def images(height=24, width=32, seed=0):
    return torch.rand(3, height, width, 3, generator=torch.Generator().manual_seed(seed))


def test_ssim_is_torchmetrics():
    a, b = images(), 0.7 * images() + 0.3 * images(seed=1)
    expected = structural_similarity_index_measure(a.movedim(-1, 1), b.movedim(-1, 1), data_range=1.0)
    torch.testing.assert_close(ssim(a, b), expected, rtol=0, atol=1e-5)
    assert ssim(a, a) == pytest.approx(1)


def test_ssim_has_a_gradient():
    a, b = images(12, 12).double().requires_grad_(), images(12, 12, seed=1).double()
    assert torch.autograd.gradcheck(lambda x: ssim(x, b), a)


def test_regions_count_by_their_own_pixels():
    target, regions = torch.zeros(2, 16, 16, 3), torch.zeros(2, 16, 16, dtype=torch.bool)
    regions[:, :4, :4] = True
    off = lambda where: target + 0.5 * where[..., None]  # noqa: E731
    only = Loss(l1=0, regions=5, ssim=0)
    assert reconstruction(off(regions), target, regions, only) == pytest.approx(2.5)
    assert reconstruction(off(~regions), target, regions, only) == 0
    assert reconstruction(off(regions), target, ~regions & regions, only) == 0, "no eyes or mouth in sight"
    assert reconstruction(target, target, regions, Loss()) == pytest.approx(0, abs=1e-6)
