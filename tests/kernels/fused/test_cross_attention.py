"""Cross-attention in Triton against its twin in fp64: at most twice the error of the twin in the kernel's own precision."""

from __future__ import annotations

import functools

import pytest
import torch
from helpers.agreement import DEVICE, HALVES, agree

pytest.importorskip("triton")
import kernels
from kernels.cases import case, layers
from kernels.fused import cross_attention as module
from kernels.layout import Phi

CASE = case("cross_attention")
TYPES = [torch.float32, *HALVES]
inputs = functools.partial(CASE.inputs, device=DEVICE)


def arguments(x):
    phi = Phi(x["u1"], x["c1"], x["u2"], x["c2"])
    return x["x0"], x["keys"], x["score"], x["values"], x["f"], layers(x), phi, x["prior"]


@pytest.mark.parametrize(
    ("n", "storage"), [(1, torch.float32), (63, torch.float32), *((65, t) for t in TYPES)], ids=str
)
def test_equals_the_twin(n, storage):
    agree(CASE, inputs(n, storage=storage, tokens=4, layers=1))


@pytest.mark.parametrize("storage", TYPES, ids=str)
@pytest.mark.parametrize("tokens", [32, 40, 100])
def test_numbers_of_tokens(tokens, storage):
    """One chunk that is full, one that is not, and several; back, all together twice, then by rows and by tokens."""
    agree(CASE, inputs(20, storage=storage, tokens=tokens, layers=1, heads=2))


@pytest.mark.parametrize("tokens", [32, 100])
def test_programs_take_several_tiles(tokens):
    agree(CASE, inputs(200, tokens=tokens, layers=1))


@pytest.mark.parametrize("storage", TYPES, ids=str)
def test_layers_and_frames_of_several_people(storage):
    agree(CASE, inputs(20, people=2, frames=2, storage=storage, tokens=8, layers=2, heads=2, own_prior=True))


def test_other_widths():
    agree(CASE, inputs(65, tokens=5, layers=1, heads=1, hidden=40))


@pytest.mark.parametrize("tokens", [32, 100])
def test_large_scores_do_not_overflow(tokens):
    x = inputs(20, tokens=tokens, layers=1)
    x["score"] *= 1000
    with torch.no_grad():
        assert max(CASE.check(x).values()) <= 1


def test_tokens_may_be_views():
    """Keys, values and scores as slices of one product, tokens before layers: read where they are."""
    x = inputs(5, frames=2, tokens=8)
    with torch.no_grad():
        want = module.cross_attention(*arguments(x))[0]
        for key in ("keys", "score", "values"):
            last = x[key].shape[-1]
            x[key] = torch.cat([x[key], x[key]], -1).transpose(1, 3).contiguous().transpose(1, 3)[..., :last]
            assert not x[key].is_contiguous()
        got = module.cross_attention(*arguments(x))[0]
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def test_inference_writes_no_delta_and_agrees():
    x = inputs(65, frames=2, tokens=8)
    with torch.no_grad():
        got, delta = module.cross_attention(*arguments(x))
    assert delta is None
    for a, b in zip(got, module.cross_attention(*arguments(x))[0], strict=True):
        assert torch.equal(a, b) and a.is_contiguous()


@pytest.mark.unchecked  # torch.compile takes the functions as they are
@pytest.mark.parametrize("name", ["sdpa", pytest.param("flex", marks=pytest.mark.gpu)])
def test_attention_as_it_is_usually_written_is_the_same(name):
    x = inputs(130, people=2, frames=2)
    with torch.no_grad(), kernels.using("eager"):
        for got, want in zip(CASE.others[name](x), CASE.call(x), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("storage", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("n, frames, tokens", [(4097, 2, 32), (196_608, 1, 32), (4097, 1, 256)])
def test_large_on_a_gpu(n, frames, tokens, storage):
    agree(CASE, inputs(n, 1, frames, storage, tokens=tokens))


@pytest.mark.gpu
@pytest.mark.parametrize("tokens", [32, 256])
def test_gradients_are_deterministic(tokens):
    x = inputs(16_384, frames=4, storage=torch.bfloat16, tokens=tokens)
    a, b = (CASE.run(x, "triton", backward=True) for _ in range(2))
    assert all(torch.equal(a[k], b[k]) for k in a)
