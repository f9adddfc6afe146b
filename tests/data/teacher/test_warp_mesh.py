"""How a photo is drawn anew: triangles, and what shows where an opening opens or closes."""

from __future__ import annotations

import numpy as np
import pytest

from i4d_bench.data.teacher import warp_mesh as mesh
from i4d_bench.data.teacher.warp_mesh import EYES, MOUTH, Canvas


def points(**rims: tuple[np.ndarray, float]) -> np.ndarray:
    """478 landmarks in a picture, of which these openings (numbers, height) lie side by side along lines of 10 pixels."""
    out = np.zeros((478, 3))
    for k, (numbers, height) in enumerate(rims.values()):
        out[numbers, 0] = 20 * k + np.linspace(0, 10, numbers.shape[1])
        bulge = np.sin(np.linspace(0, np.pi, numbers.shape[1]))
        out[numbers, 1] = 50 + np.array([[-0.5], [0.5]]) * height * bulge
    return out


def test_rims_run_from_corner_to_corner():
    for rims in (*EYES, MOUTH):
        assert (rims[0, [0, -1]] == rims[1, [0, -1]]).all() and len(np.unique(rims)) == rims.size - 2


def test_a_closing_opening_hides_and_an_opening_one_stretches():
    closed, opened = points(mouth=(MOUTH, 1.0)), points(mouth=(MOUTH, 4.0))
    np.testing.assert_allclose(mesh.uncovered(opened, closed, MOUTH), closed[MOUTH, :2])
    np.testing.assert_allclose(mesh.uncovered(closed, opened, MOUTH), closed[MOUTH, :2])


def test_the_mesh_and_its_ring_leave_holes_for_eyes_and_mouth_alone():
    pytest.importorskip("mediapipe")
    faces = mesh.triangles()
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), 1)
    pairs, count = np.unique(edges, axis=0, return_counts=True)
    ring = 478 + np.arange(len(mesh.OVAL))
    assert count.max() == 2
    assert set(pairs[count == 1].ravel()) == {*np.concatenate([r.ravel() for r in (*EYES, MOUTH)]), *ring}


def test_triangles_are_filled_and_later_ones_cover():
    canvas = Canvas.around(np.array([[2.0, 1.0], [12.0, 9.0]]), 10, 20)
    assert (canvas.left, canvas.top, canvas.width, canvas.height) == (2, 1, 8, 8)
    at = canvas.places()
    square = np.array([[0.0, 0.0], [40.0, 0.0], [0.0, 40.0], [40.0, 40.0]])
    canvas.draw(at, square, square + np.array([3.0, 0.0]), mesh.strip(2))
    np.testing.assert_allclose(at, canvas.places() + np.array([3, 0], np.float32), atol=1e-4)
    canvas.draw(at, square + np.array([6.0, 0.0]), np.zeros((4, 2)), mesh.strip(2))
    seen = canvas.pixels((at > 0).astype(np.float32))[0, :, 0]
    np.testing.assert_array_equal(seen, [1, 1, 1, 1, 0, 0, 0, 0])


def test_large_windows_have_one_sample_a_pixel():
    canvas = Canvas.around(np.array([[-50.0, 0.0], [9000.0, 3.0]]), 3000, 2000)
    assert canvas.fine == 1 and canvas.places().shape == (3, 3000, 2)
