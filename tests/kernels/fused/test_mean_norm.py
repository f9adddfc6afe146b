"""The mean of norms by kernels: torch's number and gradient."""

from __future__ import annotations

import pytest
import torch
from helpers.agreement import DEVICE, HALVES, agree

pytest.importorskip("triton")
import kernels
from i4d_bench.train.losses import feature_change
from kernels.cases import case
from kernels.contract import poisoned

CASE = case("mean_norm")


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def both(mode, delta):
    """The mean, and three times its gradient."""
    delta = delta.detach().requires_grad_()
    with kernels.using(mode), poisoned():
        value = feature_change(delta)
        (gradient,) = torch.autograd.grad(3 * value, delta)
    return value.detach(), gradient


def check(delta, rtol=2e-6):
    value, gradient = both("triton", delta)
    true, slope = both("eager", delta.double())
    assert value.shape == () and value.dtype == torch.float32
    assert float(value) == pytest.approx(float(true), rel=2e-6)
    assert gradient.shape == delta.shape and gradient.dtype == delta.dtype and gradient.is_contiguous()
    torch.testing.assert_close(gradient.double(), slope, rtol=rtol, atol=rtol * float(slope.abs().max()))


@pytest.mark.parametrize("storage", [torch.float32, *HALVES], ids=str)
def test_equals_the_twin(storage):
    agree(CASE, CASE.inputs(65, 2, 3, storage, DEVICE))


@pytest.mark.parametrize("width", [1, 5, 48, 64, 300, 5000])
def test_value_and_gradient_are_torchs_at_any_width(width):
    check(draw(2, 7, width))


def test_of_more_rows_than_a_program_has():
    delta = draw(3, 67, 48) * draw(3, 67, 1, seed=1).exp()
    check(delta)
    assert all(torch.equal(x, y) for x, y in zip(both("triton", delta), both("triton", delta), strict=True))


def test_rows_of_zeros_have_no_gradient():
    delta = draw(2, 9, 48)
    delta[:, ::2] = 0
    check(delta)
    assert not both("triton", delta)[1][:, ::2].any()
    assert not both("triton", delta.clamp(-1e-30, 1e-30))[1].any(), "squares that are zero in fp32"
    assert [float(x.abs().max()) for x in both("triton", 0 * delta)] == [0, 0]


def test_rows_in_any_order_of_memory():
    check(draw(2, 48, 11).mT)
    check(draw(2, 22, 64)[:, ::2, 8:56])
    check(draw(1, 11, 48).expand(3, -1, -1))


def test_halves_are_computed_in_singles():
    """Norms whose squares no half can hold, and a gradient in halves."""
    check((300 * draw(2, 9, 48)).half(), rtol=1e-3)


def test_nothing_is_differentiated_unasked():
    delta = draw(2, 9, 48)
    with kernels.using("triton"), poisoned():
        plain = feature_change(delta)
        with torch.no_grad():
            unrecorded = feature_change(delta.requires_grad_())
    assert not plain.requires_grad and not unrecorded.requires_grad
    assert torch.equal(plain, unrecorded) and float(plain) == pytest.approx(
        float(delta.detach().norm(dim=-1).mean()), rel=2e-6
    )
