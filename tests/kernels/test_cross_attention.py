"""Cross-attention in Triton against its twin in fp64: at most twice the error of the twin in the kernel's own precision."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")
from kernels import reference
from kernels.fused import cross_attention as module
from kernels.reference import Attributes, Layers, Phi

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
DTYPES = [torch.float32, torch.float16] + ([torch.bfloat16] if CUDA else [])
FLOOR = {torch.float32: 2e-6, torch.float16: 2e-4, torch.bfloat16: 1e-3}
"""Of a tensor's scale: below it, errors are not compared."""
STORED = ("x0", "f")


class Problem:
    """Random weights, states and tokens; `leaves` are what gradients reach."""

    def __init__(
        self, n, people=1, frames=1, dtype=torch.float32, tokens=32, layers=1, heads=3, hidden=96, prior="shared", seed=0
    ):
        g = torch.Generator().manual_seed(seed)
        rand = lambda *s, std=1.0, dt=torch.float32: (std * torch.randn(*s, generator=g)).to(DEVICE, dt)  # noqa: E731
        rows = people * frames
        self.dtype = dtype
        self.leaves = {
            "x0": rand(people, n, 48, dt=dtype), "keys": rand(rows, layers, heads, tokens, 48, std=0.3),
            "score": rand(rows, layers, heads, tokens), "values": rand(rows, layers, heads, tokens, 48),
            "f": rand(people, n, 48, dt=dtype),
            "o": rand(layers, 48), "w1": rand(layers, hidden, 48, std=0.2), "b1": rand(layers, hidden),
            "w2": rand(layers, 48, hidden, std=0.1), "b2": rand(layers, 48), "out": rand(48, 48, std=0.1), "c": rand(48),
            "u1": rand(96, 48, std=0.2), "c1": rand(96, std=0.2), "u2": rand(14, 96, std=0.2), "c2": rand(14),
            "prior": rand(1 if prior == "shared" else people, n, 14),
        }  # fmt: skip
        self.weights = {k: rand(rows, n, *s) for k, s in
                        zip((*Attributes._fields, "delta"), ((3,), (4,), (3,), (), (3,), (48,)), strict=True)}  # fmt: skip

    def run(self, op, dtype=None):
        """{outputs}, {gradients of Σ weights · outputs} of `op`, everything in `dtype` (default: as it is)."""
        x = {k: v.detach().clone() for k, v in self.leaves.items()}
        if dtype is not None:
            x = {k: v.to(dtype) if dtype == torch.float64 or k != "prior" else v for k, v in x.items()}
        x = {k: v.requires_grad_() for k, v in x.items()}
        attributes, delta = op.cross_attention(*arguments(x))
        out = {**attributes._asdict(), "delta": delta}
        sum((self.weights[k].to(v.dtype) * v).sum() for k, v in out.items()).backward()
        return {k: v.detach() for k, v in out.items()}, {k: v.grad for k, v in x.items()}


def arguments(x):
    layers = Layers(*(x[k] for k in ("o", "w1", "b1", "w2", "b2", "out", "c")))
    phi = Phi(x["u1"], x["c1"], x["u2"], x["c2"])
    return x["x0"], x["keys"], x["score"], x["values"], x["f"], layers, phi, x["prior"]


def check(problem: Problem):
    exact = problem.run(reference, torch.float64)
    plain = problem.run(reference, problem.dtype)
    fast = problem.run(module)
    for want, twin, got in zip(exact, plain, fast, strict=True):
        assert want.keys() == got.keys()
        for key, true in want.items():
            error = lambda x, true=true: float((x.double() - true).norm() / true.norm())  # noqa: E731
            assert got[key].shape == true.shape and got[key].isfinite().all(), key
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
    check(Problem(n, dtype=dtype, tokens=4, layers=2))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("tokens", [32, 40, 100])
def test_numbers_of_tokens(tokens, dtype):
    """One chunk that is full, one that is not, and several."""
    check(Problem(130, dtype=dtype, tokens=tokens))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_frames_of_several_people(dtype):
    check(Problem(37, people=2, frames=3, dtype=dtype, tokens=8, layers=2, heads=2, prior="own"))


def test_other_widths():
    check(Problem(65, heads=1, hidden=40, tokens=5))


def test_large_scores_do_not_overflow():
    p = Problem(20, dtype=torch.float16, tokens=100)
    p.leaves["score"] *= 300
    check(p)


def test_tokens_may_be_views():
    """Keys, values and scores as slices of one product, tokens before layers: read where they are."""
    p = Problem(5, frames=2, tokens=8, layers=2)
    x = dict(p.leaves)
    with torch.no_grad():
        want = module.cross_attention(*arguments(x))[0]
        for key in ("keys", "score", "values"):
            x[key] = torch.cat([x[key], x[key]], -1).transpose(1, 3).contiguous().transpose(1, 3)[..., : x[key].shape[-1]]
            assert not x[key].is_contiguous()
        got = module.cross_attention(*arguments(x))[0]
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def test_inference_writes_no_delta_and_agrees():
    p = Problem(65, frames=2, layers=2)
    with torch.no_grad():
        got, delta = module.cross_attention(*arguments(p.leaves))
    assert delta is None
    for a, b in zip(got, module.cross_attention(*arguments(p.leaves))[0], strict=True):
        assert torch.equal(a, b) and a.is_contiguous()


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("n, frames, tokens", [(4097, 2, 32), (196_608, 1, 32), (4097, 1, 256)])
def test_large_on_a_gpu(n, frames, tokens, dtype):
    check(Problem(n, 1, frames, dtype, tokens, layers=2))


@pytest.mark.gpu
@pytest.mark.parametrize("tokens", [32, 256])
def test_gradients_are_deterministic(tokens):
    p = Problem(16_384, frames=4, dtype=torch.bfloat16, tokens=tokens, layers=2)
    (_, a), (_, b) = p.run(module), p.run(module)
    assert all(torch.equal(a[k], b[k]) for k in a)
