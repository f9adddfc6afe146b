"""FLAME-format heads: the equations against smplx, and the pickles that FLAME comes as."""

from __future__ import annotations

import pickle
import sys
import types

import numpy as np
import pytest
import scipy.sparse
import torch
from helpers.flame import JOINTS, PARENTS, E, S, V, changed, random_arrays
from scipy.spatial import ConvexHull
from scipy.spatial.transform import Rotation

from i4d_bench.heads import flame, placement
from i4d_bench.types import UserError


def model_of(arrays) -> flame.FlameModel:
    a = arrays
    return flame.FlameModel(
        a["v_template"], a["shapedirs"], a["posedirs"], a["J_regressor"], a["weights"], PARENTS, a["f"], S
    )


def test_equals_smplx():
    """smplx's blendshapes and skinning, which regress the joints from the shape with its expression; gradients too."""
    lbs = pytest.importorskip("smplx.lbs", reason="smplx is not installed")
    a, g = random_arrays(), torch.Generator().manual_seed(1)
    given = [torch.randn(4, n, generator=g) * s for n, s in ((S, 1), (E, 1), (15, 0.4))]
    t = {k: torch.tensor(np.asarray(v), dtype=torch.float32) for k, v in a.items() if k not in ("f", "kintree_table")}
    parents = torch.tensor(PARENTS)
    args = (t["v_template"], t["shapedirs"], t["posedirs"].reshape(-1, 36).T, t["J_regressor"], parents, t["weights"])
    model, weighting = model_of(a), torch.randn(4, V, 3, generator=g)
    results = []
    for call in (model, lambda shape, expression, pose: lbs.lbs(torch.cat([shape, expression], 1), pose, *args)[0]):
        leaves = [x.clone().requires_grad_() for x in given]
        vertices = call(*leaves)
        results.append((vertices, *torch.autograd.grad((vertices * weighting).sum(), leaves)))
    ours, theirs = results
    torch.testing.assert_close(ours[0], theirs[0], rtol=0, atol=1e-5)
    for got, wanted in zip(ours[1:], theirs[1:], strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


def test_joints_follow_shape_and_expression():
    a, g = random_arrays(), torch.Generator().manual_seed(1)
    shape, expression = torch.randn(2, S, generator=g), torch.randn(2, E, generator=g)
    model = model_of(a)
    still = torch.zeros(2, 15)
    wanted = torch.tensor(a["J_regressor"], dtype=torch.float32) @ model(shape, expression, still)
    torch.testing.assert_close(model.joints(shape, expression), wanted, rtol=0, atol=1e-5)


class Ch:
    """What a chumpy array looks like to pickle."""

    def __init__(self, x):
        self.x = x

    def __getstate__(self):
        return {"x": self.x, "_dirty_vars": set()}


def flame_pickle(tmp_path, monkeypatch, **extra):
    """A protocol-2 pickle with chumpy arrays and a sparse regressor, as FLAME's own files."""
    chumpy, ch = types.ModuleType("chumpy"), types.ModuleType("chumpy.ch")
    ch.Ch, chumpy.ch = Ch, ch
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "chumpy", chumpy)
        patch.setitem(sys.modules, "chumpy.ch", ch)
        patch.setattr(Ch, "__module__", "chumpy.ch")
        a = random_arrays()
        a |= {k: Ch(a[k]) for k in ("v_template", "shapedirs", "posedirs", "weights")}
        a["J_regressor"] = scipy.sparse.csc_matrix(a["J_regressor"])
        path = tmp_path / "generic_model.pkl"
        path.write_bytes(pickle.dumps(a | extra, protocol=2))
    return path


def test_reads_flames_own_pickle_without_chumpy(tmp_path, monkeypatch):
    path = flame_pickle(tmp_path, monkeypatch, bs_type="lrotmin")
    model, a = flame.load(path), random_arrays()
    assert (model.n_shape, model.n_expression) == (300, 100)
    joints = model.joints(torch.zeros(1, 1), torch.zeros(1, 1))[0]
    torch.testing.assert_close(joints[3:].mean(0), torch.tensor([0, 0.135, 0.187]), rtol=0, atol=1e-5)
    # The same head, in canonical units (38 cm) instead of metres.
    g = torch.Generator().manual_seed(1)
    args = [torch.randn(2, n, generator=g) * s for n, s in ((S, 1), (E, 1), (15, 0.4))]
    metres, canonical = model_of(a)(*args), model(*args)
    distance = lambda v: (v[:, 0] - v[:, 7]).norm(dim=-1)  # noqa: E731
    torch.testing.assert_close(distance(canonical), distance(metres) / 0.38, rtol=1e-4, atol=1e-5)


class Foreign:
    def __reduce__(self):
        import os

        return os.system, ("touch should-not-exist",)


def test_a_foreign_class_is_refused_by_name_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = flame_pickle(tmp_path, monkeypatch, extra=Foreign())
    with pytest.raises(UserError, match=r"(posix|os|nt)\.system"):
        flame.load(path)
    assert not (tmp_path / "should-not-exist").exists()


