"""Gaussians blended with a head, in Triton against their twin in fp64."""

from __future__ import annotations

import dataclasses
import functools

import pytest
import torch
from helpers.agreement import DEVICE, HALVES, agree, same_through_the_kernel

pytest.importorskip("triton")
from kernels.cases import case

CASE = case("blend_gaussians")
SIZES = [(1, 1, 1), (63, 1, 2), (65, 2, 3), (129, 1, 9)]
"""Gaussians, people, frames of each: more than a tile, and more frames than a program goes through."""
inputs = functools.partial(CASE.inputs, device=DEVICE, vertices=16)


@pytest.mark.parametrize(("n", "people", "frames"), SIZES)
def test_blended_gaussians(n, people, frames):
    agree(CASE, inputs(n, people, frames))


@pytest.mark.parametrize("storage", HALVES, ids=str)
@pytest.mark.parametrize(("n", "people", "frames"), SIZES[1:3])
def test_blendshapes_stored_in_16_bits(n, people, frames, storage):
    agree(CASE, inputs(n, people, frames, storage))


def test_vertices_in_rows_of_three():
    """As others than `flame_skinning` give them."""
    x = inputs(65, 1, 2)
    agree(CASE, x | {"unposed": x["unposed"].contiguous()})


def test_all_gaussians_on_one_vertex():
    x = inputs(600, 1, 2)
    agree(CASE, x | {"near": torch.zeros_like(x["near"])})


@pytest.mark.parametrize("leaves", [("hidden",), ("hidden", "unposed"), ("hidden", "transforms")], ids=" ".join)
def test_gradients_of_some_inputs_alone(leaves):
    agree(dataclasses.replace(CASE, leaves=leaves), inputs(65, 2, 2))


@pytest.mark.parametrize("hidden", [16, 48, 96, 128])
def test_widths_of_the_hidden_layer(hidden):
    agree(CASE, inputs(65, 1, 2, hidden=hidden))


@pytest.mark.parametrize("near", [1, 5])
def test_other_numbers_of_neighbours(near):
    agree(CASE, inputs(65, 1, 2, hidden=16, near=near))


def test_a_width_that_is_no_multiple_of_16_is_refused():
    with pytest.raises(ValueError, match="multiple of 16"):
        CASE.run(inputs(5, hidden=20), "triton")


def test_extreme_logits_stay_finite_and_flat():
    """Beyond ±15 the opacity stands still: no gradient, as in the twin."""
    x = inputs(4, hidden=16)
    x |= {"readout": 0 * x["readout"], "bias": torch.zeros(1, 16, device=DEVICE)}
    x["bias"][0, 10] = 100.0
    for mode in ("eager", "triton"):
        out = CASE.run(x, mode, backward=True)
        assert out["3"].isfinite().all() and not out["d bias"][0, 0, 10]


def test_the_design_gives_the_same_through_the_kernel(tiny):
    same_through_the_kernel("flame_blendshapes", tiny)


@pytest.mark.gpu
@pytest.mark.parametrize("n", [4097, 196608])
@pytest.mark.parametrize("frames", [1, 9])
@pytest.mark.parametrize("storage", [torch.float32, torch.bfloat16], ids=str)
def test_large(n, frames, storage):
    agree(CASE, CASE.inputs(n, 1, frames, storage, DEVICE))


@pytest.mark.gpu
def test_gradients_are_the_same_in_every_run():
    x = CASE.inputs(65536, 1, 2, device=DEVICE)
    first, *others = (CASE.run(x, "triton", backward=True) for _ in range(5))
    assert all(torch.equal(first[k], other[k]) for other in others for k in first)
