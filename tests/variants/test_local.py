"""What the local designs promise beyond the contract of every design: who depends on what, and what makes each of them itself."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F

import variants
from i4d_bench.types import Gaussians, Identity, MotionCode
from kernels.reference import multiply
from variants import Fusion

LOCAL = (
    "local_adaln",
    "local_bilinear",
    "local_blendshapes",
    "local_film",
    "local_mlp",
    "local_nobasis",
    "local_part_blendshapes",
    "local_spatial",
)
FIELDS = ("means", "quats", "scales", "opacities", "colors")


def design(name: str, **settings) -> Fusion:
    torch.manual_seed(0)
    return variants.create(name, **settings)


def animated(fusion: Fusion, identity: Identity, source: MotionCode, driving: MotionCode) -> Gaussians:
    return fusion.animate(fusion.prepare(identity, source), driving)


def change(fusion: Fusion, identity: Identity, source: MotionCode, driving: MotionCode) -> torch.Tensor:
    """δf [F,N,48], as training records it."""
    delta = animated(fusion, identity, source, driving).delta
    assert delta is not None
    return delta


def close(a: Gaussians, b: Gaussians, tolerance: float = 1e-5):
    for f in FIELDS:
        torch.testing.assert_close(getattr(a, f), getattr(b, f), rtol=tolerance, atol=tolerance)


def changed(a: Gaussians, b: Gaussians) -> set[int]:
    """Which Gaussians are not the same to the last bit."""
    packed = lambda g: torch.cat([g.means, g.quats, g.scales, g.opacities[..., None], g.colors], -1)  # noqa: E731
    return set((packed(a) != packed(b)).any(-1).any(0).nonzero().flatten().tolist())


def changed_fields(a: Gaussians, b: Gaussians) -> list[str]:
    return [f for f in FIELDS if (getattr(a, f) != getattr(b, f)).any()]


def normed(x):
    return F.layer_norm(x, x.shape[-1:])


def code(*parts: MotionCode) -> torch.Tensor:
    """c for every Gaussian [B,1,512 or 1024]."""
    return torch.cat([p.motion for p in parts], -1)[:, None]


@pytest.mark.parametrize("name", LOCAL)
def test_what_one_gaussian_is_moves_it_alone(name, tiny):
    """local_nobasis reads f where the others read m; Φ reads f of the same Gaussian."""
    reads = "f" if name == "local_nobasis" else "m"
    identity, source, driving = tiny.identity(1), tiny.code(1), tiny.code(2, seed=2)
    other = getattr(identity, reads).clone()
    other[:, 5] += torch.randn(other.shape[-1], generator=torch.Generator().manual_seed(0))
    fusion = design(name)
    before = animated(fusion, identity, source, driving)
    after = animated(fusion, dataclasses.replace(identity, **{reads: other}), source, driving)
    assert changed(before, after) == {5}


@pytest.mark.parametrize("name", LOCAL)
def test_the_change_differs_between_gaussians_and_between_drivers(name, tiny):
    """Not one shift for all: what the driver changes is each Gaussian's own."""
    identity, source, drivers = tiny.identity(1), tiny.code(1), tiny.code(2, seed=2)
    out = animated(design(name), identity, source, drivers)
    one, other = (out.means - identity.canonical.means).unbind(0)
    moved = one - other
    assert moved.std(0).min() > 1e-6 and moved.abs().sum(-1).min() > 0


@pytest.mark.parametrize("name", LOCAL)
def test_it_can_start_at_the_canonical_avatar(name, tiny):
    identity = tiny.identity(2)
    out = animated(design(name, init_scale=0.0), identity, tiny.code(2), tiny.code(6, seed=2))
    close(out, identity.repeat(3).canonical)


@pytest.mark.parametrize("name", LOCAL)
def test_the_sources_code_counts_unless_it_is_hidden(name, tiny):
    identity, driving = tiny.identity(1), tiny.code(2, seed=2)
    codes = tiny.code(1, seed=3), tiny.code(1, seed=4)
    seen, hidden = (design(name, source=s) for s in (True, False))
    assert changed(*(animated(seen, identity, c, driving) for c in codes))
    assert not changed(*(animated(hidden, identity, c, driving) for c in codes))
    shapes = [dict((k, p.shape) for k, p in d.named_parameters()) for d in (seen, hidden)]
    (k,) = [k for k in shapes[0] if shapes[0][k] != shapes[1][k]]
    assert shapes[0][k][1] - shapes[1][k][1] == 512, "the source's half of one layer is gone, and nothing else"


@pytest.mark.parametrize("name", LOCAL)
def test_it_has_about_as_many_parameters_as_local_adaln(name):
    assert sum(p.numel() for p in design(name).parameters()) == pytest.approx(110_016, rel=0.15)


@pytest.mark.parametrize("source", [True, False])
def test_local_mlp_reads_basis_and_code_side_by_side(source, tiny):
    fusion, identity = design("local_mlp", source=source), tiny.identity(2)
    codes = tiny.code(2), tiny.code(2, seed=2)
    c = code(*codes[not source :]).expand(-1, identity.m.shape[1], -1)
    delta = fusion.W2(F.softplus(fusion.W1(torch.cat([normed(identity.m), c], -1))))
    close(animated(fusion, identity, *codes), identity.decode(identity.f + delta))


