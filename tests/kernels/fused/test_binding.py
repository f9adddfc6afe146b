"""Gaussians bound to triangles, in Triton against their twin in fp64."""

from __future__ import annotations

import dataclasses
import functools

import pytest
import torch
from helpers.agreement import DEVICE, agree, same_through_the_kernel

pytest.importorskip("triton")
from kernels.cases import case

CASE = case("bind_gaussians")
SIZES = [(1, 1, 1), (63, 1, 2), (65, 2, 3), (129, 1, 9)]
"""Gaussians, people, frames of each: more than a tile, and more frames than a program goes through."""
inputs = functools.partial(CASE.inputs, device=DEVICE, vertices=16, triangles=10)


@pytest.mark.parametrize(("n", "people", "frames"), SIZES)
def test_bound_gaussians(n, people, frames):
    agree(CASE, inputs(n, people, frames))


def test_vertices_in_rows_of_three():
    """As others than `flame_skinning` give them."""
    x = inputs(65, 1, 2)
    agree(CASE, x | {"vertices": x["vertices"].contiguous()})


def test_triangles_without_an_extent_give_finite_gradients():
    """Gaussians on the others do not notice."""
    x = inputs(65)
    x["faces"] = torch.arange(12, device=DEVICE, dtype=torch.int32).view(4, 3)
    x["triangles"] %= 4
    with torch.no_grad():
        x["vertices"][:, 1] = x["vertices"][:, 0]  # no first edge
        x["vertices"][:, 5] = 2 * x["vertices"][:, 4] - x["vertices"][:, 3]  # no height
        x["vertices"][:, 6:9] = x["vertices"][:, 6:7]  # a point
    got, want = (CASE.run(x, mode, backward=True) for mode in ("triton", "eager"))
    assert all(v.isfinite().all() for v in got.values())
    torch.testing.assert_close(got["d vertices"][..., 9:, :], want["d vertices"][..., 9:, :], rtol=1e-4, atol=1e-4)


def test_all_gaussians_on_one_triangle():
    x = inputs(300, 1, 2)
    agree(CASE, x | {"triangles": torch.zeros_like(x["triangles"])})


@pytest.mark.parametrize("leaves", [("vertices",), ("means", "quats", "scales")], ids=" ".join)
def test_gradients_of_some_inputs_alone(leaves):
    agree(dataclasses.replace(CASE, leaves=leaves), inputs(65, 2, 2))


def test_the_design_gives_the_same_through_the_kernel(tiny):
    same_through_the_kernel("flame_binding", tiny)


@pytest.mark.gpu
@pytest.mark.parametrize("n", [4097, 196608])
@pytest.mark.parametrize("frames", [1, 9])
def test_large(n, frames):
    agree(CASE, CASE.inputs(n, 1, frames, device=DEVICE))


@pytest.mark.gpu
def test_gradients_are_the_same_in_every_run():
    x = CASE.inputs(65536, 1, 2, device=DEVICE)
    first, *others = (CASE.run(x, "triton", backward=True) for _ in range(5))
    assert all(torch.equal(first[k], other[k]) for other in others for k in first)
