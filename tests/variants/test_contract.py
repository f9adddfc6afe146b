"""The contract of DESIGN §2, over every registered design."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from helpers.designs import FIELDS, awake, close, differ, make, under_test

import kernels
import variants
import variants.nearest
from i4d_bench.speed.cost import cost
from i4d_bench.types import UserError
from variants.base import Fusion, register

ALL = under_test()


@pytest.mark.parametrize("name", ALL)
def test_declares_itself(name):
    cls = variants.design(name)
    assert cls.family in ("local", "global", "parametric", "control")
    assert cls.needs in ("motion", "flame", "none")
    assert cls.name in variants.names(cls.family)
    if cls.__module__.startswith("variants."):
        assert cls.__module__ == f"variants.{name}", "one design, one file of its name"
        assert "→" in (cls.__doc__ or "") and "\n" not in cls.__doc__, (
            "the class's docstring is its diagram, in one line"
        )


@pytest.mark.parametrize("name", ALL)
def test_shapes_ranges_and_gradients(name, tiny):
    fusion, identity = awake(name), tiny.identity(2)
    out = fusion.animate(fusion.prepare(identity, tiny.code(2)), tiny.code(6, seed=2))
    n = out.means.shape[1]
    assert n >= identity.f.shape[1], "a design may add Gaussians, not lose any"
    assert [tuple(getattr(out, f).shape) for f in FIELDS] == [(6, n, 3), (6, n, 4), (6, n, 3), (6, n), (6, n, 3)]
    assert all(getattr(out, f).dtype == torch.float32 and getattr(out, f).isfinite().all() for f in FIELDS)
    assert (out.scales > 0).all() and (out.opacities >= 0).all() and (out.opacities <= 1).all()
    g = torch.Generator().manual_seed(3)
    sum((getattr(out, f) * torch.randn(getattr(out, f).shape, generator=g)).sum() for f in FIELDS).backward()
    untouched = [k for k, p in fusion.named_parameters() if p.grad is None or not p.grad.any()]
    assert not untouched, f"no gradient reaches {untouched}"


@pytest.mark.parametrize("name", ALL)
def test_a_batch_of_frames_equals_a_loop(name, tiny):
    fusion, identity = awake(name), tiny.identity(2)
    source, driving = tiny.code(2), tiny.code(6, seed=2)
    prepared = fusion.prepare(identity, source)
    batched = fusion.animate(prepared, driving)
    for k in range(3):
        rows = torch.tensor([k, 3 + k])  # frame k of both identities
        close(fusion.animate(prepared, driving[rows]), batched[rows])


@pytest.mark.parametrize("name", ALL)
def test_people_do_not_mix(name, tiny):
    """An identity prepared beside another gives the same avatar as alone."""
    fusion, both = awake(name), tiny.identity(2)
    swapped = tiny.identity(2)
    swapped = dataclasses.replace(
        swapped,
        planes=dataclasses.replace(both.planes, trunk=both.planes.trunk.flip(0)),
        f=both.f.flip(0),
        m=both.m.flip(0),
        canonical=both.canonical.map(lambda t: t.flip(0)),
    )
    source, driving = tiny.code(2), tiny.code(2, seed=2)
    one = fusion.animate(fusion.prepare(both, source), driving)
    other = fusion.animate(fusion.prepare(swapped, source[torch.tensor([1, 0])]), driving[torch.tensor([1, 0])])
    close(one, other.map(lambda t: t.flip(0)), 1e-4)


@pytest.mark.parametrize("name", ALL)
def test_prepare_is_not_changed_by_driving(name, tiny):
    fusion = awake(name)
    prepared = fusion.prepare(tiny.identity(1), tiny.code(1))
    first = fusion.animate(prepared, tiny.code(1, seed=2))
    other = fusion.animate(prepared, tiny.code(1, seed=3))
    close(fusion.animate(prepared, tiny.code(1, seed=2)), first, 0)
    assert differ(first, other) == (variants.design(name).needs != "none"), "only a control ignores the driver"


@pytest.mark.parametrize("name", [n for n in ALL if variants.design(n).neutral_is_canonical])
def test_the_sources_own_code_gives_the_canonical_avatar(name, tiny):
    fusion, identity = awake(name), tiny.identity(2)
    close(fusion.animate(fusion.prepare(identity, tiny.code(2)), tiny.code(2)), identity.canonical, 2e-5)


@pytest.mark.parametrize("name", ALL)
def test_stored_in_16_bits_it_stays_close(name, tiny):
    fusion, identity = awake(name), tiny.identity(2)
    source, driving = tiny.code(2), tiny.code(4, seed=2)
    with torch.no_grad():
        exact = fusion.animate(fusion.prepare(identity, source), driving)
        fusion.storage = torch.bfloat16
        near = fusion.animate(fusion.prepare(identity, source), driving)
    for field, limit in zip(FIELDS, (0.01, 0.05, 0.005, 0.05, 0.05), strict=True):
        got, want = getattr(near, field), getattr(exact, field)
        assert got.dtype == torch.float32, f"{field} must leave the design in fp32"
        assert (got - want).abs().mean() < limit


@pytest.mark.parametrize("name", ALL)
def test_what_it_costs_does_not_depend_on_the_kernels_in_use(name, tiny):
    """torch's counters see nothing of what a Triton kernel does."""
    fusion, identity = make(name), tiny.identity(1)
    plain = cost(fusion, identity, tiny.code(1), tiny.code(1, seed=2))
    with kernels.using("triton"):
        assert cost(fusion, identity, tiny.code(1), tiny.code(1, seed=2)) == plain
    assert fusion.family == "control" or plain.flops_frame > 0


