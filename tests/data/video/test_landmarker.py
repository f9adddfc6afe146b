"""The face landmarker: what it returns on a real face, and what it says when it cannot work."""

import os
from pathlib import Path

import numpy as np
import pytest

from i4d_bench.data.video.landmarker import IBUG68, Landmarker, to68
from i4d_bench.heads.expressions import NAMES
from i4d_bench.types import UserError


def test_68_points_are_distinct_vertices_of_the_mesh():
    assert IBUG68.shape == (68,) and len(set(IBUG68.tolist())) == 68 and IBUG68.max() < 468
    mesh = np.arange(2 * 478 * 3).reshape(2, 478, 3)
    assert to68(mesh).shape == (2, 68, 3) and (to68(mesh)[1, 30] == mesh[1, 4]).all()


def test_a_damaged_model_is_named(tmp_path):
    pytest.importorskip("mediapipe")
    (tmp_path / "bad.task").write_bytes(b"not a model")
    with pytest.raises(UserError, match=r"bad\.task"):
        Landmarker(tmp_path / "bad.task")


def test_a_system_without_graphics_is_told_what_it_lacks(tmp_path, monkeypatch):
    vision = pytest.importorskip("mediapipe.tasks.python").vision

    def lacking(options):
        raise OSError("libEGL.so.1: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(vision.FaceLandmarker, "create_from_options", lacking)
    (tmp_path / "face.task").write_bytes(b"")
    with pytest.raises(UserError, match=r"libEGL\.so\.1.*install.*libegl1"):
        Landmarker(tmp_path / "face.task")


@pytest.mark.assets
@pytest.mark.unchecked
def test_pictures_of_another_type_are_refused():
    pytest.importorskip("mediapipe")
    with Landmarker(Path(os.environ["I4D_ASSETS"]) / "mediapipe" / "face_landmarker.task") as find:
        with pytest.raises(ValueError, match="uint8"):
            find(np.zeros((64, 64, 3)))


@pytest.mark.assets
def test_a_real_face_has_plausible_points_expression_and_pose():
    pytest.importorskip("mediapipe")
    from helpers.real_faces import SIDE, clip_frames

    frame = clip_frames("d0", 1)[0]
    with Landmarker(Path(os.environ["I4D_ASSETS"]) / "mediapipe" / "face_landmarker.task") as find:
        face, mirrored, nobody = find(frame), find(frame[:, ::-1]), find(np.zeros((64, 64, 3), np.uint8))
    assert nobody is None
    points = to68(face.landmarks)[:, :2]
    assert (points > 0).all() and (points < SIDE).all()
    parts = range(17, 27), range(36, 48), [30], range(48, 68), [8]
    brow, eye, nose, mouth, chin = (points[k, 1].mean() for k in parts)
    assert brow < eye < nose < mouth < chin
    assert points[36, 0] < points[45, 0] and points[0, 0] < points[16, 0]  # the subject's right is on the left
    assert face.blendshapes.shape == (52,) and 0 <= face.blendshapes.min() and face.blendshapes.max() <= 1
    assert face.blendshapes[NAMES.index("tongueOut")] == 0
    # A frontal face: OpenCV's axes against up and out of the face; in front of the camera.
    np.testing.assert_allclose(face.pose[:3, :3], np.diag([1, -1, -1]), atol=0.15)
    assert face.pose[2, 3] > 10
    # Mirroring swaps the subject's sides.
    left, right = NAMES.index("eyeLookOutLeft"), NAMES.index("eyeLookOutRight")
    assert abs(face.blendshapes[left] - mirrored.blendshapes[right]) < 0.15
