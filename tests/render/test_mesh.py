"""The ground-truth rasteriser: coverage, depth, which surface is in front, camera conventions."""

from __future__ import annotations

import numpy as np
import pytest

from i4d_bench.camera import RADIUS, look_at, project
from i4d_bench.heads.base import REGIONS, Surface
from i4d_bench.render import mesh

EYES, MOUTH = REGIONS.index("eyes"), REGIONS.index("mouth")
WHITE = mesh.Light(*(np.array(v, float) for v in ([0, 0, 1], [0] * 3, [0, 0, 1], [0] * 3, [0.5] * 3, [0.5] * 3)))


def square(half: float, z: float, at=(0.0, 0.0)):
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half + at
    return np.c_[corners, np.full(4, z)], np.array([[0, 1, 2], [0, 2, 3]])


def draw(*squares, size=64, yaw=0.0, pitch=0.0):
    """Squares (vertices, faces), the k-th with region k + 1 and its own primary colour."""
    vertices = np.concatenate([v for v, _ in squares])
    faces = np.concatenate([f + 4 * k for k, (_, f) in enumerate(squares)])
    regions = np.repeat(np.arange(1, len(squares) + 1), 2).astype(np.uint8)
    albedo = np.repeat(np.eye(3)[: len(squares)], 4, 0)
    surface = Surface(np.tile([0, 0, 1.0], (len(vertices), 1)), albedo, np.zeros(len(vertices)))
    view, K = look_at(yaw, pitch, size)
    return mesh.render_mesh(vertices, faces, surface, regions, view, K, size, size, WHITE), view, K


def test_a_square_covers_its_area_at_its_depth():
    half, z, size = 0.2, 0.1, 96
    image, _, K = draw(square(half, z), size=size)
    side = 2 * half * K[0, 0] / (RADIUS - z)
    assert image.alpha.sum() == pytest.approx(side**2, rel=0.02)
    inside = image.alpha == 1
    np.testing.assert_allclose(image.depth[inside], RADIUS - z, rtol=1e-5)
    assert (image.depth[image.alpha == 0] == 0).all() and not image.rgb[image.alpha == 0].any()


@pytest.mark.parametrize("order", [1, -1])
def test_what_is_nearer_hides_what_is_behind(order):
    small, large = square(0.1, 0.2), square(0.3, 0.0)
    image, *_ = draw(*(small, large)[::order])
    middle = image.rgb[32, 32]
    assert middle.argmax() == (0 if order == 1 else 1)
    assert image.depth[32, 32] == pytest.approx(RADIUS - 0.2, rel=1e-5)
    assert image.region[32, 32] == (1 if order == 1 else 2)


def test_left_is_right_and_up_is_up():
    """x runs to the subject's left, which a frontal camera shows on the right; y runs up, rows run down."""
    image, view, K = draw(square(0.05, 0, at=(0.2, 0.3)))
    rows, columns = np.nonzero(image.alpha)
    x, y = project(np.array([[0.2, 0.3, 0.0]]), view, K)[0]
    assert x > 32 and y < 32
    assert columns.mean() + 0.5 == pytest.approx(x, abs=0.5) and rows.mean() + 0.5 == pytest.approx(y, abs=0.5)


def test_positive_yaw_sees_the_left_side():
    nose = np.array([[0.0, 0.0, 0.3]])
    view, K = look_at(30, 0, 64)
    assert project(nose, view, K)[0, 0] < 32, "from the subject's left, the nose points to the image's left"
    assert np.allclose(view[:3, :3] @ view[:3, :3].T, np.eye(3)) and np.linalg.det(view[:3, :3]) == pytest.approx(1)


def test_shade_follows_the_light_and_backs_are_lit_like_fronts():
    vertices, faces = square(0.3, 0)
    view, K = look_at(0, 0, 32)
    dark = mesh.Light(*(np.array(v, float) for v in ([0, 0, 1], [1, 1, 1], [0, 0, 1], [0] * 3, [0] * 3, [0] * 3)))

    def bright(normal):
        surface = Surface(np.tile(normal, (4, 1)).astype(float), np.full((4, 3), 0.5), np.zeros(4))
        return mesh.render_mesh(vertices, faces, surface, np.ones(2, np.uint8), view, K, 32, 32, dark).rgb[16, 16, 0]

    assert bright([0, 0, 1]) > bright([1, 0, 0.3]) > 0
    assert bright([0, 0, -1]) == pytest.approx(bright([0, 0, 1]))
