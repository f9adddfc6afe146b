"""What makes flame_adaln, flame_uv and flame_vertices the designs they are, beyond the contract of every design.

(flame_binding's own, that a rigid motion of the mesh moves every Gaussian rigidly, is in test_flame_binding.)
"""

from __future__ import annotations

import dataclasses
import pickle
from functools import cache

import pytest
import torch
from helpers.designs import FIELDS, awake, close, differ, make
from helpers.flame import random_arrays
from helpers.heads import TinyHead

from i4d_bench.heads import flame
from i4d_bench.heads.worlds import exported_head
from i4d_bench.render import render
from i4d_bench.types import Camera, FlameCode, MotionCode, UserError
from kernels.layout import Skinned
from kernels.reference import multiply, quaternion, rodrigues
from variants import flame_uv
from variants.nearest import leaves_of, nearest_triangles
from variants.parametric import shaped
from variants.unwrap import barycentric, coordinates, texels, unwrap

DESIGNS = ("flame_adaln", "flame_uv", "flame_vertices")


@cache
def procedural():
    return exported_head("procedural")


def animated(fusion, identity, source, driving):
    return fusion.animate(fusion.prepare(identity, source), driving)


def with_flame(code: MotionCode, **parts) -> MotionCode:
    return dataclasses.replace(code, flame=dataclasses.replace(code.flame, **parts))


def at_rest(code: MotionCode) -> MotionCode:
    """Without pose nothing is skinned, wherever the expression puts the joints."""
    return with_flame(code, pose=torch.zeros_like(code.flame.pose))


def code_of(head, rows: int, seed: int = 1) -> MotionCode:
    g = torch.Generator().manual_seed(seed)
    rand = lambda *s: torch.randn(*s, generator=g)  # noqa: E731
    shape = rand(1, head.n_shape).expand(rows, -1)
    return MotionCode(rand(rows, 512), FlameCode(shape, 0.4 * rand(rows, head.n_expression), 0.1 * rand(rows, 15)))


def on(head, identity):
    return dataclasses.replace(identity, head=head)


