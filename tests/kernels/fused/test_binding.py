"""Gaussians bound to triangles, and blended with a head, in Triton against their twins in fp64."""

from __future__ import annotations

import dataclasses
import functools

import pytest
import torch
from helpers.agreement import DEVICE, HALVES, agree

pytest.importorskip("triton")
from kernels import reference
from kernels.cases import case
from kernels.contract import Draw
from kernels.fused import segments
from kernels.layout import Bound

BIND, BLEND = case("bind_gaussians"), case("blend_gaussians")
SIZES = [(1, 1, 1), (63, 1, 2), (65, 2, 3), (129, 1, 9)]
"""Gaussians, people, frames of each: more than a tile, and more frames than a program goes through."""
small_bind = functools.partial(BIND.inputs, device=DEVICE, vertices=16, triangles=10)
small_blend = functools.partial(BLEND.inputs, device=DEVICE, vertices=16)


@pytest.mark.parametrize(("n", "people", "frames"), SIZES)
def test_bound_gaussians(n, people, frames):
    agree(BIND, small_bind(n, people, frames))


def test_vertices_in_rows_of_three():
    """As others than `flame_skinning` give them."""
    x = small_bind(65, 1, 2)
    agree(BIND, x | {"vertices": x["vertices"].contiguous()})
    x = small_blend(65, 1, 2)
    agree(BLEND, x | {"unposed": x["unposed"].contiguous()})


def test_triangles_without_an_extent_give_finite_gradients():
    """Gaussians on the others do not notice."""
    x = small_bind(65)
    x["faces"] = torch.arange(12, device=DEVICE, dtype=torch.int32).view(4, 3)
    x["triangles"] %= 4
    with torch.no_grad():
        x["vertices"][:, 1] = x["vertices"][:, 0]  # no first edge
        x["vertices"][:, 5] = 2 * x["vertices"][:, 4] - x["vertices"][:, 3]  # no height
        x["vertices"][:, 6:9] = x["vertices"][:, 6:7]  # a point
    got, want = (BIND.run(x, mode, backward=True) for mode in ("triton", "eager"))
    assert all(v.isfinite().all() for v in got.values())
    torch.testing.assert_close(got["d vertices"][..., 9:, :], want["d vertices"][..., 9:, :], rtol=1e-4, atol=1e-4)


def test_all_gaussians_on_one_owner():
    x = small_bind(300, 1, 2)
    agree(BIND, x | {"triangles": torch.zeros_like(x["triangles"])})
    x = small_blend(600, 1, 2)
    agree(BLEND, x | {"near": torch.zeros_like(x["near"])})


def test_gradients_of_some_inputs_alone():
    x = small_bind(65, 2, 2)
    for leaves in (("vertices",), ("means", "quats", "scales")):
        agree(dataclasses.replace(BIND, leaves=leaves), x)
    x = small_blend(65, 2, 2)
    for leaves in (("hidden",), ("hidden", "unposed"), ("hidden", "transforms")):
        agree(dataclasses.replace(BLEND, leaves=leaves), x)


def sums(rows, owners, count, weights=None):
    into, most = segments.zeros(len(rows), count, rows.device)
    most.copy_((rows if weights is None else rows * weights[..., None]).abs().amax((1, 2, 3)).view(torch.int32))
    return segments.segment_sums(rows, owners, weights, into, most)


@pytest.mark.filterwarnings("ignore:.*encountered in cast")
def test_sums_of_frames_of_any_magnitude():
    """Each frame as exact as fp32, however large its gradients; one that is not finite spoils itself alone."""
    draw = Draw.seeded(5, DEVICE)
    rows, owners = draw(5, 2, 200, 3), draw.below(7, 1, 2, 200)
    scale = torch.tensor([1e-36, 1e-12, 1, 1e34, float("nan")], device=DEVICE)[:, None, None, None]
    got = sums(rows * scale, owners, 8)
    want = torch.zeros(5, 8, 3, device=DEVICE, dtype=torch.double)
    want.index_add_(1, owners.flatten().long(), (rows * scale).flatten(1, 2).double())
    assert got[4].isnan().all() and not got[:, 7][:4].any()  # nobody's owner
    torch.testing.assert_close((got / scale[:, 0])[:4], (want / scale[:, 0]).float()[:4], rtol=1e-5, atol=1e-6)


