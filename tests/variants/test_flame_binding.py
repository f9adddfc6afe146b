"""What flame_binding promises beyond the contract of every design: Gaussians carried rigidly by the nearest triangle."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from helpers.designs import Rigid, with_flame
from helpers.heads import TinyHead

import variants
from i4d_bench.heads.worlds import exported_head
from i4d_bench.types import UserError
from kernels.reference import multiply, quaternion, rodrigues
from variants.nearest import distance, leaves_of, nearest_triangles


def animated(identity, source, driving):
    fusion = variants.create("flame_binding")
    return fusion.animate(fusion.prepare(identity, source), driving)


def test_turning_the_head_turns_every_gaussian(tiny):
    identity, source = dataclasses.replace(tiny.identity(1), head=Rigid()), tiny.code(1)
    source = with_flame(source, pose=0 * source.flame.pose)
    turn, pose = torch.tensor([0.3, -0.8, 0.2]), source.flame.pose.clone()
    pose[:, :3] = turn
    got, before = animated(identity, source, with_flame(source, pose=pose)), identity.canonical
    R, joint = rodrigues(turn), identity.head.joints(source.flame.shape, source.flame.expression)[0, 0]
    torch.testing.assert_close(got.means, (before.means - joint) @ R.T + joint, rtol=0, atol=2e-5)
    turned = multiply(quaternion(R).expand_as(before.quats), before.quats)
    same = (got.quats * turned).sum(-1, keepdim=True).sign()  # q and −q are the same rotation
    torch.testing.assert_close(same * got.quats, turned, rtol=0, atol=2e-5)
    torch.testing.assert_close(got.scales, before.scales, rtol=1e-4, atol=1e-6)


def test_a_gaussian_on_a_triangle_stays_on_it(tiny):
    head, source, driving = TinyHead(), tiny.code(1), tiny.code(1, seed=2)
    centres = lambda code: head(code.flame.shape, code.flame.expression, code.flame.pose)[:, head.faces].mean(2)  # noqa: E731
    identity = tiny.identity(1)
    means = centres(source)
    canonical = dataclasses.replace(identity.canonical.map(lambda t: t[:, : means.shape[1]]), means=means)
    got = animated(dataclasses.replace(identity, head=head, canonical=canonical), source, driving)
    driven = with_flame(driving, shape=source.flame.shape)
    assert (centres(driven) - means).norm(dim=-1).min() > 1e-3
    torch.testing.assert_close(got.means, centres(driven), rtol=0, atol=1e-5)


def test_the_drivers_own_shape_does_not_leak(tiny):
    identity, source, driving = tiny.identity(1), tiny.code(1), tiny.code(1, seed=2)
    other = with_flame(driving, shape=driving.flame.shape + 1)
    assert torch.equal(animated(identity, source, driving).means, animated(identity, source, other).means)


def test_without_coefficients_one_sentence_says_so(tiny):
    fusion, identity, source = variants.create("flame_binding"), tiny.identity(1), tiny.code(1)
    prepared = fusion.prepare(identity, source)
    with pytest.raises(UserError, match="flame_binding needs the driver's FLAME coefficients"):
        fusion.animate(prepared, dataclasses.replace(source, flame=None))
    with pytest.raises(UserError, match="parametric head"):
        fusion.prepare(dataclasses.replace(identity, head=None), source)


def test_nearest_triangles_are_near():
    """On the embedded head, posed: nearly always the nearest of all, and what else is found is hardly further."""
    head, g = exported_head("procedural"), torch.Generator().manual_seed(0)
    code = (torch.randn(1, n, generator=g) * s for n, s in ((head.n_shape, 1), (head.n_expression, 0.5), (15, 0.1)))
    corners = head(*code)[:, head.faces]
    on = corners.mean(2)[:, torch.randint(0, len(head.faces), (400,), generator=g)]
    points = (
        on + torch.randn(1, 400, 3, generator=g) * torch.tensor([0.0, 0.005, 0.03, 0.15]).repeat(100)[None, :, None]
    )
    got = nearest_triangles(points, corners, leaves_of(head.v_template[head.faces].mean(1)))
    every = torch.cat([distance(part[:, None], corners) for part in points[0].split(50)]).sqrt()
    best, found = every.amin(1), every.gather(1, got[0, :, None])[:, 0]
    assert (found > best + 1e-6).float().mean() < 0.05
    assert (found - best).mean() < 2e-4, "canonical units: a twentieth of a millimetre"


def testdistance_to_a_triangle():
    """Above its inside, beside an edge, beyond a corner."""
    triangle = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    points = torch.tensor([[0.2, 0.2, 0.5], [0.5, -2.0, 0.0], [1.0, 1.0, 0.0], [4.0, 0.0, 4.0]])
    got = distance(points, triangle.expand(4, 3, 3))
    torch.testing.assert_close(got.sqrt(), torch.tensor([0.5, 2.0, 0.5**0.5, 5.0]))
    flat = torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]])
    assert distance(points, flat.expand(4, 3, 3)).isinf().all(), "a triangle without area has no frame"