def resaved(protocol: int, sparse=scipy.sparse.csc_matrix) -> bytes:
    """A FLAME pickle that someone saved again without chumpy."""
    a = random_arrays()
    return pickle.dumps(a | {"J_regressor": sparse(a["J_regressor"])}, protocol=protocol)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("sparse", [scipy.sparse.csc_matrix, scipy.sparse.csr_matrix, scipy.sparse.csr_array])
def test_any_protocol_and_sparse_layout_gives_the_same_model(tmp_path, protocol, sparse):
    (tmp_path / "flame.pkl").write_bytes(resaved(protocol, sparse))
    got = flame.load(tmp_path / "flame.pkl").J_regressor.numpy()
    np.testing.assert_allclose(got, random_arrays()["J_regressor"], rtol=1e-6)


def test_pickles_of_old_scipy_and_numpy_are_read(tmp_path):
    """Modules have moved since: scipy.sparse.csc → scipy.sparse._csc, numpy.core → numpy._core."""
    content = resaved(2)
    for new, old in ((b"cscipy.sparse._csc\n", b"cscipy.sparse.csc\n"), (b"cnumpy._core.", b"cnumpy.core.")):
        content = content.replace(new, old)
    assert b"scipy.sparse.csc" in content and b"_core" not in content
    (tmp_path / "flame.pkl").write_bytes(content)
    assert flame.load(tmp_path / "flame.pkl").n_expression == E


def test_a_sparse_matrix_that_points_outside_itself_is_refused(tmp_path):
    """scipy's compiled code would write wherever the index says."""
    matrix = scipy.sparse.csc_matrix(random_arrays()["J_regressor"])
    matrix.indices[0] = 10**6
    (tmp_path / "flame.pkl").write_bytes(pickle.dumps(random_arrays() | {"J_regressor": matrix}))
    with pytest.raises(UserError, match=r"flame\.pkl"):
        flame.load(tmp_path / "flame.pkl")


def test_flat_pose_correctives_mean_the_same(tmp_path):
    """smplx keeps them as [36, V·3]."""
    a = random_arrays()
    (tmp_path / "flame.pkl").write_bytes(pickle.dumps(a | {"posedirs": a["posedirs"].reshape(-1, 36).T}))
    np.testing.assert_allclose(flame.load(tmp_path / "flame.pkl").posedirs, a["posedirs"] / 0.38, rtol=1e-6)


@pytest.mark.parametrize(
    "content", [b"", b"not a pickle", b"\x80\x02}q\x00", resaved(4)[:-5000], b"PK\x03\x04 cut off"]
)
@pytest.mark.parametrize("name", ["flame2023.pkl", "flame.npz"])
def test_a_damaged_file_is_one_sentence(tmp_path, content, name):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        flame.load(path)


def saved(path, arrays):
    path.write_bytes(pickle.dumps(arrays))
    return path


TURNS = {
    "metres": (np.eye(3), 1, ""),
    "centimetres": (np.eye(3), 100, "centimetres"),
    "millimetres": (np.eye(3), 1000, "millimetres"),
    "y and z negated": (np.diag([1, -1, -1]), 1, "y down, z out of the back;"),
    "z up": (np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]), 1, "y out of the back, z up;"),
    "z up, facing x, millimetres": (
        np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]]),
        1000,
        "millimetres, its axes are x out",
    ),
    "mirrored": (np.diag([-1, 1, 1]), 1, "x the subject's right, y up, z out of the face, mirrored"),
    "upside down by one sign": (np.diag([1, -1, 1]), 1, "y down, z out of the face, mirrored"),
}


@pytest.mark.parametrize("kind", TURNS)
def test_other_units_and_axes_give_the_same_head_and_a_note(tmp_path, kind, capsys):
    axes, scale, note = TURNS[kind]
    own = flame.load(saved(tmp_path / "own.pkl", random_arrays()))
    capsys.readouterr()
    other = flame.load(saved(tmp_path / "other.pkl", changed(random_arrays(), axes, scale)))
    assert note in capsys.readouterr().out.replace("\n", " ")
    g = torch.Generator().manual_seed(1)
    args = [torch.randn(2, n, generator=g) * s for n, s in ((S, 1), (E, 1), (15, 0.4))]
    torch.testing.assert_close(other(*args), own(*args), rtol=0, atol=1e-5)
    torch.testing.assert_close(other.origin, own.origin)


def test_every_way_to_name_flip_and_mirror_the_axes_is_told_from_the_others():
    a, joints = random_arrays(), np.array(JOINTS)
    for axes in placement.every_axes():
        turned = changed(a, axes, 100)
        got = placement.recognise(turned["v_template"], turned["shapedirs"], 100 * joints @ axes.T)
        np.testing.assert_allclose(got(turned["v_template"]), a["v_template"], atol=1e-12)


def test_triangles_of_a_mirrored_head_face_outwards_again(tmp_path):
    """Whether its writer turned them over or not."""
    a = random_arrays()
    a["f"] = ConvexHull(a["v_template"]).simplices
    a["f"] = np.where(_outwards(a)[:, None], a["f"], a["f"][:, ::-1])
    mirrored = changed(a, np.diag([-1, 1, 1]))
    for faces in (a["f"], a["f"][:, ::-1]):
        model = flame.load(saved(tmp_path / "f.pkl", mirrored | {"f": faces}))
        assert _outwards({"v_template": model.v_template.numpy(), "f": model.faces.numpy()}).all()


