"""Part-local blendshapes in Triton against their twin in fp64, and the design on them."""

from __future__ import annotations

import dataclasses
import functools

import pytest
import torch
from helpers.agreement import DEVICE, HALVES, agree, same_through_the_kernel

pytest.importorskip("triton")
from kernels.cases import case

CASE = case("part_blendshapes")
SIZES = [(1, 1, 1), (63, 1, 2), (65, 2, 3)]
"""Gaussians, people, frames of each."""
inputs = functools.partial(CASE.inputs, device=DEVICE, parts=20)


@pytest.mark.parametrize("storage", [torch.float32, *HALVES], ids=str)
@pytest.mark.parametrize(("n", "people", "frames"), SIZES)
def test_equals_the_twin(n, people, frames, storage):
    agree(CASE, inputs(n, people, frames, storage))


def test_more_than_a_programs_gaussians_and_parts():
    agree(CASE, inputs(2100, parts=130, hidden=16))


@pytest.mark.parametrize("hidden", [16, 24, 48, 128])
def test_widths_of_the_hidden_layer(hidden):
    agree(CASE, inputs(65, 1, 2, hidden=hidden))


@pytest.mark.parametrize("near", [1, 5])
def test_other_numbers_of_neighbours(near):
    agree(CASE, inputs(65, 1, 2, near=near))


def test_all_gaussians_in_one_part():
    x = inputs(130, 1, 2)
    agree(CASE, x | {"index": torch.zeros_like(x["index"])})


@pytest.mark.parametrize("leaves", ["gains", "f", "hidden readout"])
def test_gradients_of_some_inputs_alone(leaves):
    agree(dataclasses.replace(CASE, leaves=tuple(leaves.split())), inputs(20, 2, 2))


def test_frames_that_do_not_divide_among_the_people_are_refused():
    x = inputs(5, 2, 2)
    with pytest.raises(ValueError, match="3 frames cannot be divided among 2 people"):
        CASE.run(x | {"gains": x["gains"][:3]}, "triton")


def test_the_design_gives_the_same_through_the_kernel(tiny):
    same_through_the_kernel("local_part_blendshapes", tiny)


@pytest.mark.gpu
@pytest.mark.parametrize("storage", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("n", "people", "frames"), [(4097, 1, 1), (196_608, 1, 1), (16_384, 3, 4)])
def test_large_on_a_gpu(n, people, frames, storage):
    agree(CASE, CASE.inputs(n, people, frames, storage, DEVICE))


@pytest.mark.gpu
def test_gradients_are_the_same_in_every_run():
    x = CASE.inputs(65536, 1, 2, device=DEVICE)
    first, *others = (CASE.run(x, "triton", backward=True) for _ in range(5))
    assert all(torch.equal(first[k], other[k]) for other in others for k in first)