@pytest.mark.parametrize("name", DESIGNS)
def test_any_flame_format_head_will_do(name, tiny):
    """The same weights on heads of 60 and 11,406 vertices with 6 and 40 expressions."""
    fusion, identity = awake(name), tiny.identity(2)
    for head, codes in ((TinyHead(), tiny.code), (procedural(), lambda *a, **k: code_of(procedural(), *a, **k))):
        prepared = fusion.prepare(on(head, identity), codes(2))
        with torch.no_grad():
            one, other = (fusion.animate(prepared, codes(4, seed=s)) for s in (2, 3))
        assert len(one.means) == 4 and all(getattr(one, f).isfinite().all() for f in FIELDS) and differ(one, other)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A head as FLAME's own pickles lay it out (random, 120 vertices, 300 + 100 components), and ICT-FaceKit's fit."""
    path = tmp_path_factory.mktemp("flame") / "generic_model.pkl"
    path.write_bytes(pickle.dumps(random_arrays()))
    return {"flame": lambda: flame.load(path), "ict": lambda: exported_head("ict")}


@pytest.mark.parametrize("which", ["flame", pytest.param("ict", marks=pytest.mark.assets)])
@pytest.mark.parametrize("name", (*DESIGNS, "flame_binding", "flame_blendshapes", "flame_residual"))
def test_heads_from_files_will_do(name, which, files, tiny):
    """The code that runs on the embedded head runs on a FLAME file and on ICT's fit: the source's code shows the source."""
    head, fusion = files[which](), make(name)
    identity, source, driving = on(head, tiny.identity(1)), code_of(head, 1), code_of(head, 2, seed=2)
    with torch.no_grad():
        out = animated(fusion, identity, source, driving)
        assert all(getattr(out, f).isfinite().all() for f in FIELDS) and differ(out[:1], out[1:])
        if fusion.neutral_is_canonical:
            close(animated(fusion, identity, source, source), identity.canonical, 1e-4)


@pytest.mark.parametrize("name", DESIGNS)
def test_the_drivers_shape_and_motion_code_have_no_way_in(name, tiny):
    fusion, identity, source, driving = awake(name), tiny.identity(1), tiny.code(1), tiny.code(2, seed=2)
    other = with_flame(driving, shape=driving.flame.shape + 1)
    other = dataclasses.replace(other, motion=other.motion + 1)
    source_too = dataclasses.replace(source, motion=source.motion + 1)
    close(animated(fusion, identity, source, driving), animated(fusion, identity, source_too, other), 0)


@pytest.mark.parametrize("name", DESIGNS)
def test_without_coefficients_one_sentence_says_so(name, tiny):
    fusion, identity, source = make(name), tiny.identity(1), tiny.code(1)
    prepared = fusion.prepare(identity, source)
    with pytest.raises(UserError, match=f"{name} needs the driver's FLAME coefficients"):
        fusion.animate(prepared, dataclasses.replace(source, flame=None))
    with pytest.raises(UserError, match=f"{name} needs a parametric head"):
        fusion.prepare(on(None, identity), source)


def test_flame_adaln_is_the_papers_psi(tiny):
    """Its docstring's equations written out, for a head of 6 expressions, and its parameter count."""
    fusion = make("flame_adaln")
    assert sum(p.numel() for p in fusion.parameters()) == 23_616
    identity, source, driving = tiny.identity(2), tiny.code(2), tiny.code(2, seed=2)
    unseen = torch.zeros(2, 44)
    psi = [torch.cat([8 * c.flame.expression, unseen, 32 * c.flame.pose[:, 3:]], 1) for c in (source, driving)]
    gamma, beta = (torch.cat(psi, 1) @ fusion.A.weight.T).chunk(2, -1)
    m = identity.m
    normed = (m - m.mean(-1, keepdim=True)) / torch.sqrt(m.var(-1, unbiased=False, keepdim=True) + 1e-5)
    x = fusion.W(normed * gamma[:, None] + beta[:, None])
    delta = 0.01 * fusion.W2(torch.log1p(torch.exp(fusion.W1(x))))
    assert delta.std(1).max() > 1e-4, "Gaussians differ"
    close(animated(fusion, identity, source, driving), identity.decode(identity.f + delta))


@pytest.mark.parametrize("name", ["flame_adaln", "flame_uv"])
def test_it_can_start_at_the_canonical_avatar(name, tiny):
    fusion, identity = make(name, init_scale=0.0), tiny.identity(2)
    source, driving = at_rest(tiny.code(2)), at_rest(tiny.code(4, seed=2))
    want = identity.canonical.map(lambda t: t.repeat_interleave(2, 0))
    close(animated(fusion, identity, source, driving), want, 1e-5)
    assert differ(animated(make(name), identity, source, driving), want)


def test_flame_uv_is_its_equation(tiny):
    """Δ from the maps of source and driver, masked, read at uv, added to f: the docstring without its folding."""
    fusion, identity = awake("flame_uv"), tiny.identity(1)
    source, driving = at_rest(tiny.code(1)), at_rest(tiny.code(1, seed=2))
    p = fusion.prepare(identity, source)
    own = shaped(identity.head, source.flame.shape)
    maps = [
        flame_uv.position_map(own(c.flame.expression, c.flame.pose), p.corners, p.weights, 64)
        for c in (source, driving)
    ]
    basis = torch.nn.functional.layer_norm(identity.m, (48,))
    features = flame_uv.splat(torch.cat([identity.f, basis], -1), p.uv[:, 0], 64)
    x = torch.cat([features, maps[0], (maps[1] - maps[0]) / 0.005], 1)
    weight = torch.cat([fusion.identity.weight, fusion.position.weight], 1)
    delta = fusion.out(fusion.network(torch.nn.functional.conv2d(x, weight, fusion.identity.bias, padding=1)))
    read = torch.nn.functional.grid_sample(delta, p.uv, align_corners=False, padding_mode="border")[:, :, 0].mT
    mask = torch.sigmoid(fusion.mask(basis))
    close(fusion.animate(p, driving), identity.decode(identity.f + mask * read), 1e-4)


