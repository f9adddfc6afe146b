"""Reprojection is zero for a consistent scene and sees inconsistency and occlusion; leakage has known values."""

import pytest
import torch

from i4d_bench.metrics.consistency import driver_leakage, identity_leakage, reprojection_error
from i4d_bench.types import Camera

SIDE = 48


def camera(shift=0.0):
    view = torch.eye(4)[None].clone()
    view[:, 0, 3] = -shift
    view[:, 2, 3] = 2.0
    f = 60.0
    K = torch.tensor([[[f, 0, SIDE / 2], [0, f, SIDE / 2], [0, 0, 1]]])
    return Camera(view, K, SIDE, SIDE)


def plane(cam, z=0.0, stripe=8.0):
    """A picture and depth of the textured plane at world depth z: colour depends on the world position only."""
    g = torch.arange(SIDE) + 0.5
    x, y = torch.meshgrid(g, g, indexing="xy")
    depth = torch.full((1, SIDE, SIDE), z) + cam.viewmats[:, 2, 3]
    world_x = (x - SIDE / 2) / 60.0 * depth - cam.viewmats[:, 0, 3]
    world_y = (y - SIDE / 2) / 60.0 * depth
    colour = torch.stack([0.5 + 0.4 * torch.sin(stripe * world_x), 0.5 + 0.4 * torch.cos(stripe * world_y),
                          0 * world_x + 0.5], -1)  # fmt: skip
    return colour, depth


def test_a_consistent_scene_has_no_error():
    a, b = camera(), camera(0.2)
    (rgb_a, depth_a), (rgb_b, depth_b) = plane(a), plane(b)
    assert reprojection_error(rgb_a, rgb_b, depth_a, depth_b, a, b).item() < 0.003
    assert reprojection_error(rgb_a, rgb_a, depth_a, depth_a, a, a).item() < 1e-5


def test_an_inconsistent_view_is_seen():
    a, b = camera(), camera(0.2)
    (rgb_a, depth_a), (rgb_b, depth_b) = plane(a), plane(b)
    moved, _ = plane(camera(0.3))
    assert reprojection_error(rgb_a, moved, depth_a, depth_b, a, b).item() > 0.05
    brighter = (rgb_b + 0.1).clamp(0, 1)
    assert reprojection_error(rgb_a, brighter, depth_a, depth_b, a, b).item() == pytest.approx(0.1, abs=0.01)


def test_hidden_surfaces_do_not_count():
    a, b = camera(), camera(0.2)
    (rgb_a, depth_a), (rgb_b, depth_b) = plane(a), plane(b)
    rgb_b[:, :24], depth_b[:, :24] = 0, 1.5  # something black in front of half of view b
    assert reprojection_error(rgb_a, rgb_b, depth_a, depth_b, a, b).item() < 0.02
    assert reprojection_error(rgb_a, rgb_b, depth_a, 0 * depth_b, a, b).isnan().all()


def test_identity_leakage_equals_the_mean_over_pairs():
    e = torch.nn.functional.normalize(torch.randn(2, 4, 7), dim=-1)
    pairs = [(i, j) for i in range(4) for j in range(i)]
    expected = torch.stack([1 - (e[:, i] * e[:, j]).sum(-1) for i, j in pairs]).mean(0)
    torch.testing.assert_close(identity_leakage(e), expected)
    assert identity_leakage(e[:, :1].expand(2, 4, 7)).tolist() == pytest.approx([0, 0], abs=1e-6)
    with pytest.raises(ValueError, match="two drivers"):
        identity_leakage(e[:, :1])


def test_driver_leakage_equals_the_mean_over_pairs_in_the_mask():
    frames = torch.rand(2, 5, 6, 6, 3)
    mask = torch.zeros(2, 6, 6)
    mask[:, 2:5, 1:4] = 1
    pairs = [(i, j) for i in range(5) for j in range(i)]
    inside = torch.stack([(frames[:, i] - frames[:, j]).abs()[:, 2:5, 1:4].mean((1, 2, 3)) for i, j in pairs])
    torch.testing.assert_close(driver_leakage(frames, mask), inside.mean(0))
    with pytest.raises(ValueError, match=r"0\.\.1"):
        driver_leakage(frames * 255, mask)