def test_local_film_modulates_around_one_by_a_network_of_the_code(tiny):
    fusion, identity, codes = design("local_film"), tiny.identity(2), (tiny.code(2), tiny.code(2, seed=2))
    gamma, beta = fusion.V2(F.silu(fusion.V1(code(*codes)))).chunk(2, -1)
    x = fusion.W((1 + gamma) * normed(identity.m) + beta)
    delta = fusion.W2(F.softplus(fusion.W1(x)))
    close(animated(fusion, identity, *codes), identity.decode(identity.f + delta))


def test_local_blendshapes_blends_fixed_shapes_by_what_the_driver_gives(tiny):
    """B_k, seen by forcing ψ = e_k, sum up to δf with the ψ of any driver."""
    fusion, identity = design("local_blendshapes", blendshapes=3), tiny.identity(1)
    source, driving = tiny.code(1), tiny.code(5, seed=2)
    psi = fusion.V2(F.silu(fusion.V1(torch.cat([source.motion.expand(5, -1), driving.motion], -1))))
    delta = change(fusion, identity, source, driving)
    shapes = []
    fusion.V2.weight.data.zero_()
    for e in torch.eye(3):
        fusion.V2.bias.data.copy_(e)
        shapes.append(change(fusion, identity, source, driving[:1])[0])
    torch.testing.assert_close(delta, torch.einsum("fk,knd->fnd", psi, torch.stack(shapes)), rtol=1e-4, atol=1e-5)
    assert torch.linalg.matrix_rank(delta.flatten(1), rtol=1e-4) == 3, "five drivers, three blendshapes"


def test_local_blendshapes_bends_the_motion_basis(tiny):
    """B_k are no linear maps of LN(m), which would be local_bilinear."""
    fusion, identity = design("local_blendshapes"), tiny.identity(1)
    delta, basis = change(fusion, identity, tiny.code(1), tiny.code(1, seed=2))[0], normed(identity.m)[0]
    basis = F.pad(basis, (0, 1), value=1.0)
    fit = basis @ torch.linalg.lstsq(basis, delta, driver="gelsd").solution
    assert (delta - fit).norm() > 1e-3 * delta.norm()


@pytest.mark.parametrize("source", [True, False])
def test_local_bilinear_is_a_product_of_two_linear_readings(source, tiny):
    fusion, identity = design("local_bilinear", source=source), tiny.identity(2)
    codes = tiny.code(2), tiny.code(2, seed=2)
    delta = fusion.W(fusion.U(normed(identity.m)) * fusion.V(code(*codes[not source :])))
    close(animated(fusion, identity, *codes), identity.decode(identity.f + delta))


def test_local_bilinear_is_linear_in_the_code(tiny):
    fusion, identity = design("local_bilinear", source=False), tiny.identity(1)
    source, (a, b) = tiny.code(1), tiny.code(2, seed=2).motion.split(1)
    delta = lambda c: change(fusion, identity, source, MotionCode(c)) - fusion.W.bias  # noqa: E731
    torch.testing.assert_close(delta(2 * a - 3 * b), 2 * delta(a) - 3 * delta(b), rtol=1e-4, atol=1e-5)


def test_local_spatial_moves_scales_and_turns_the_canonical_gaussians(tiny):
    """The docstring's equations written out; what Φ makes of colour and opacity stays."""
    fusion, identity, codes = design("local_spatial"), tiny.identity(2), (tiny.code(2), tiny.code(2, seed=2))
    gamma, beta = F.linear(code(*codes), fusion.A.weight).chunk(2, -1)
    x = fusion.W(normed(identity.m) * gamma + beta)
    position, scale, turn = fusion.W2(F.softplus(fusion.W1(x))).split(3, -1)
    before, after = identity.canonical, animated(fusion, identity, *codes)
    torch.testing.assert_close(after.means, before.means + 0.05 * position, rtol=0, atol=1e-5)
    torch.testing.assert_close(after.scales, before.scales * torch.exp(0.5 * scale), rtol=1e-4, atol=0)
    turned = multiply(torch.cat([torch.ones_like(turn[..., :1]), 0.25 * turn], -1), before.quats)
    torch.testing.assert_close(after.quats, turned, rtol=0, atol=1e-5)
    assert changed_fields(identity.canonical, after) == ["means", "quats", "scales"]


def test_local_spatial_turns_in_the_avatars_axes_by_the_rotation_vector(tiny):
    """Δr = 0.1 rad about y for every Gaussian: their own axes turn so, however they lay before."""
    fusion, identity = design("local_spatial", init_scale=0.0), tiny.identity(1)
    with torch.no_grad():
        fusion.W2.bias[7] = 0.1 / 0.5
    after = animated(fusion, identity, tiny.code(1), tiny.code(1, seed=2))
    c, s = torch.cos(torch.tensor(0.1)), torch.sin(torch.tensor(0.1))
    R = torch.tensor([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    torch.testing.assert_close(rotation(after.quats), R @ rotation(identity.canonical.quats), rtol=0, atol=2e-4)


def rotation(quats):
    w, x, y, z = F.normalize(quats, dim=-1).unbind(-1)
    rows = [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
            2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
            2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]  # fmt: skip
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def test_local_nobasis_is_local_adaln_on_the_features(tiny):
    """With m := f they are the same; m itself is not read."""
    same = {"delta_scale": 1.0, "w_std": 0.14}
    without, paper = design("local_nobasis", **same), design("local_adaln", **same)
    identity, source, driving = tiny.identity(2), tiny.code(2), tiny.code(4, seed=2)
    nothing = dataclasses.replace(identity, m=torch.full_like(identity.m, float("nan")))
    features = dataclasses.replace(identity, m=identity.f)
    close(animated(without, nothing, source, driving), animated(paper, features, source, driving), 0)
