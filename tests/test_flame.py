"""FLAME-format heads: the equations against smplx, the pickles that FLAME comes as, and the export of our worlds."""

from __future__ import annotations

import io
import pickle
import sys
import types

import numpy as np
import pytest
import scipy.sparse
import torch

from i4d_bench.heads import expressions, flame
from i4d_bench.heads.export import Coder, export_flame
from i4d_bench.heads.procedural import ProceduralWorld
from i4d_bench.types import UserError

V, S, E = 120, 300, 100
PARENTS = np.array([-1, 0, 1, 1, 1])


def random_arrays(seed=0):
    """Everything a FLAME file has, random, for 120 vertices."""
    rng = np.random.default_rng(seed)
    weights = rng.random((V, 5)) ** 3
    regressor = rng.random((5, V)) * (rng.random((5, V)) < 0.1)
    return {
        "v_template": rng.normal(0, 0.1, (V, 3)),
        "shapedirs": rng.normal(0, 0.01, (V, 3, S + E)),
        "posedirs": rng.normal(0, 0.01, (V, 3, 36)),
        "J_regressor": regressor / regressor.sum(1, keepdims=True),
        "weights": weights / weights.sum(1, keepdims=True),
        "kintree_table": np.stack([np.where(PARENTS < 0, 2**32 - 1, PARENTS), np.arange(5)]),
        "f": rng.integers(0, V, (200, 3)).astype(np.uint32),
    }


def model_of(arrays) -> flame.FlameModel:
    a = arrays
    return flame.FlameModel(a["v_template"], a["shapedirs"], a["posedirs"], a["J_regressor"], a["weights"], PARENTS, a["f"], S)


def test_equals_smplx():
    """smplx's blendshapes and skinning; joints follow the shape alone (PAPER §5; smplx's own lbs lets expression move them)."""
    lbs = pytest.importorskip("smplx.lbs", reason="smplx is not installed")
    a, g = random_arrays(), torch.Generator().manual_seed(1)
    shape, expression, pose = (torch.randn(4, n, generator=g) * s for n, s in ((S, 1), (E, 1), (15, 0.4)))
    t = {k: torch.tensor(np.asarray(v), dtype=torch.float32) for k, v in a.items() if k not in ("f", "kintree_table")}
    model, parents = model_of(a), torch.tensor(PARENTS)
    args = (t["v_template"], t["shapedirs"], t["posedirs"].reshape(-1, 36).T, t["J_regressor"], parents, t["weights"])
    whole, _ = lbs.lbs(torch.cat([shape, 0 * expression], 1), pose, *args)
    torch.testing.assert_close(model(shape, 0 * expression, pose), whole, rtol=0, atol=1e-5)

    rotations = lbs.batch_rodrigues(pose.view(-1, 3)).view(4, 5, 3, 3)
    rest = t["v_template"] + lbs.blend_shapes(torch.cat([shape, expression], 1), t["shapedirs"])
    rest = rest + ((rotations[:, 1:] - torch.eye(3)).view(4, -1) @ args[2]).view(4, -1, 3)
    joints = lbs.vertices2joints(t["J_regressor"], t["v_template"] + lbs.blend_shapes(shape, t["shapedirs"][..., :S]))
    _, A = lbs.batch_rigid_transform(rotations, joints, parents)
    T = (t["weights"] @ A.view(4, 5, 16)).view(4, -1, 4, 4)
    expected = (T[..., :3, :3] @ rest[..., None])[..., 0] + T[..., :3, 3]
    torch.testing.assert_close(model(shape, expression, pose), expected, rtol=0, atol=1e-5)


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
    joints = model.joints(torch.zeros(1, 1))[0]
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


@pytest.mark.parametrize("content", [b"", b"not a pickle", b"\x80\x02}q\x00"])
def test_a_damaged_pickle_is_one_sentence(tmp_path, content):
    path = tmp_path / "flame2023.pkl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"flame2023\.pkl"):
        flame.load(path)


def test_misshapen_and_missing_files(tmp_path):
    with pytest.raises(UserError, match="no FLAME file"):
        flame.load(tmp_path / "none.pkl")
    a = random_arrays()
    a["weights"] = a["weights"][:, :4]
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(a))
    with pytest.raises(UserError, match="weights"):
        flame.load(path)
    buffer = io.BytesIO()
    np.savez(buffer, v_template=np.zeros((3, 3)))
    (tmp_path / "x.npz").write_bytes(buffer.getvalue())
    with pytest.raises(UserError, match="shapedirs"):
        flame.load(tmp_path / "x.npz")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    world, path = ProceduralWorld(), tmp_path_factory.mktemp("flame") / "flame.npz"
    export_flame(world, path, n_shape=40, n_expression=40, samples=60)
    return world, flame.load(path)


def test_the_export_says_the_worlds_linear_part(exported):
    """Coefficients of the true mesh give it back; the full, non-linear mesh they do not."""
    world, model = exported
    person = world.identity(3)
    e = np.stack([expressions.sample(np.random.default_rng(k), "train") for k in range(3)])
    code = Coder(world, model)(person, e)
    got = model(code.shape, code.expression, code.pose).numpy()
    error = lambda linear: np.sqrt(((got - np.stack([world.vertices(person, x, linear) for x in e])) ** 2).sum(-1).mean())  # noqa: E731
    assert error(True) < 2e-4
    assert error(False) > 1e-3


def test_fit_recovers_coefficients(exported):
    _, model = exported
    g = torch.Generator().manual_seed(2)
    shape, expression = torch.randn(2, model.n_shape, generator=g), 0.5 * torch.randn(2, model.n_expression, generator=g)
    pose = torch.zeros(2, 15)
    pose[:, 6] = 0.2
    vertices = model(shape, expression, pose)
    again = flame.fit(model, vertices, pose)
    torch.testing.assert_close(model(*again, pose), vertices, rtol=0, atol=2e-4)
