"""Local fusion in Triton against its twin in fp64: at most twice the error of the twin in the kernel's own precision."""

from __future__ import annotations

import functools

import pytest
import torch
from helpers.agreement import DEVICE, HALVES, agree

pytest.importorskip("triton")
from kernels.cases import case
from kernels.fused import local_fusion as module
from kernels.fused import softplus_net
from kernels.layout import Attributes, Phi, Psi

FUSION, DECODE = case("local_fusion"), case("decode")
TYPES = [torch.float32, *HALVES]
inputs = functools.partial(FUSION.inputs, device=DEVICE)


@pytest.mark.parametrize(
    ("n", "storage"), [(1, torch.float32), (63, torch.float32), *((65, t) for t in TYPES)], ids=str
)
def test_equals_the_twin(n, storage):
    agree(FUSION, inputs(n, storage=storage))


@pytest.mark.parametrize("storage", TYPES, ids=str)
def test_frames_of_several_people(storage):
    agree(FUSION, inputs(37, people=2, frames=2, storage=storage, own_prior=True))


@pytest.mark.parametrize("storage", TYPES, ids=str)
def test_decoding_alone(storage):
    agree(DECODE, DECODE.inputs(65, people=2, storage=storage, device=DEVICE))


@pytest.mark.parametrize("basis, hidden", [(8, 96), (16, 48), (96, 80)])
def test_other_widths(basis, hidden):
    agree(FUSION, inputs(65, basis=basis, hidden=hidden))


def test_inference_writes_no_delta_and_agrees():
    x = inputs(65, frames=2)
    phi = Phi(x["u1"], x["c1"], x["u2"], x["c2"])
    args = (x["basis"], x["gain"], x["bias"], x["f"], Psi(x["w1"], x["w2"], x["b2"]), phi, x["prior"])
    with torch.no_grad():
        got, delta = module.local_fusion(*args)
    assert delta is None
    for a, b in zip(got, module.local_fusion(*args)[0], strict=True):
        assert torch.equal(a, b)


def test_softplus_polynomial_is_as_exact_as_it_says():
    e = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    c = [float(c.value) for c in (softplus_net.C0, softplus_net.C1, softplus_net.C2, softplus_net.C3)]
    fit = e * (c[0] + e * (c[1] + e * (c[2] + e * c[3])))
    assert (fit - torch.log2(1 + e)).abs().max() < 1.1e-4


@pytest.mark.gpu
@pytest.mark.parametrize("storage", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("n, people, frames", [(4097, 1, 1), (196_608, 1, 1), (16_384, 3, 4)])
def test_large_on_a_gpu(n, people, frames, storage):
    agree(FUSION, inputs(n, people, frames, storage))


@pytest.mark.gpu
def test_tf32_where_torch_allows_it():
    """Near the twin's own tf32 products (a tensor core cuts what cuBLAS rounds first: twice the error an operand, and it adds up
    to one side), and not the same as three of them."""
    x = inputs(16_384, people=2, frames=2)
    exact = FUSION.run(x, "triton")
    torch.set_float32_matmul_precision("high")
    try:
        assert max(FUSION.check(x, "triton", backward=True).values()) < 8
        assert not torch.equal(FUSION.run(x, "triton")["0"], exact["0"])
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.gpu
def test_gradients_are_deterministic():
    x = inputs(16_384, frames=4, storage=torch.bfloat16)
    a, b = (FUSION.run(x, "triton", backward=True) for _ in range(2))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_attributes_are_contiguous():
    x = DECODE.inputs(5, device=DEVICE)
    out = module.decode(x["f"], Phi(x["u1"], x["c1"], x["u2"], x["c2"]), x["prior"])
    assert isinstance(out, Attributes) and all(t.is_contiguous() for t in out)
