"""What is nearest, by kernels: of all there is."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")
from kernels.check import nearest
from kernels.fused.nearest import nearest_points, nearest_triangles
from variants.nearest import distance, leaves_of

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


@pytest.mark.parametrize(("shared", "k"), [(True, 4), (False, 1), (False, 3)])
def test_points_come_nearest_first(shared, k):
    """For people of the same points and of their own; equal distances by their index."""
    points, among = draw(2, 45, 3), draw(2, 20, 3, seed=1)
    among = torch.cat([among, among[:, :5]], 1)[0 if shared else slice(None)]
    squares, indices = nearest_points(points, among, k)
    every = (points[:, :, None] - among[..., None, :, :]).square().sum(-1)
    want = every.sort(dim=-1, stable=True)
    torch.testing.assert_close(squares, want.values[..., :k])
    assert torch.equal(indices, want.indices[..., :k])


def test_the_nearest_triangle_is_found_always():
    """Of a crumpled sheet with triangles of no area, near and far, for two people of other shapes: whatever the leaves."""
    side = 9
    u, v = torch.meshgrid(*[torch.linspace(-1, 1, side)] * 2, indexing="ij")
    sheet = torch.stack([u, v, 0 * u], -1).flatten(0, 1).to(DEVICE)
    corner = torch.arange(side * side).view(side, side)
    a, b, c, d = (t.flatten() for t in (corner[:-1, :-1], corner[:-1, 1:], corner[1:, :-1], corner[1:, 1:]))
    faces = torch.cat([torch.stack([a, b, c], -1), torch.stack([b, d, c], -1), torch.stack([a, a, b], -1)]).to(DEVICE)
    meshes = sheet + 0.1 * draw(2, side * side, 3)
    corners = meshes[:, faces]
    points = torch.cat([corners[:, ::5].mean(2) + 0.05 * draw(2, 39, 3, seed=1), 3 * draw(2, 9, 3, seed=2)], 1)
    got = nearest_triangles(points, corners, leaves_of(sheet[faces].mean(1)))
    every = distance(points[:, :, None], corners[:, None])
    found, best = every.gather(-1, got[..., None])[..., 0], every.amin(-1)
    assert (found <= best * 1.0003 + 1e-9).all()
    tie = every <= best[..., None] * 1.00005
    centre = (points[:, :, None] - corners.mean(2)[:, None]).square().sum(-1)
    nearest = torch.where(tie, centre, torch.inf).amin(-1)
    assert (centre.gather(-1, got[..., None])[..., 0] <= nearest * 1.001 + 1e-9).float().mean() > 0.98


def test_a_triangle_alone_is_the_nearest():
    corners = draw(1, 1, 3, 3)
    assert nearest_triangles(draw(1, 5, 3, seed=1), corners, leaves_of(corners[0].mean(1))).eq(0).all()


def test_the_doctors_question_has_an_answer():
    assert nearest(DEVICE) == (1, 1)
