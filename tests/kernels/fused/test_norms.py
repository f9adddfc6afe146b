"""Norms in Triton against their twins in fp64."""

from __future__ import annotations

import pytest
import torch
from helpers.agreement import DEVICE, HALVES, agree

pytest.importorskip("triton")
import kernels
from kernels.cases import case

ROWS, PICTURES = case("row_norm"), case("norm_silu")


@pytest.mark.parametrize("storage", [torch.float32, *HALVES], ids=str)
@pytest.mark.parametrize(("n", "people", "frames"), [(1, 1, 1), (63, 1, 2), (65, 2, 3)])
def test_rows_equal_the_twins(n, people, frames, storage):
    agree(ROWS, ROWS.inputs(n, people, frames, storage, DEVICE))


@pytest.mark.parametrize(("width", "beside"), [(1, 2), (32, 0), (48, 7), (100, 28)])
def test_widths_of_a_row(width, beside):
    agree(ROWS, ROWS.inputs(65, 2, 2, device=DEVICE, width=width, beside=beside))


def test_rows_that_lie_anyhow():
    """Columns before rows: copied."""
    x = ROWS.inputs(65, 2, device=DEVICE)["x"]
    agree(ROWS, {"x": x.mT.contiguous().mT})


def test_a_gradient_with_rows_apart():
    """As of the first columns of a sum of wider rows."""
    x, d = (torch.randn(2, 65, 48, generator=torch.Generator().manual_seed(k), device="cpu").to(DEVICE) for k in (0, 1))
    wide = torch.cat([d, d], -1)[..., :48]
    got = {}
    for mode in ("eager", "triton"):
        leaf = x.clone().requires_grad_()
        with kernels.using(mode):
            (got[mode],) = torch.autograd.grad(kernels.row_norm(leaf), leaf, wide)
    torch.testing.assert_close(got["triton"], got["eager"])


@pytest.mark.parametrize("storage", [torch.float32, *HALVES], ids=str)
@pytest.mark.parametrize(("n", "people", "frames"), [(1, 1, 1), (15, 1, 2), (600, 2, 1)])
def test_pictures_equal_the_twins(n, people, frames, storage):
    agree(PICTURES, PICTURES.inputs(n, people, frames, storage, DEVICE))


@pytest.mark.parametrize(("channels", "groups"), [(8, 8), (16, 8), (32, 8), (64, 4), (192, 8), (24, 1)])
def test_channels_and_groups(channels, groups):
    agree(PICTURES, PICTURES.inputs(40, 2, device=DEVICE, channels=channels, groups=groups, rows=5))


def test_pictures_in_other_memory():
    """Channels before pixels: copied, and what comes out is not."""
    x = PICTURES.inputs(40, 2, device=DEVICE, rows=5)
    x |= {"x": x["x"].contiguous()}
    agree(PICTURES, x)
    with kernels.using("triton"):
        assert PICTURES.call(x)[0].is_contiguous(memory_format=torch.channels_last)


def test_a_picture_far_from_zero():
    """A mean a hundred times the deviation."""
    x = PICTURES.inputs(600, device=DEVICE)
    with kernels.using("eager"):
        want = PICTURES.call(
            x | {"x": x["x"].double() + 100, "weight": x["weight"].double(), "bias": x["bias"].double()}
        )[0]
    with kernels.using("triton"):
        got = PICTURES.call(x | {"x": x["x"] + 100})[0]
    torch.testing.assert_close(got.double(), want, rtol=1e-2, atol=1e-2)


def test_groups_that_are_no_power_of_two_are_refused():
    x = PICTURES.inputs(4, device=DEVICE, channels=12, groups=3)
    with pytest.raises(ValueError, match="not 3"), kernels.using("triton"):
        PICTURES.call(x)
