"""A checkout of ICT-FaceKit becomes the file of the ict world."""

from __future__ import annotations

import numpy as np
import pytest

from i4d_bench.assets import ICT, find
from i4d_bench.heads.ict_objs import NEUTRAL, convert, read
from i4d_bench.types import UserError

VERTICES = np.array([[0, 0, 1], [1, 0, 1], [1, 1, 1.5], [0, 1, 1], [0.5, 2, 1]])
TAIL = "vt 0.25 0.5\nvt 0.5 0.5\nvt 1 1\nvt 0 1\nusemtl M_Face\ns 1\nf 1/1/1 2/2/1 3/3/1 4/4/1\nf 4/4 3/3 5/2\n"


def obj(path, vertices) -> None:
    rows = "".join("v {:.6f} {:.6g} {:.6f}\n".format(*v) for v in vertices)
    path.write_text(f"# made by hand\nmtllib ICTFaceModelMaterial.mtl\no head\n{rows}vn 0 0 1\n{TAIL}")


def checkout(folder):
    inside = folder / "FaceXModel"
    inside.mkdir(parents=True)
    obj(inside / NEUTRAL, VERTICES)
    for k in range(3):
        obj(inside / f"identity{k:03d}.obj", VERTICES + 0.25 * (k + 1))
    for k, name in enumerate(("jawOpen", "browDown_L", "PupilDilate_R")):
        obj(inside / f"{name}.obj", VERTICES * [1, 1, 1 + k])
    (inside / "vertex_indices.json").write_text("{}")
    return folder


def test_shapes_are_offsets_and_triangles_repeat_a_corner(tmp_path):
    made = read(checkout(tmp_path / "ICT-FaceKit"))
    np.testing.assert_allclose(made["template"], VERTICES)
    np.testing.assert_allclose(made["identity"], np.full((3, 5, 3), 1.0) * np.array([0.25, 0.5, 0.75])[:, None, None])
    assert made["expression_names"].tolist() == ["PupilDilate_R", "browDown_L", "jawOpen"]
    np.testing.assert_allclose(made["expression"][0, :, 2], 2 * VERTICES[:, 2])
    assert made["faces_quad"].tolist() == [[0, 1, 2, 3], [3, 2, 4, 4]]
    assert made["faces_vt_quad"].tolist() == [[0, 1, 2, 3], [3, 2, 1, 1]]
    assert made["vt"].shape == (4, 2) and made["identity"].dtype == made["expression"].dtype == np.float16


def test_the_folder_of_the_files_will_do(tmp_path):
    assert read(checkout(tmp_path) / "FaceXModel")["template"].shape == (5, 3)


def test_what_is_no_checkout_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="no checkout of ICT-FaceKit"):
        read(tmp_path)
    inside = checkout(tmp_path / "a") / "FaceXModel"
    obj(inside / "identity001.obj", VERTICES[:4])
    with pytest.raises(UserError, match=r"identity001\.obj has 4 vertices"):
        read(tmp_path / "a")
    (inside / "identity001.obj").write_text("v 0 zero 1\n")
    with pytest.raises(UserError, match=r"identity001\.obj is no OBJ file"):
        read(tmp_path / "a")


def test_another_head_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(UserError, match="5 vertices"):
        convert(checkout(tmp_path / "a"), tmp_path / "out" / "ict.npz")
    assert not (tmp_path / "out").exists()


@pytest.mark.assets
def test_the_real_model_survives_the_way_through_obj_and_old_numbering_is_refused(tmp_path):
    with np.load(find(ICT)) as real:
        template, jaw = real["template"], real["expression"][real["expression_names"].tolist().index("jawOpen")]
        faces = real["faces_quad"] + 1

    def write(path, order):
        path.mkdir()
        shapes = {NEUTRAL: template, "identity000.obj": template, "jawOpen.obj": template + jaw}
        for name, vertices in shapes.items():
            rows = "".join("v {:.9g} {:.9g} {:.9g}\n".format(*v) for v in vertices[order])
            path.joinpath(name).write_text(
                rows + "vt 0 0\n" + "".join("f {}/1 {}/1 {}/1 {}/1\n".format(*f) for f in faces)
            )
        return path

    with np.load(convert(write(tmp_path / "now", np.arange(len(template))), tmp_path / "ict.npz")) as made:
        np.testing.assert_array_equal(made["template"], template)
        np.testing.assert_allclose(made["expression"][0], jaw, atol=2e-3)
    with pytest.raises(UserError, match="another order"):
        convert(write(tmp_path / "then", np.arange(len(template))[::-1]), tmp_path / "old.npz")