@pytest.mark.parametrize("name", ALL)
def test_state_dict_round_trip(name, tiny):
    fusion, again = awake(name), make(name, seed=5)
    again.load_state_dict(fusion.state_dict())
    identity, source, driving = tiny.identity(1), tiny.code(1), tiny.code(1, seed=2)
    close(
        again.animate(again.prepare(identity, source), driving),
        fusion.animate(fusion.prepare(identity, source), driving),
        0,
    )


@pytest.mark.gpu
@pytest.mark.parametrize("name", ALL)
def test_cpu_and_cuda_agree(name, tiny, monkeypatch):
    """The CPU looks for the nearest triangle among all, as the GPU does."""
    for limit in ("LEAVES", "FINALISTS"):
        monkeypatch.setattr(variants.nearest, limit, 10**6)
    fusion, source, driving = awake(name), tiny.code(2), tiny.code(4, seed=2)
    here = fusion.animate(fusion.prepare(tiny.identity(2), source), driving)
    fusion = fusion.cuda()
    there = fusion.animate(fusion.prepare(tiny.identity(2, "cuda"), source.to("cuda")), driving.to("cuda"))
    close(here, there.to("cpu"), 1e-3)


def test_unknown_names_and_settings_are_named():
    with pytest.raises(UserError, match="local_adaln"):
        variants.create("local_adalin")
    with pytest.raises(UserError, match="delta_scale"):
        variants.create("local_adaln", delta_scal=1.0)


def test_a_second_design_of_a_name_is_refused():
    with pytest.raises(ValueError, match="static"):

        @register("static")
        class Other(Fusion):
            pass


def test_local_adaln_is_the_papers_psi(tiny):
    """PAPER §1's equations written out, and its parameter count."""
    fusion = make("local_adaln")
    assert sum(p.numel() for p in fusion.parameters()) == 110_016
    identity, source, driving = tiny.identity(1), tiny.code(1), tiny.code(1, seed=2)
    c = torch.cat([source.motion, driving.motion], -1)
    gamma, beta = (c @ fusion.A.weight.T).chunk(2, -1)
    m = identity.m
    normed = (m - m.mean(-1, keepdim=True)) / torch.sqrt(m.var(-1, unbiased=False, keepdim=True) + 1e-5)
    x = fusion.W(normed * gamma[:, None] + beta[:, None])
    delta = 0.01 * fusion.W2(torch.log1p(torch.exp(fusion.W1(x))))
    close(fusion.animate(fusion.prepare(identity, source), driving), identity.decode(identity.f + delta))


@pytest.mark.parametrize(
    "settings", [{}, {"tokens": 5, "layers": 1}, {"source": False}, {"tokens": 5, "source": False}], ids=str
)
def test_global_cross_attention_is_attention(settings, tiny):
    """Its docstring's equations written out, with tokens, queries, keys and values as such."""
    fusion = awake("global_cross_attention", **settings)
    identity, source, driving = tiny.identity(2), tiny.code(2), tiny.code(2, seed=2)
    parts = [source, driving] if settings.get("source", True) else [driving]
    if "tokens" in settings:
        read = torch.cat([c.motion for c in parts], -1)[:, None].expand(-1, 5, -1)
    else:
        read = torch.cat([c.tokens for c in parts], -1)
    tokens = torch.stack([read[:, t] @ fusion.E[t].T for t in range(read.shape[1])], 1) + fusion.position
    heads = lambda t: t.unflatten(-1, (3, 16)).transpose(1, 2)  # noqa: E731
    x = fusion.motion(F.layer_norm(identity.m, (48,))) + fusion.place(identity.anchors)
    for layer in fusion.layers:
        q, k, v = heads(layer.q(layer.norm1(x))), heads(layer.k(tokens)), heads(layer.v(tokens))
        x = x + layer.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        x = x + layer.W2(F.softplus(layer.W1(layer.norm2(x))))
    expected = identity.decode(identity.f + fusion.out(x))
    close(fusion.animate(fusion.prepare(identity, source), driving), expected, 2e-5)


@pytest.mark.parametrize("tokens", [0, 5])
def test_global_cross_attention_can_start_at_the_canonical_avatar(tokens, tiny):
    fusion, identity = variants.create("global_cross_attention", tokens=tokens, init_scale=0.0), tiny.identity(2)
    close(fusion.animate(fusion.prepare(identity, tiny.code(2)), tiny.code(2, seed=2)), identity.canonical)


@pytest.mark.parametrize("name", ["local_adaln", "global_cross_attention"])
def test_changing_one_gaussian_changes_it_alone(name, tiny):
    """Both look at m of the Gaussian itself, whatever the family is called after."""
    fusion, identity = awake(name), tiny.identity(1)
    m = identity.m.clone()
    m[:, 5] += torch.randn(m.shape[-1])
    source, driving = tiny.code(1), tiny.code(1, seed=2)
    a = fusion.animate(fusion.prepare(identity, source), driving)
    b = fusion.animate(fusion.prepare(dataclasses.replace(identity, m=m), source), driving)
    changed = (a.means != b.means).any(-1)[0].nonzero().flatten().tolist()
    assert changed == [5]
