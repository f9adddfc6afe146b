"""Gaussians bound to triangles, and blended with a head, in Triton against their twins in fp64."""

from __future__ import annotations

import functools

import pytest
import torch
from heads import DEVICE, Rand, check, outputs_and_gradients

pytest.importorskip("triton")
from kernels import reference
from kernels.fused import binding, blendshapes, segments
from kernels.reference import Attributes, Binding, Bound

HALVES = [torch.float16] + ([torch.bfloat16] if DEVICE == "cuda" else [])
CASES = [(1, 1, 1), (63, 1, 2), (65, 2, 3), (129, 1, 9)]
"""Gaussians, people, frames of each: more than a tile, and more frames than a program goes through."""


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    """What a kernel leaves unwritten is NaN."""
    empty, like = torch.empty, torch.empty_like
    for module in (binding, blendshapes, segments):
        monkeypatch.setattr(module.torch, "empty", lambda *a, **k: empty(*a, **k).fill_(float("nan")))
        monkeypatch.setattr(module.torch, "empty_like", lambda *a, **k: like(*a, **k).fill_(float("nan")))


def bind(n, people, frames, vertices=30, triangles=20):
    rand = Rand(0)
    corners = torch.stack([torch.randperm(vertices, generator=rand.generator)[:3] for _ in range(triangles)]).to(DEVICE)
    owners = rand.below(triangles, people, n)
    leaves = {
        "vertices": rand(people * frames, vertices, 3), "means": rand(people, n, 3), "quats": rand(people, n, 4),
        "scales": rand(people, n, 3).exp(),
    }  # fmt: skip

    def op(function, x):
        return function(x["vertices"], corners, owners, Bound(x["means"], x["quats"], x["scales"]))

    run = lambda f, dtype: outputs_and_gradients(functools.partial(op, f), leaves, dtype)  # noqa: E731
    twin = reference.bind_gaussians
    check(run(twin, torch.float64), run(twin, torch.float32), run(binding.bind_gaussians, torch.float32))


@pytest.mark.parametrize(("n", "people", "frames"), CASES)
def test_bound_gaussians(n, people, frames):
    bind(n, people, frames)