def test_flame_uv_turns_with_the_head(tiny):
    """A turning of the root changes nothing in the map and moves every Gaussian rigidly, whatever the expression."""
    head = procedural()
    fusion, identity, source, driving = (
        awake("flame_uv"),
        on(head, tiny.identity(1)),
        code_of(head, 1),
        code_of(head, 1, 2),
    )
    turn, pose = torch.tensor([0.3, -0.8, 0.2]), driving.flame.pose.clone()
    pose[:, :3] = 0
    before = animated(fusion, identity, source, with_flame(driving, pose=pose))
    pose = pose.clone()
    pose[:, :3] = turn
    got = animated(fusion, identity, source, with_flame(driving, pose=pose))
    R, joint = rodrigues(turn), head.joints(source.flame.shape, driving.flame.expression)[0, 0]
    torch.testing.assert_close(got.means, (before.means - joint) @ R.T + joint, rtol=0, atol=1e-4)
    unit = lambda q: torch.nn.functional.normalize(q, dim=-1)  # noqa: E731
    same = (unit(got.quats) * unit(multiply(quaternion(R).expand_as(before.quats), before.quats))).sum(-1).abs()
    torch.testing.assert_close(same, torch.ones_like(same), rtol=0, atol=1e-4)
    for name in ("scales", "opacities", "colors"):
        torch.testing.assert_close(getattr(got, name), getattr(before, name), rtol=0, atol=1e-3)


def test_flame_uvs_map_shows_the_mesh_where_it_is(tiny):
    """Vertices that move change the texels of their triangles and no others: what the network sees is local."""
    head = procedural()
    still = head(torch.zeros(1, 1), torch.zeros(1, 1), torch.zeros(1, 15))
    corners, weights = texels(still[0], head.faces, 32)
    mouth = (still[0] - torch.tensor([0, -0.045, 0.25])).norm(dim=-1) < 0.05
    moved = still + 0.01 * mouth[:, None]
    eye = torch.eye(4).expand(1, 5, 4, 4)
    a, b = (flame_uv.position_map(Skinned(v, v, eye), corners, weights, 32) for v in (still, moved))
    changed = (a != b).any(1)[0]
    assert torch.equal(changed.flatten(), (mouth[corners] & (weights > 0)).any(-1))
    assert 0 < changed.sum() < 60
    row, column = changed.nonzero().float().mean(0).tolist()
    assert abs(column - 15.5) < 1, "the face looks out of the middle of the map"
    torch.testing.assert_close(a[0, 1, int(row)].mean().item(), -0.045, rtol=0, atol=0.03)


def test_texels_see_the_outermost_surface():
    """A texel's point lies where the texel is, and before the teeth, not on them."""
    head = procedural()
    template, faces = head.v_template, head.faces
    corners, weights = texels(template, faces, 64)
    torch.testing.assert_close(weights.sum(-1), torch.ones(64**2))
    points = (weights[..., None] * template[corners]).sum(1)
    t = (torch.arange(64) + 0.5) / 32 - 1
    wanted = torch.stack(torch.meshgrid(t, t, indexing="ij")[::-1], -1).flatten(0, 1)
    off = (coordinates(points, template) - wanted).abs().amax(-1) * 32
    assert (off < 0.5).float().mean() > 0.9, "all but those above and beside the mesh"
    # Measured by the vertices: hardly ever does one within a quarter texel lie much further out.
    _, _, out = unwrap(template, template)
    _, _, mine = unwrap(points, template)
    near = (torch.cdist(wanted, coordinates(template, template)) < 0.25 / 32) & (off < 0.5)[:, None]
    furthest = torch.where(near, out, torch.zeros(())).amax(1)
    seen = near.any(1)
    assert seen.sum() > 100 and (mine[seen] > furthest[seen] - 0.03).float().mean() > 0.995