def test_sums_do_not_depend_on_the_order():
    draw = Draw.seeded(6, DEVICE)
    rows, owners, order = draw(1, 1, 999, 3), draw.below(7, 1, 1, 999), torch.randperm(999, device=DEVICE)
    assert torch.equal(sums(rows, owners, 7), sums(rows[:, :, order], owners[:, :, order].contiguous(), 7))


def bound_on_a_mesh():
    """In fp64: vertices, faces, owners, and 65 Gaussians in space and in their triangles."""
    x = {k: v.double() if v.is_floating_point() else v for k, v in small_bind(65).items()}
    there = Bound(x["means"], x["quats"], x["scales"])
    local = reference.to_triangles(x["vertices"][0][x["faces"][x["triangles"]]], there)
    return x["vertices"], x["faces"], x["triangles"], there, local


def test_binding_undoes_what_made_it_local():
    """On the mesh it was bound on, a Gaussian is where it was, whatever the triangle."""
    vertices, faces, owners, there, local = bound_on_a_mesh()
    for a, b in zip(reference.bind_gaussians(vertices, faces, owners, local), there, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_bound_gaussians_follow_a_rigid_motion_and_a_growth_of_the_mesh():
    vertices, faces, owners, there, local = bound_on_a_mesh()
    R = reference.rodrigues(Draw.seeded(4, DEVICE)(3).double())
    got = reference.bind_gaussians(1.5 * vertices @ R.T + 0.3, faces, owners, local)
    torch.testing.assert_close(got.means, 1.5 * there.means @ R.T + 0.3, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(got.scales, 1.5 * there.scales, rtol=1e-9, atol=1e-9)
    turned = reference.multiply(reference.quaternion(R), there.quats)
    torch.testing.assert_close(
        got.quats * (got.quats * turned).sum(-1, keepdim=True).sign(), turned, rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize(("n", "people", "frames"), SIZES)
def test_blended_gaussians(n, people, frames):
    agree(BLEND, small_blend(n, people, frames))


@pytest.mark.parametrize("storage", HALVES, ids=str)
@pytest.mark.parametrize(("n", "people", "frames"), SIZES[1:3])
def test_blendshapes_stored_in_16_bits(n, people, frames, storage):
    agree(BLEND, small_blend(n, people, frames, storage))


@pytest.mark.parametrize("hidden", [16, 48, 96, 128])
def test_widths_of_the_hidden_layer(hidden):
    agree(BLEND, small_blend(65, 1, 2, hidden=hidden))


@pytest.mark.parametrize("near", [1, 5])
def test_other_numbers_of_neighbours(near):
    agree(BLEND, small_blend(65, 1, 2, hidden=16, near=near))


def test_a_width_that_is_no_multiple_of_16_is_refused():
    with pytest.raises(ValueError, match="multiple of 16"):
        BLEND.run(small_blend(5, hidden=20), "triton")


def test_extreme_logits_stay_finite_and_flat():
    """Beyond ±15 the opacity stands still: no gradient, as in the twin."""
    x = small_blend(4, hidden=16)
    x |= {"readout": 0 * x["readout"], "bias": torch.zeros(1, 16, device=DEVICE)}
    x["bias"][0, 10] = 100.0
    for mode in ("eager", "triton"):
        out = BLEND.run(x, mode, backward=True)
        assert out["3"].isfinite().all() and not out["d bias"][0, 0, 10]


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
    agree(BIND, BIND.inputs(n, 1, frames, device=DEVICE))
    for storage in (torch.float32, torch.bfloat16):
        agree(BLEND, BLEND.inputs(n, 1, frames, storage, DEVICE))


@pytest.mark.gpu
@pytest.mark.parametrize("of", [BIND, BLEND], ids=["bind", "blend"])
def test_gradients_are_the_same_in_every_run(of):
    x = of.inputs(65536, 1, 2, device=DEVICE)
    first, *others = (of.run(x, "triton", backward=True) for _ in range(5))
    assert all(torch.equal(first[k], other[k]) for other in others for k in first)
