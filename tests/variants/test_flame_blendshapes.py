"""What flame_blendshapes promises beyond the contract of every design: blendshapes, then skinning."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from helpers.heads import TinyHead

import variants
from i4d_bench.heads.flame import rodrigues
from i4d_bench.types import MotionCode, UserError


def design(**overrides):
    torch.manual_seed(0)
    return variants.create("flame_blendshapes", **overrides)


def animated(fusion, identity, source, driving):
    return fusion.animate(fusion.prepare(identity, source), driving)


def with_flame(code: MotionCode, **parts) -> MotionCode:
    return dataclasses.replace(code, flame=dataclasses.replace(code.flame, **parts))


@pytest.fixture
def source(tiny):
    """An expression without pose: skinning at rest."""
    code = tiny.code(1)
    return with_flame(code, pose=0 * code.flame.pose)


class Rigid(TinyHead):
    """Every vertex hangs on the root."""

    def __init__(self):
        super().__init__()
        self.weights = torch.eye(5)[torch.zeros(60, dtype=torch.long)]


def test_turning_the_root_turns_everything_rigidly(tiny, source):
    identity = dataclasses.replace(tiny.identity(1), head=Rigid())
    turn = torch.tensor([0.3, -0.8, 0.2])
    pose = source.flame.pose.clone()
    pose[:, :3] = turn
    got = animated(design(), identity, source, with_flame(source, pose=pose))
    R, joint, before = (
        rodrigues(turn),
        identity.head.joints(source.flame.shape, source.flame.expression)[0, 0],
        identity.canonical,
    )
    torch.testing.assert_close(got.means, (before.means - joint) @ R.T + joint, rtol=0, atol=1e-5)
    covariance = lambda g: (m := rotation(g.quats) * g.scales[..., None, :]) @ m.mT  # noqa: E731
    torch.testing.assert_close(covariance(got), R @ covariance(before) @ R.T, rtol=0, atol=1e-6)
    for name in ("scales", "opacities", "colors"):
        torch.testing.assert_close(getattr(got, name), getattr(before, name), rtol=0, atol=1e-6)


def rotation(quats):
    w, *v = torch.nn.functional.normalize(quats, dim=-1).unbind(-1)
    v = torch.stack(v, -1)
    return rodrigues(v / v.norm(dim=-1, keepdim=True) * 2 * torch.atan2(v.norm(dim=-1), w)[..., None])


def test_linear_in_the_coefficients_before_skinning(tiny, source):
    """Twice the coefficients, twice the change, in every attribute's own space."""
    identity, fusion = tiny.identity(1), design(init_scale=1.0)
    step = 0.1 * torch.randn(1, 6, generator=torch.Generator().manual_seed(4))
    at = lambda t: animated(  # noqa: E731
        fusion, identity, source, with_flame(source, expression=source.flame.expression + t * step)
    )
    linear = {
        "means": lambda g: g.means,
        "scales": lambda g: g.scales.log(),
        "quats": lambda g: g.quats,
        "opacities": lambda g: g.opacities.logit(),
        "colors": lambda g: g.colors,
    }
    zero, one, two = (at(t) for t in (0, 1, 2))
    for name, space in linear.items():
        change = space(one) - space(zero)
        assert change.abs().max() > 1e-3, f"{name} does not move"
        torch.testing.assert_close(space(two) - space(zero), 2 * change, rtol=1e-3, atol=2e-4, msg=name)


def test_gaussians_on_the_mesh_move_with_it_and_those_far_from_it_do_not(tiny, source):
    """With the learned blendshapes off, what is left is the mesh's own displacement."""
    head, fusion = TinyHead(), design(init_scale=0.0, neighbours=1)
    identity = dataclasses.replace(tiny.identity(1), head=head)
    mesh = head(*(getattr(source.flame, k) for k in ("shape", "expression", "pose")))
    means = torch.cat([mesh, torch.tensor([[[3.0, 0, 0]]])], 1)  # the last one: hair, far out
    n = means.shape[1]
    canonical = dataclasses.replace(identity.canonical.map(lambda t: t[:, :n]), means=means)
    f, m, anchors = (t[:, :n] for t in (identity.f, identity.m, identity.anchors))
    identity = dataclasses.replace(identity, canonical=canonical, f=f, m=m, anchors=anchors)
    driving = with_flame(source, expression=source.flame.expression + 1)
    got = animated(fusion, identity, source, driving).means
    moved = head(*(getattr(driving.flame, k) for k in ("shape", "expression", "pose")))
    assert (moved - mesh).norm(dim=-1).min() > 0.01
    torch.testing.assert_close(got[:, :-1], moved, rtol=0, atol=1e-3)
    torch.testing.assert_close(got[:, -1], means[:, -1], rtol=0, atol=1e-5)


def test_the_drivers_own_shape_does_not_leak(tiny, source):
    driving = tiny.code(1, seed=2)
    other = with_flame(driving, shape=driving.flame.shape + 1)
    fusion, identity = design(), tiny.identity(1)
    a, b = (animated(fusion, identity, source, d) for d in (driving, other))
    assert torch.equal(a.means, b.means)


@pytest.mark.parametrize("count", [3, 6, 20])
def test_heads_may_have_more_or_fewer_expressions_than_the_design_reads(tiny, source, count):
    fusion = design(n_expression=count)
    out = animated(fusion, tiny.identity(1), source, tiny.code(2, seed=2))
    assert out.means.isfinite().all() and len(out.means) == 2


def test_without_coefficients_one_sentence_says_so(tiny, source):
    fusion, identity = design(), tiny.identity(1)
    prepared = fusion.prepare(identity, source)
    with pytest.raises(UserError, match="driver's FLAME coefficients"):
        fusion.animate(prepared, dataclasses.replace(source, flame=None))
    with pytest.raises(UserError, match="parametric head"):
        fusion.prepare(dataclasses.replace(identity, head=None), source)
    with pytest.raises(UserError, match="source's FLAME coefficients"):
        fusion.prepare(identity, dataclasses.replace(source, flame=None))
