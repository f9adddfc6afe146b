"""Local fusion in Triton against its twin in fp64: at most twice the error of the twin in the kernel's own precision."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")
from kernels import reference
from kernels.fused import local_fusion as module
from kernels.fused import softplus_net
from kernels.reference import Attributes, Phi, Psi

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
DTYPES = [torch.float32, torch.float16] + ([torch.bfloat16] if CUDA else [])
FLOOR = {torch.float32: 2e-6, torch.float16: 2e-4, torch.bfloat16: 1e-3}
"""Of a tensor's scale: below it, errors are not compared."""


class Problem:
    """Random weights and features; `leaves` are what gradients reach."""

    def __init__(self, n, people=1, frames=1, dtype=torch.float32, basis=48, hidden=96, prior="shared", seed=0):
        g = torch.Generator().manual_seed(seed)
        rand = lambda *s, std=1.0, dt=torch.float32: (std * torch.randn(*s, generator=g)).to(DEVICE, dt)  # noqa: E731
        rows = people * frames
        self.dtype = dtype
        self.leaves = {
            "basis": rand(people, n, basis, dt=dtype), "gain": rand(rows, basis), "bias": rand(rows, hidden),
            "f": rand(people, n, 48, dt=dtype),
            "w1": rand(hidden, basis, std=0.2), "w2": rand(48, hidden, std=0.1), "b2": rand(48, std=0.1),
            "u1": rand(96, 48, std=0.2), "c1": rand(96, std=0.2), "u2": rand(14, 96, std=0.2), "c2": rand(14),
            "prior": rand(1 if prior == "shared" else people, n, 14),
        }  # fmt: skip
        self.weights = {k: rand(rows, n, *s, std=1.0) for k, s in
                        zip((*Attributes._fields, "delta"), ((3,), (4,), (3,), (), (3,), (48,)), strict=True)}  # fmt: skip

    def run(self, op, dtype=None, psi=True):
        """{outputs}, {gradients of Σ weights · outputs} of `op`, features and weights in `dtype` (default: as they are)."""
        x = {k: v.detach().clone() for k, v in self.leaves.items()}
        if dtype is not None:
            x = {k: v.to(dtype) if dtype == torch.float64 or k not in ("prior",) else v for k, v in x.items()}
        x = {k: v.requires_grad_() for k, v in x.items()}
        phi = Phi(x["u1"], x["c1"], x["u2"], x["c2"])
        if psi:
            args = (x["basis"], x["gain"], x["bias"], x["f"], Psi(x["w1"], x["w2"], x["b2"]), phi, x["prior"])
            attributes, delta = op.local_fusion(*args)
            out = {**attributes._asdict(), "delta": delta}
        else:
            out = op.decode(x["f"], phi, x["prior"])._asdict()
        sum((self.weights[k].to(v.dtype) * v).sum() for k, v in out.items()).backward()
        return out, {k: v.grad for k, v in x.items() if v.grad is not None}


def check(problem: Problem, psi=True):
    exact = problem.run(reference, torch.float64, psi)
    plain = problem.run(reference, problem.dtype, psi)
    fast = problem.run(module, None, psi)
    for want, twin, got in zip(exact, plain, fast, strict=True):
        assert want.keys() == got.keys()
        for key, true in want.items():
            error = lambda x, true=true: float((x.double() - true).norm() / true.norm())  # noqa: E731
            assert got[key].isfinite().all(), key
            limit = 2 * error(twin[key]) + FLOOR[problem.dtype]
            assert error(got[key]) <= limit, f"{key}: {error(got[key]):.2e}, the twin has {error(twin[key]):.2e}"


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    """What a kernel leaves unwritten is NaN."""
    empty = torch.empty
    monkeypatch.setattr(
        module.torch, "empty", lambda *a, **k: empty(*a, **k).fill_(float("nan")) if a else empty(*a, **k)
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("n", [1, 63, 65])
def test_equals_the_twin(n, dtype):
    check(Problem(n, dtype=dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_frames_of_several_people(dtype):
    check(Problem(37, people=2, frames=3, dtype=dtype, prior="own"))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_decoding_alone(dtype):
    check(Problem(65, people=2, dtype=dtype), psi=False)


@pytest.mark.parametrize("basis, hidden", [(8, 96), (16, 48), (96, 80)])
def test_other_widths(basis, hidden):
    check(Problem(65, basis=basis, hidden=hidden))


def test_inference_writes_no_delta_and_agrees():
    p = Problem(65, frames=2)
    x = p.leaves
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
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("n, people, frames", [(4097, 1, 1), (196_608, 1, 1), (16_384, 3, 4)])
def test_large_on_a_gpu(n, people, frames, dtype):
    check(Problem(n, people, frames, dtype))


@pytest.mark.gpu
def test_gradients_are_deterministic():
    p = Problem(16_384, frames=4, dtype=torch.bfloat16)
    (_, a), (_, b) = p.run(module), p.run(module)
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_attributes_are_contiguous():
    p = Problem(5)
    x = p.leaves
    out = module.decode(x["f"], Phi(x["u1"], x["c1"], x["u2"], x["c2"]), x["prior"])
    assert isinstance(out, Attributes) and all(t.is_contiguous() for t in out)
