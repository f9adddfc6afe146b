"""What makes the global designs global, each in its own way."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from helpers.designs import FIELDS, awake, close, make

import variants
import variants.attention

PLANES = ("global_triplane_attention", "global_interleaved_attention", "global_joint_attention")
MIXING = (*PLANES, "global_latent_attention")
SMALL = {name: {"dim": 32, "tokens": 4} for name in PLANES} | {"global_latent_attention": {"dim": 32, "latents": 6}}


def moved(a, b) -> torch.Tensor:
    """Which Gaussians [N] differ in anything."""
    return torch.stack([(getattr(a, f) != getattr(b, f)).flatten(2).any(-1).any(0) for f in FIELDS[:3]]).any(0)


def elsewhere(name: str, identity):
    """The identity with something changed in one place: m of one Gaussian, or one texel of the planes (f stays)."""
    if name == "global_latent_attention":
        m = identity.m.clone()
        m[:, 5] += 3 * torch.randn(m.shape[-1])
        return dataclasses.replace(identity, m=m)
    trunk = identity.planes.trunk.clone()
    trunk[:, :, 0, 0] += 3 * torch.randn(trunk.shape[1])
    return dataclasses.replace(identity, planes=dataclasses.replace(identity.planes, trunk=trunk))


@pytest.mark.parametrize("name", MIXING)
def test_one_place_reaches_all_gaussians(name, tiny):
    fusion, identity = awake(name, **SMALL[name]), tiny.identity(1)
    source, driving = tiny.code(1), tiny.code(1, seed=2)
    before = fusion.animate(fusion.prepare(identity, source), driving)
    after = fusion.animate(fusion.prepare(elsewhere(name, identity), source), driving)
    assert moved(before, after).all()


@pytest.mark.parametrize("name", PLANES)
def test_only_attention_carries_it_there(name, tiny):
    """Without it a token speaks to the Gaussians around it alone: the test above sees more than bilinear reading."""
    fusion, identity = awake(name, **SMALL[name]), tiny.identity(1)
    for module in fusion.modules():
        if isinstance(module, variants.attention.Attention):
            torch.nn.init.zeros_(module.out.weight)
    source, driving = tiny.code(1), tiny.code(1, seed=2)
    before = fusion.animate(fusion.prepare(identity, source), driving)
    after = fusion.animate(fusion.prepare(elsewhere(name, identity), source), driving)
    assert 0 < moved(before, after).float().mean() < 0.5


@pytest.mark.parametrize("source", [True, False])
@pytest.mark.parametrize("motion_tokens", [0, 4])
@pytest.mark.parametrize("name", MIXING)
def test_it_can_start_at_the_canonical_avatar(name, motion_tokens, source, tiny):
    fusion, identity = (
        make(name, init_scale=0.0, motion_tokens=motion_tokens, source=source, **SMALL[name]),
        tiny.identity(2),
    )
    close(fusion.animate(fusion.prepare(identity, tiny.code(2)), tiny.code(4, seed=2)), identity.repeat(2).canonical)


def test_portrait4ds_start_is_deaf_to_the_driver_alone(tiny):
    """Zero-initialised cross-attention: no expression yet, but the blocks already speak."""
    fusion, identity = (
        make("global_triplane_attention", cross_scale=0.0, **SMALL["global_triplane_attention"]),
        tiny.identity(1),
    )
    prepared = fusion.prepare(identity, tiny.code(1))
    one, other = (fusion.animate(prepared, tiny.code(1, seed=s)) for s in (2, 3))
    close(one, other, 0)
    assert moved(one, identity.canonical).all()


@pytest.mark.parametrize("motion_tokens", [0, 4])
@pytest.mark.parametrize("name", MIXING)
def test_the_sources_own_code_can_be_hidden(name, motion_tokens, tiny):
    identity, driving = tiny.identity(1), tiny.code(1, seed=2)
    sees, blind = (awake(name, motion_tokens=motion_tokens, source=s, **SMALL[name]) for s in (True, False))
    of = lambda fusion, seed: fusion.animate(fusion.prepare(identity, tiny.code(1, seed=seed)), driving)  # noqa: E731
    assert moved(of(sees, 3), of(sees, 4)).all()
    assert not moved(of(blind, 3), of(blind, 4)).any()
    assert sum(p.numel() for p in blind.parameters()) < sum(p.numel() for p in sees.parameters())


@pytest.mark.parametrize(
    ("name", "settings", "read"),
    [
        ("global_triplane_attention", {}, [64, 16] * 2),  # the motion tokens, then the plane tokens
        ("global_triplane_attention", {"source": False}, [32, 16] * 2),
        ("global_triplane_attention", {"motion_tokens": 9, "blocks": 3}, [9, 16] * 3),
        ("global_interleaved_attention", {}, [40] + [16, 40] * 4),  # the first stage is done: it knows no driver
        ("global_joint_attention", {}, [16 + 4] * 4),  # the driver is four tokens, heads and expression see each other
        ("global_latent_attention", {}, [64, 6] * 2),  # and no Gaussian
    ],
    ids=str,
)
def test_what_attends_to_how_many_tokens_in_a_frame(name, settings, read, tiny, monkeypatch):
    fusion = make(name, **SMALL[name] | settings)
    prepared, lengths, attend = fusion.prepare(tiny.identity(1), tiny.code(1)), [], F.scaled_dot_product_attention
    monkeypatch.setattr(
        F, "scaled_dot_product_attention", lambda q, k, v: lengths.append(k.shape[2]) or attend(q, k, v)
    )
    fusion.animate(prepared, tiny.code(1, seed=2))
    assert lengths == read


def test_the_latents_scatter_by_attention(tiny):
    """The docstring's last three equations written out, with queries, keys and values as such."""
    fusion = awake("global_latent_attention", **SMALL["global_latent_attention"])
    identity, source, driving = tiny.identity(2), tiny.code(2), tiny.code(4, seed=2)
    prepared, layer = fusion.prepare(identity, source), fusion.scatter
    z, motion = prepared.latents.repeat_interleave(2, 0), fusion.motion(prepared.source, driving)
    for block in fusion.blocks:
        z = block(z, motion)
    z = fusion.norm_latents(z)
    heads = lambda t: t.unflatten(-1, (3, 16)).transpose(1, 2)  # noqa: E731
    x = (fusion.basis(F.layer_norm(identity.m, (48,))) + fusion.place(identity.anchors)).repeat_interleave(2, 0)
    q, k, v = heads(layer.q(layer.norm1(x))), heads(layer.k(z)), heads(layer.v(z))
    x = x + layer.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
    x = x + layer.W2(F.softplus(layer.W1(layer.norm2(x))))
    expected = identity.repeat(2).f + fusion.out(x)
    close(fusion.animate(prepared, driving), identity.decode(expected), 2e-5)


@pytest.mark.parametrize("name", ["global_interleaved_attention", "global_triplane_attention"])
def test_published_sizes_are_settings(name):
    """And an order of magnitude larger than the defaults."""
    with torch.device("meta"):
        native, ours = make(name, **variants.design(name).native), make(name)
    assert sum(p.numel() for p in native.parameters()) > 10 * sum(p.numel() for p in ours.parameters())