def test_gaussians_on_the_mesh_read_the_map_where_the_mesh_is_drawn(tiny):
    """On its template's place, with its joints; whichever of the triangles around an edge is taken."""
    head, fusion, source = procedural(), make("flame_uv"), code_of(procedural(), 1)
    mesh = head(source.flame.shape, source.flame.expression, source.flame.pose)
    chosen = head.faces[:: len(head.faces) // 60][:60]
    identity = tiny.identity(1)
    canonical = dataclasses.replace(identity.canonical.map(lambda t: t[:, :60]), means=mesh[:, chosen].mean(2))
    f, m, anchors = (t[:, :60] for t in (identity.f, identity.m, identity.anchors))
    identity = dataclasses.replace(identity, head=head, canonical=canonical, f=f, m=m, anchors=anchors)
    p = fusion.prepare(identity, source)
    want = coordinates(head.v_template[chosen].mean(1), head.v_template)
    assert ((p.uv[0, 0] - want).abs().amax(-1) < 1e-3).float().mean() > 0.9
    torch.testing.assert_close(p.joints[0], head.weights[chosen].mean(1), rtol=0, atol=0.1)


def test_the_map_sees_the_jaw_but_not_the_heads_own_turning():
    head, zero = procedural(), torch.zeros(1, 1)
    corners, weights = texels(head.v_template, head.faces, 32)

    def change(joint):
        pose = torch.zeros(1, 15)
        pose[:, 3 * joint : 3 * joint + 2] = 0.3
        still, turned = (shaped(head, zero)(zero, p) for p in (0 * pose, pose))
        still, turned = (flame_uv.position_map(m, corners, weights, 32)[0] for m in (still, turned))
        return (still - turned).norm(dim=0)[16:, 8:24]  # the upper front

    root, neck = change(0), change(1)
    assert root.max() < 1e-5 and neck.median() < 1e-5
    jaw, eye = change(2), change(3)
    assert jaw.median() < 1e-5 and eye.median() < 1e-5, "most of the upper front is neither"
    assert jaw.max() > 0.02 and eye.max() > 0.005


def test_splatting_averages_and_fills_from_around():
    """u counts columns, v rows; gaps take after the nearest."""
    uv = torch.tensor([[[-0.9, -0.9], [-0.9, -0.9], [0.9, 0.1], [0.1, 0.9]]])
    got = flame_uv.splat(torch.tensor([[[1.0], [3.0], [8.0], [4.0]]]), uv, 8)[0, 0]
    places = {(0, 0): 2.0, (1, 1): 2.0, (4, 7): 8.0, (7, 4): 4.0}
    torch.testing.assert_close([got[p].item() for p in places], list(places.values()), rtol=0, atol=0.05)
    assert got.isfinite().all() and (got >= 1).all() and (got <= 8).all()


def test_barycentric_weights_give_back_the_point():
    g = torch.Generator().manual_seed(0)
    corners, weights = torch.randn(50, 3, 3, generator=g), torch.rand(50, 3, generator=g).softmax(-1)
    normal = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    above = (weights[..., None] * corners).sum(1) + 0.3 * normal
    torch.testing.assert_close(barycentric(above, corners), weights, rtol=0, atol=1e-4)
    beyond = 2 * corners[:, 0] - corners[:, 1:].mean(1)
    torch.testing.assert_close(barycentric(beyond, corners), torch.eye(3)[0].expand(50, 3), rtol=0, atol=1e-3)


def test_flame_vertices_ride_on_the_mesh_and_leave_the_lifted_alone(tiny):
    """Beside the canonical avatar as it is, one Gaussian a vertex, always as far from it; only its place moves."""
    fusion, identity, source, driving = awake("flame_vertices"), tiny.identity(2), tiny.code(2), tiny.code(6, seed=2)
    with torch.no_grad():
        fusion.out.weight.mul_(100)  # as far from the vertex as it may
    got, n = animated(fusion, identity, source, driving), identity.f.shape[1]
    lifted = identity.canonical.map(lambda t: t.repeat_interleave(3, 0))
    close(got.map(lambda t: t[:, :n]), lifted, 0)
    mesh = identity.head(source.flame.shape.repeat_interleave(3, 0), driving.flame.expression, driving.flame.pose)
    offset = (got.means[:, n:] - mesh).unflatten(0, (2, 3))
    assert offset.shape[2] == 60 and (mesh[0] - mesh[1]).norm(dim=-1).min() > 1e-3
    torch.testing.assert_close(offset, offset[:, :1].expand_as(offset), rtol=0, atol=1e-6)
    assert 0.02 < offset.abs().max() < 0.0501
    for name in ("quats", "scales", "opacities", "colors"):
        added = getattr(got, name)[:, n:].unflatten(0, (2, 3))
        assert torch.equal(added, added[:, :1].expand_as(added)) and not torch.equal(added[0], added[1])


def test_flame_vertices_of_a_fine_mesh_are_an_even_subset(tiny):
    head, identity, source = procedural(), on(procedural(), tiny.identity(1)), code_of(procedural(), 1)
    n = identity.f.shape[1]
    for most, count in ((5023, 5023), (100, 100), (10**6, 11406)):
        prepared = make("flame_vertices", max_vertices=most).prepare(identity, source)
        got = make("flame_vertices", max_vertices=most).animate(prepared, source)
        assert got.means.shape[1] == n + count and prepared.vertices.unique().numel() == count
        assert prepared.vertices[0] == 0 and prepared.vertices[-1] == len(head.v_template) - 1
        assert prepared.vertices.diff().max() - prepared.vertices.diff().min() <= 1


def test_flame_vertices_can_start_with_nearly_the_canonical_picture(tiny):
    head = procedural()
    identity, source, driving = on(head, tiny.identity(1)), code_of(head, 1), code_of(head, 1, seed=2)
    view = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
    view[2, 3] = 2.7
    camera = Camera(view[None], torch.tensor([[[180.0, 0, 32], [0, 180, 32], [0, 0, 1]]]), 64, 64)
    picture = lambda g: render(g, camera, torch.zeros(1, 3), backend="cpu").rgb  # noqa: E731
    with torch.no_grad():
        want = picture(identity.canonical)
        added = [make("flame_vertices", init_scale=scale) for scale in (0.0, 1.0)]
        near, far = ((picture(animated(f, identity, source, driving)) - want).abs().mean() for f in added)
    assert near < 0.02 and near < far / 5
    fusion = make("flame_vertices", init_scale=0.0)
    animated(fusion, identity, source, driving).opacities.sum().backward()
    assert fusion.out.weight.grad.any(), "transparent, yet not out of reach"


def test_flame_vertices_learn_by_place_not_by_number(tiny):
    """The same template in another order is the same avatar: no weight belongs to a vertex's index."""
    identity, source, driving = tiny.identity(1), tiny.code(1), tiny.code(1, seed=2)
    head, order = TinyHead(), torch.randperm(60, generator=torch.Generator().manual_seed(0))
    for name in ("shapes", "expressions"):
        setattr(head, name, getattr(head, name)[:, order])
    head.template, head.weights, head.faces = head.template[order], head.weights[order], order.argsort()[head.faces]
    head.regressor = head.regressor[:, order]
    fusion, n = awake("flame_vertices"), identity.f.shape[1]
    a, b = (animated(fusion, on(h, identity), source, driving).map(lambda t: t[:, n:]) for h in (TinyHead(), head))
    close(a.map(lambda t: t[:, order]), b, 1e-5)


def test_nearest_leaves_need_no_particular_head():
    """A head of one triangle has a map too."""
    template = torch.tensor([[-0.1, -0.2, 0.2], [0.1, -0.2, 0.2], [0.0, 0.2, 0.2]])
    corners, weights = texels(template, torch.tensor([[0, 1, 2]]), 8)
    assert corners.shape == (64, 3) and weights.isfinite().all()
    flat = template[None, None]
    assert nearest_triangles(template[None], flat, leaves_of(flat[0].mean(1))).eq(0).all()