def _outwards(arrays):
    vertices = arrays["v_template"] - arrays["v_template"].mean(0)
    a, b, c = vertices[arrays["f"].T]
    return (a * np.cross(b, c)).sum(-1) > 0


def tilted(degrees):
    return Rotation.from_euler("z", degrees, degrees=True).as_matrix()


NO_HEADS = {
    "a hundredth": (lambda a: changed(a, np.eye(3), 0.01), "metres, centimetres, millimetres"),
    "metres for millimetres twice": (lambda a: changed(a, np.eye(3), 1e6), "metres, centimetres, millimetres"),
    "tilted": (lambda a: changed(a, tilted(40)), "nose, crown and neck"),
    "no head": (lambda a: a | {"v_template": a["v_template"][[0, 1, 2, 3, 4, *[0] * (V - 5)]]}, "nose, crown and neck"),
    "template alone in millimetres": (lambda a: a | {"v_template": 1000 * a["v_template"]}, "different units"),
}


@pytest.mark.parametrize("kind", NO_HEADS)
def test_what_is_no_head_in_any_known_unit_or_axes_is_refused(tmp_path, kind):
    change, why = NO_HEADS[kind]
    with pytest.raises(UserError, match=rf"other\.pkl.*{why}"):
        flame.load(saved(tmp_path / "other.pkl", change(random_arrays())))


def test_an_export_of_ours_that_somebody_scaled_is_refused(tmp_path):
    """It says by `arkit_pose` that it is in canonical space."""
    a = changed(random_arrays(), np.eye(3), 1000 / 0.38)
    maps = {"arkit_pose": np.zeros((52, 15)), "arkit_expression": np.zeros((52, E))}
    with pytest.raises(UserError, match="millimetres"):
        flame.load(saved(tmp_path / "ours.pkl", a | maps))


WRONG = {
    "weights": lambda a: a["weights"][:, :4],
    "shapedirs": lambda a: a["shapedirs"][..., :150],  # where does expression begin?
    "v_template": lambda a: np.where(a["v_template"] > 0.05, np.nan, a["v_template"]),
    "f": lambda a: a["f"] + V,
    "kintree_table": lambda a: a["kintree_table"][:, ::-1],
    "posedirs": lambda a: "a word",
}


@pytest.mark.parametrize("key", WRONG)
def test_arrays_that_do_not_fit_are_named(tmp_path, key):
    a = random_arrays()
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(a | {key: WRONG[key](a)}))
    with pytest.raises(UserError, match=key):
        flame.load(tmp_path / "model.pkl")


def test_missing_file_and_missing_arrays(tmp_path):
    with pytest.raises(UserError, match="no FLAME file"):
        flame.load(tmp_path / "none.pkl")
    np.savez(tmp_path / "x.npz", v_template=np.zeros((3, 3)))
    with pytest.raises(UserError, match="shapedirs"):
        flame.load(tmp_path / "x.npz")


def test_rotations_are_smooth_at_rest():
    """Values and derivatives where the angle vanishes, in float32."""
    v = torch.tensor([[0.0, 0, 0], [1e-4, 0, 0], [1e-3, -2e-3, 1e-3]], requires_grad=True)
    double = v.detach().double().requires_grad_()
    for x in (v, double):
        (flame.rodrigues(x) * torch.arange(9.0).view(3, 3)).sum().backward()
    torch.testing.assert_close(v.grad.double(), double.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(flame.rodrigues(double), torch.linalg.matrix_exp(_cross(double)), rtol=0, atol=1e-9)


def _cross(v):
    return torch.linalg.cross(torch.eye(3).to(v).expand(len(v), 3, 3), v[:, None].expand(-1, 3, -1), dim=-1)


def test_derivatives_are_exact():
    model = model_of(random_arrays()).double()
    g = torch.Generator().manual_seed(3)
    args = [(torch.randn(1, n, generator=g).double() * 0.3).requires_grad_() for n in (2, 2, 15)]
    assert torch.autograd.gradcheck(lambda *x: model(*x)[:, :5], args)


def test_fit_recovers_coefficients_under_any_pose():
    """Root, neck and jaw turned; the joints follow shape and expression, so that unposing alone would not do."""
    a = random_arrays()
    model = flame.FlameModel(
        a["v_template"], a["shapedirs"][..., :50], a["posedirs"], a["J_regressor"], a["weights"], PARENTS, a["f"], 30
    )
    g = torch.Generator().manual_seed(2)
    shape, expression, pose = (torch.randn(3, n, generator=g) * s for n, s in ((30, 1), (20, 1), (15, 0.5)))
    got = flame.fit(model, model(shape, expression, pose), pose)
    torch.testing.assert_close(got[0], shape, rtol=0, atol=2e-4)
    torch.testing.assert_close(got[1], expression, rtol=0, atol=2e-4)
