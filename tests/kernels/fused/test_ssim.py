"""SSIM by kernels: torch's number and gradient."""

from __future__ import annotations

import pytest
import torch
from helpers.agreement import DEVICE, HALVES, agree

pytest.importorskip("triton")
import kernels
from i4d_bench.train.losses import ssim
from kernels.cases import case
from kernels.check import precision
from kernels.contract import poisoned

CASE = case("ssim")


def pictures(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def alike(*shape):
    """A picture that is smooth, as rendered ones are, and one near it."""
    a = pictures(*shape).cumsum(1).cumsum(2)
    a = a / a.amax((1, 2, 3), keepdim=True)
    return a, (a + 0.05 * (pictures(*shape, seed=1) - 0.5)).clamp(0, 1)


def both(mode, a, b, dtype=None):
    """SSIM and three times its gradient."""
    a, b = (x if dtype is None else x.to(dtype) for x in (a, b))
    a = a.detach().requires_grad_()
    with kernels.using(mode), poisoned():
        value = ssim(a, b)
        (gradient,) = torch.autograd.grad(3 * value, a)
    return value.detach(), gradient


def check(a, b):
    """The errors of the kernels are at most twice torch's in fp32, with its rounding."""
    made = both("triton", a, b), both("eager", a, b), both("eager", a, b, torch.float64)
    for fast, plain, true in zip(*made, strict=True):
        assert fast.shape == true.shape and fast.dtype == a.dtype
        error, usual = ((x.double() - true).norm() / true.norm() for x in (fast, plain))
        assert error <= 2 * usual + 2e-6


@pytest.mark.parametrize("shape", [(2, 13, 37, 3), (1, 40, 32, 1), (3, 6, 7, 4), (1, 16, 16, 3)])
def test_value_and_gradient_are_torchs(shape):
    check(*alike(*shape))
    check(pictures(*shape), pictures(*shape, seed=1))


@pytest.mark.parametrize("storage", [torch.float32, *HALVES], ids=str)
@pytest.mark.parametrize(("n", "rows"), [(1, 1), (37, 13), (64, 80)])
def test_other_windows_and_types(n, rows, storage):
    agree(CASE, CASE.inputs(n, 2, 1, storage, DEVICE, rows=rows))


def test_pictures_in_any_order_of_memory():
    """Channels first, a part of four channels, every other row, and one picture for all."""
    a, b = pictures(2, 3, 20, 24).movedim(1, -1), pictures(2, 20, 24, 4, seed=1)[..., :3]
    check(a, b)
    check(b, a)
    check(pictures(2, 40, 24, 3)[:, ::2], b[:1].expand(2, -1, -1, -1))


def test_a_picture_has_one_with_itself_and_nowhere_to_go():
    a, _ = alike(2, 16, 24, 3)
    value, gradient = both("triton", a, a)
    assert float(value) == pytest.approx(1, abs=1e-6)
    assert gradient.abs().max() < 1e-3 * both("triton", *alike(2, 16, 24, 3))[1].abs().max()


def test_nothing_is_differentiated_unasked():
    a, b = alike(1, 16, 24, 3)
    true = both("eager", a, b, torch.float64)[0].float()
    with kernels.using("triton"), poisoned():
        plain = ssim(a, b)
        with torch.no_grad():
            unrecorded = ssim(a.requires_grad_(), b.clone().requires_grad_())
    assert not plain.requires_grad and not unrecorded.requires_grad
    torch.testing.assert_close(plain, true)
    assert torch.equal(plain, unrecorded)


def test_a_target_with_a_gradient_is_refused():
    """Nothing falls back to torch in silence; torch, asked for, has one."""
    a, b = (x.requires_grad_() for x in alike(1, 16, 24, 3))
    with kernels.using("triton"), pytest.raises(ValueError, match="no gradient for the target"):
        ssim(a, b)
    with kernels.using("eager"):
        assert torch.autograd.grad(ssim(a, b), b)[0].any()


def test_halves_are_computed_in_singles():
    a, b = (x.half() for x in alike(1, 16, 24, 3))
    value, gradient = both("triton", a, b)
    true, slope = both("eager", a, b, torch.float64)
    assert value.dtype == torch.float32 and gradient.dtype == torch.float16
    assert float(value) == pytest.approx(float(true), abs=2e-3)  # the window is in halves
    assert (gradient.double() - slope).norm() < 2e-2 * slope.norm()


def test_runs_are_the_same_and_may_go_back_twice():
    """Whatever products are allowed in the backward pass: `train.loop` allows tf32 there."""
    a, b = alike(2, 64, 24, 3)
    first, second = both("triton", a, b), both("triton", a, b)
    assert all(torch.equal(x, y) for x, y in zip(first, second, strict=True))
    with kernels.using("triton"):
        value = ssim(a.requires_grad_(), b)
    (once,) = torch.autograd.grad(3 * value, a, retain_graph=True)
    with precision("tf32"):
        (again,) = torch.autograd.grad(3 * value, a)
    assert torch.equal(once, first[1]) and torch.equal(again, first[1])
