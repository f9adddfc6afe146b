"""What flame_residual promises beyond the contract of every design: flame_binding, corrected in every triangle's own frame."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from helpers.designs import FIELDS, Rigid, awake, close, differ, make, with_flame

from i4d_bench.types import Gaussians, UserError
from kernels.layout import Bound
from kernels.reference import bind_gaussians, multiply, quaternion, rodrigues, triangle_frames
from variants import flame_binding


def animated(fusion, identity, source, driving) -> Gaussians:
    return fusion.animate(fusion.prepare(identity, source), driving)


def test_without_a_residual_it_is_flame_binding(tiny):
    identity, source, driving = tiny.identity(2), tiny.code(2), tiny.code(6, seed=2)
    want = animated(make("flame_binding"), identity, source, driving)
    close(animated(make("flame_residual", init_scale=0.0), identity, source, driving), want)
    residual = animated(make("flame_residual"), identity, source, driving)
    assert all((getattr(residual, f) != getattr(want, f)).any() for f in FIELDS), "every attribute is corrected"


def test_it_is_its_equations(tiny):
    """The docstring's, written out; 106,621 parameters."""
    fusion, identity, source, driving = make("flame_residual"), tiny.identity(2), tiny.code(2), tiny.code(2, seed=2)
    assert sum(p.numel() for p in fusion.parameters()) == 106_621
    gamma, beta = F.linear(torch.cat([source.motion, driving.motion], -1), fusion.A.weight)[:, None].chunk(2, -1)
    x = fusion.W(F.layer_norm(identity.m, (48,)) * gamma + beta)
    position, scale, turn, logit, color = fusion.W2(F.softplus(fusion.W1(x))).split([3, 3, 3, 1, 3], -1)
    bound, corners = flame_binding.bound("flame_residual", identity, source)
    size = triangle_frames(corners)[2][..., None]
    local = Bound(
        bound.local.means + 0.05 * position / size,
        multiply(torch.cat([torch.ones_like(logit), 0.25 * turn], -1), bound.local.quats),
        bound.local.scales * torch.exp(0.5 * scale),
    )
    mesh = bound.head(driving.flame.expression, driving.flame.pose).vertices
    moved = bind_gaussians(mesh, bound.faces, bound.triangles, local)
    opacities = torch.sigmoid(torch.logit(bound.opacities.double()) + 0.5 * logit[..., 0]).float()
    close(animated(fusion, identity, source, driving), Gaussians(*moved, opacities, bound.colors + 0.1 * color), 1e-4)


def test_turning_the_head_turns_every_corrected_gaussian(tiny):
    """The motion code stays: what the network adds turns with the triangles."""
    fusion, identity, source = (
        awake("flame_residual"),
        dataclasses.replace(tiny.identity(1), head=Rigid()),
        tiny.code(1),
    )
    source = with_flame(source, pose=torch.zeros(1, 15))
    turn, pose = torch.tensor([0.3, -0.8, 0.2]), torch.zeros(1, 15)
    pose[:, :3] = turn
    before, after = (animated(fusion, identity, source, code) for code in (source, with_flame(source, pose=pose)))
    R, joint = rodrigues(turn), identity.head.joints(source.flame.shape, source.flame.expression)[0, 0]
    torch.testing.assert_close(after.means, (before.means - joint) @ R.T + joint, rtol=0, atol=5e-5)
    turned = multiply(quaternion(R).expand_as(before.quats), before.quats)
    same = (after.quats * turned).sum(-1, keepdim=True).sign()  # q and −q are the same rotation
    torch.testing.assert_close(same * after.quats, turned, rtol=0, atol=5e-5)
    torch.testing.assert_close(after.scales, before.scales, rtol=1e-4, atol=1e-6)
    assert torch.equal(after.opacities, before.opacities) and torch.equal(after.colors, before.colors)


def test_a_step_along_the_normal_has_its_length_in_canonical_units(tiny):
    """Whatever the size of the triangle: 0.05 on the source's mesh, and along the driven triangle's normal on any."""
    fusion, identity, source = make("flame_residual", init_scale=0.0), tiny.identity(1), tiny.code(1)
    still = make("flame_residual", init_scale=0.0)
    with torch.no_grad():
        fusion.W2.bias[1] = 1.0
    step = animated(fusion, identity, source, source).means - animated(still, identity, source, source).means
    torch.testing.assert_close(step.norm(dim=-1), torch.full_like(step[..., 0], 0.05), rtol=1e-3, atol=1e-5)
    driving = tiny.code(1, seed=2)
    step = animated(fusion, identity, source, driving).means - animated(still, identity, source, driving).means
    bound, _ = flame_binding.bound("flame_residual", identity, source)
    mesh = bound.head(driving.flame.expression, driving.flame.pose).vertices
    normal = triangle_frames(mesh[0, bound.faces.long()][bound.triangles.long()])[1][..., 1]
    torch.testing.assert_close(F.normalize(step, dim=-1), normal, rtol=0, atol=1e-3)


def test_both_codes_drive_it_and_the_drivers_shape_does_not(tiny):
    fusion, identity, source, driving = awake("flame_residual"), tiny.identity(1), tiny.code(1), tiny.code(1, seed=2)
    got, other = animated(fusion, identity, source, driving), tiny.code(1, seed=3)
    assert differ(got, animated(fusion, identity, source, dataclasses.replace(driving, motion=other.motion)))
    assert differ(got, animated(fusion, identity, source, dataclasses.replace(driving, flame=other.flame)))
    shifted = with_flame(driving, shape=driving.flame.shape + 1)
    close(got, animated(fusion, identity, source, shifted), 0)


def test_the_sources_motion_code_counts_unless_it_is_hidden(tiny):
    identity, source, driving = tiny.identity(1), tiny.code(1), tiny.code(2, seed=2)
    other = dataclasses.replace(source, motion=tiny.code(1, seed=3).motion)
    for seen in (True, False):
        fusion = make("flame_residual", source=seen)
        assert differ(*(animated(fusion, identity, c, driving) for c in (source, other))) == seen


def test_without_coefficients_one_sentence_says_so(tiny):
    fusion, identity, source = make("flame_residual"), tiny.identity(1), tiny.code(1)
    prepared = fusion.prepare(identity, source)
    with pytest.raises(UserError, match="flame_residual needs the driver's FLAME coefficients"):
        fusion.animate(prepared, dataclasses.replace(source, flame=None))
    with pytest.raises(UserError, match="flame_residual needs a parametric head"):
        fusion.prepare(dataclasses.replace(identity, head=None), source)
