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

FUSION, WHOLE = case("spatial_fusion"), case("attribute_fusion")
TYPES = [torch.float32, *HALVES]
inputs = functools.partial(FUSION.inputs, device=DEVICE)


def given(x) -> tuple:
    return x["basis"], x["gain"], x["bias"], Psi(x["w1"], x["w2"], x["b2"]), Bound(x["means"], x["quats"], x["scales"])


@pytest.mark.parametrize(
    ("n", "storage"), [(1, torch.float32), (63, torch.float32), *((65, t) for t in TYPES)], ids=str
)
def test_equals_the_twin(n, storage):
    agree(FUSION, inputs(n, storage=storage))


@pytest.mark.parametrize(("people", "frames"), [(1, 3), (2, 2)])
def test_frames_of_several_people(people, frames):
    agree(FUSION, inputs(37, people, frames))


@pytest.mark.parametrize("storage", TYPES, ids=str)
@pytest.mark.parametrize(("n", "people", "frames"), [(1, 1, 1), (65, 1, 2), (37, 2, 2)])
def test_all_attributes_change(n, people, frames, storage):
    agree(WHOLE, WHOLE.inputs(n, people, frames, storage, DEVICE))


def test_all_attributes_change_at_other_widths():
    agree(WHOLE, WHOLE.inputs(65, basis=16, hidden=48, device=DEVICE))


def test_opacities_stay_within_reach():
    """Δo of any size leaves an opacity in 0..1 and a gradient without NaN."""
    x = WHOLE.inputs(65, device=DEVICE)
    x["b2"][9] = 40.0
    agree(WHOLE, x)
    out = WHOLE.run(x, "triton", backward=True)
    assert (out["3"] <= 1).all() and (out["3"] > 0.999).any() and out["d b2"].isfinite().all()


@pytest.mark.parametrize("leaves", ["w2 opacities", "b2 colors", "gain means"])
def test_gradients_of_some_attributes_alone(leaves):
    agree(dataclasses.replace(WHOLE, leaves=tuple(leaves.split())), WHOLE.inputs(37, 2, 2, device=DEVICE))


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


@pytest.mark.parametrize("design", ["local_spatial", "flame_residual"])
def test_the_designs_give_the_same_through_the_kernel(design, tiny):
    same_through_the_kernel(design, tiny)


@pytest.mark.gpu
@pytest.mark.parametrize("storage", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("n, people, frames", [(4097, 1, 1), (196_608, 1, 1), (16_384, 3, 4)])
def test_large_on_a_gpu(n, people, frames, storage):
    agree(FUSION, inputs(n, people, frames, storage))
    agree(WHOLE, WHOLE.inputs(n, people, frames, storage, DEVICE))


@pytest.mark.gpu
def test_gradients_are_deterministic():
    x = inputs(16_384, frames=4, storage=torch.bfloat16)
    a, b = (FUSION.run(x, "triton", backward=True) for _ in range(2))
    assert all(torch.equal(a[k], b[k]) for k in a)
