"""Fusion in space in Triton against its twin in fp64, and the design on it."""

from __future__ import annotations

import dataclasses
import functools

import pytest
import torch
from helpers.agreement import DEVICE, HALVES, agree, same_through_the_kernel

pytest.importorskip("triton")
from kernels.cases import case
from kernels.fused import spatial_fusion as module
from kernels.layout import Bound, Psi

FUSION = case("spatial_fusion")
TYPES = [torch.float32, *HALVES]
inputs = functools.partial(FUSION.inputs, device=DEVICE)


def given(x) -> tuple:
    return x["basis"], x["gain"], x["bias"], Psi(x["w1"], x["w2"], x["b2"]), Bound(x["means"], x["quats"], x["scales"])


@pytest.mark.parametrize("storage", TYPES, ids=str)
@pytest.mark.parametrize("n", [1, 63, 65])
def test_equals_the_twin(n, storage):
    agree(FUSION, inputs(n, storage=storage))


@pytest.mark.parametrize(("people", "frames"), [(1, 3), (2, 2)])
def test_frames_of_several_people(people, frames):
    agree(FUSION, inputs(37, people, frames))


@pytest.mark.parametrize(("basis", "hidden"), [(8, 96), (16, 48), (96, 80)])
def test_other_widths(basis, hidden):
    agree(FUSION, inputs(65, basis=basis, hidden=hidden))


@pytest.mark.parametrize("leaves", ["gain bias", "w1 means", "basis quats", "b2 scales", "means quats scales"])
def test_gradients_of_some_inputs_alone(leaves):
    agree(dataclasses.replace(FUSION, leaves=tuple(leaves.split())), inputs(37, 2, 2))


def test_inference_writes_no_change_and_agrees():
    x = given(inputs(65, 2, 2))
    with torch.no_grad():
        got = module.spatial_fusion(*x)
    _, change = module.run(*x, emit=False)
    assert change is None
    for a, b in zip(got, module.spatial_fusion(*x), strict=True):
        assert torch.equal(a, b)


def test_what_comes_out_is_contiguous_fp32():
    out = module.spatial_fusion(*given(inputs(5, 2, 2, storage=torch.float16)))
    assert isinstance(out, Bound) and all(t.is_contiguous() and t.dtype == torch.float32 for t in out)


def test_frames_that_do_not_divide_among_the_people_are_refused():
    basis, gain, bias, psi, still = given(inputs(5, 2, 2))
    with pytest.raises(ValueError, match="3 frames cannot be divided among 2 people"):
        module.spatial_fusion(basis, gain[:3], bias[:3], psi, still)


def test_the_design_gives_the_same_through_the_kernel(tiny):
    same_through_the_kernel("local_spatial", tiny)


@pytest.mark.gpu
@pytest.mark.parametrize("storage", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("n, people, frames", [(4097, 1, 1), (196_608, 1, 1), (16_384, 3, 4)])
def test_large_on_a_gpu(n, people, frames, storage):
    agree(FUSION, inputs(n, people, frames, storage))


@pytest.mark.gpu
def test_gradients_are_deterministic():
    x = inputs(16_384, frames=4, storage=torch.bfloat16)
    a, b = (FUSION.run(x, "triton", backward=True) for _ in range(2))
    assert all(torch.equal(a[k], b[k]) for k in a)