def test_binding_undoes_what_made_it_local():
    """On the mesh it was bound on, a Gaussian is where it was, whatever the triangle."""
    rand = Rand(3)
    vertices, faces, owners = (
        rand(1, 30, 3),
        rand.below(10, 20, 3) + torch.tensor([0, 10, 20]).to(DEVICE),
        rand.below(20, 1, 65),
    )
    there = Bound(rand(1, 65, 3), rand(1, 65, 4), rand(1, 65, 3).exp())
    local = reference.to_triangles(vertices[0][faces[owners]], there)
    for a, b in zip(reference.bind_gaussians(vertices, faces, owners, local), there, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_bound_gaussians_follow_a_rigid_motion_and_a_growth_of_the_mesh():
    rand = Rand(4)
    vertices, faces, owners = (
        rand(1, 30, 3),
        rand.below(10, 20, 3) + torch.tensor([0, 10, 20]).to(DEVICE),
        rand.below(20, 1, 65),
    )
    R = reference.rodrigues(rand(3))
    there = Bound(rand(1, 65, 3), rand(1, 65, 4), rand(1, 65, 3).exp())
    local = reference.to_triangles(vertices[0][faces[owners]], there)
    got = reference.bind_gaussians(1.5 * vertices @ R.T + 0.3, faces, owners, local)
    torch.testing.assert_close(got.means, 1.5 * there.means @ R.T + 0.3, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(got.scales, 1.5 * there.scales, rtol=1e-9, atol=1e-9)
    turned = reference.multiply(reference.quaternion(R), there.quats)
    torch.testing.assert_close(
        got.quats * (got.quats * turned).sum(-1, keepdim=True).sign(), turned, rtol=1e-9, atol=1e-9
    )


def blend(n, people, frames, hidden=64, near=4, storage=torch.float32, vertices=30):
    rand, rows = Rand(0), people * frames
    owners = Binding(
        rand.below(vertices, people, near, n), rand(people, near, n).softmax(1), (2 * rand(people, 5, n)).softmax(1)
    )
    leaves = {
        "means": rand(people, n, 3), "quats": rand(people, n, 4), "scales": rand(people, n, 3).exp(),
        "opacities": rand(people, n).sigmoid(), "colors": rand(people, n, 3),
        "hidden": rand(people, n, hidden).to(storage).double(), "readout": rand(rows, 16, hidden, std=0.05),
        "bias": rand(rows, 16, std=0.2), "unposed": rand(rows, vertices, 3),
        "transforms": torch.eye(4).to(DEVICE) + rand(rows, 5, 4, 4, std=0.2),
    }  # fmt: skip

    def op(function, x):
        base = Attributes(*(x[k] for k in Attributes._fields))
        own = Binding(owners.vertices, *(t.to(x["means"].dtype) for t in owners[1:]))
        return function(base, own, *(x[k] for k in ("hidden", "readout", "bias", "unposed", "transforms")))

    run = lambda f, dtypes: outputs_and_gradients(functools.partial(op, f), leaves, dtypes)  # noqa: E731
    stored = {k: storage if k == "hidden" else torch.float32 for k in leaves}
    twin = reference.blend_gaussians
    check(run(twin, torch.float64), run(twin, stored), run(blendshapes.blend_gaussians, stored), storage)


@pytest.mark.parametrize(("n", "people", "frames"), CASES)
def test_blended_gaussians(n, people, frames):
    blend(n, people, frames)


@pytest.mark.parametrize("storage", HALVES, ids=str)
@pytest.mark.parametrize(("n", "people", "frames"), CASES[1:3])
def test_blendshapes_stored_in_16_bits(n, people, frames, storage):
    blend(n, people, frames, storage=storage)


@pytest.mark.parametrize("hidden", [16, 48, 96, 128])
def test_widths_of_the_hidden_layer(hidden):
    blend(65, 1, 2, hidden)


@pytest.mark.parametrize("near", [1, 5])
def test_other_numbers_of_neighbours(near):
    blend(65, 1, 2, 16, near)


def test_a_width_that_is_no_multiple_of_16_is_refused():
    with pytest.raises(ValueError, match="multiple of 16"):
        blend(5, 1, 1, hidden=20)


def test_extreme_logits_stay_finite_and_flat():
    """Beyond ±15 the opacity stands still: no gradient, as in the twin."""
    rand = Rand(0)
    base = Attributes(
        *(rand(1, 4, *s).float() for s in ((3,), (4,), (3,))), torch.full((1, 4), 0.5).to(DEVICE), rand(1, 4, 3).float()
    )
    owners = Binding(rand.below(3, 1, 1, 4), rand(1, 1, 4).float(), rand(1, 5, 4).float())
    for function in (reference.blend_gaussians, blendshapes.blend_gaussians):
        bias = torch.zeros(1, 16, device=DEVICE)
        bias[0, 10] = 100.0
        bias.requires_grad_()
        out = function(
            base, owners, rand(1, 4, 16).float(), 0 * rand(1, 16, 16).float(), bias, rand(1, 3, 3).float(),
            torch.eye(4).to(DEVICE).expand(1, 5, 4, 4),
        )  # fmt: skip
        out.opacities.sum().backward()
        assert out.opacities.isfinite().all() and not bias.grad[0, 10]


@pytest.mark.parametrize("name", ["flame_binding", "flame_blendshapes"])
def test_the_designs_give_the_same_through_the_kernels(name, tiny):
    import kernels
    import variants

    torch.manual_seed(0)
    fusion = variants.create(name).to(DEVICE)
    identity, source, driving = tiny.identity(2, DEVICE), tiny.code(2, DEVICE), tiny.code(4, DEVICE, seed=2)
    results = {}
    for mode in ("eager", "triton"):
        with kernels.using(mode):
            results[mode] = fusion.animate(fusion.prepare(identity, source), driving)
    for field, got in vars(results["triton"]).items():
        torch.testing.assert_close(got, getattr(results["eager"], field), rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("n", [4097, 196608])
@pytest.mark.parametrize("frames", [1, 9])
def test_large(n, frames):
    bind(n, 1, frames, vertices=5023, triangles=9976)
    for storage in (torch.float32, torch.bfloat16):
        blend(n, 1, frames, storage=storage, vertices=5023)


@pytest.mark.gpu
def test_gradients_are_the_same_in_every_run():
    rand = Rand(0)
    vertices, faces, owners = rand(2, 5023, 3).float(), rand.below(5023, 9976, 3), rand.below(9976, 1, 65536)
    local = Bound(rand(1, 65536, 3).float(), rand(1, 65536, 4).float(), rand(1, 65536, 3).exp().float())
    first = None
    for _ in range(5):
        x = vertices.clone().requires_grad_()
        sum(t.square().sum() for t in binding.bind_gaussians(x, faces, owners, local)).backward()
        first = x.grad if first is None else first
        assert torch.equal(x.grad, first)
