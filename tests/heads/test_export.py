"""Worlds as FLAME-format models: what the export keeps, what it loses, and the coefficients of people in it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.flame import OUTLINE

from i4d_bench.heads import flame
from i4d_bench.heads.base import HeadIdentity, HeadWorld
from i4d_bench.heads.export import Coder, export_flame
from i4d_bench.heads.expressions import INDEX, NAMES, sample
from i4d_bench.heads.posing import pose, skin
from i4d_bench.heads.procedural import ProceduralWorld
from i4d_bench.types import UserError


class LinearWorld(HeadWorld):
    """Six identity fields and 52 expressions on 300 vertices, posed by FLAME's own equations about joints that do not follow the
    expression."""

    name = "linear"

    def __init__(self):
        r = np.random.default_rng(0)
        self.rest = r.normal(0, 0.15, (300, 3)).clip(-0.15, 0.15)
        self.rest[: len(OUTLINE)] = np.array(OUTLINE) / 0.38
        self.fields = r.normal(0, 0.01, (6, 300, 3))
        self.offsets = (
            r.normal(0, 0.01, (len(NAMES), 300, 3)) * (np.arange(300) % 2)[:, None]
        )  # the back of a head is still
        self.skin_weights = r.dirichlet(np.full(5, 0.3), 300)
        self.regressor = 0.1 * r.dirichlet(np.full(300, 0.1), 5) + 0.9 * np.eye(5, 300)
        self.faces = r.integers(0, 300, (100, 3))

    def identity(self, seed):
        return HeadIdentity(seed, np.random.default_rng(seed).normal(0, 1, 6), None)

    def neutral(self, identity):
        return self.rest + np.tensordot(identity.shape, self.fields, 1)

    def joints(self, identity):
        return self.regressor @ self.neutral(identity)

    def pose(self, expression):
        return pose(expression)

    def vertices(self, identity, expression, linear=False):
        unposed = self.neutral(identity) + np.tensordot(expression, self.offsets, 1)
        return skin(unposed, self.joints(identity), self.pose(expression), self.skin_weights)


def rms(world, model, people=3, linear=True) -> float:
    """Root mean squared distance between true meshes and what their coefficients give back, canonical units."""
    coder, e = Coder(world, model), np.stack([sample(np.random.default_rng(k), "train") for k in range(4)])
    out = []
    for person in map(world.identity, range(people)):
        code = coder(person, e)
        got = model(code.shape, code.expression, code.pose).numpy()
        out.append(((got - np.stack([world.vertices(person, x, linear=linear) for x in e])) ** 2).sum(-1))
    return float(np.sqrt(np.mean(out)))


@pytest.fixture(scope="module")
def linear_world():
    return LinearWorld()  # pyright: ignore[reportAbstractUsage]  (export asks for no surface)


def exported(world, folder, **sizes) -> flame.FlameModel:
    export_flame(world, folder / "flame.npz", **sizes)
    return flame.load(folder / "flame.npz")


def test_a_linear_world_comes_back_whole(linear_world, tmp_path):
    model = exported(linear_world, tmp_path, n_shape=6, n_expression=len(NAMES), samples=60)
    assert (model.n_shape, model.n_expression) == (6, len(NAMES))
    assert rms(linear_world, model) < 1e-4
    person = linear_world.identity(5)
    shape = Coder(linear_world, model)(person, np.zeros((1, len(NAMES)))).shape
    np.testing.assert_allclose(model.joints(shape, torch.zeros(1, 1))[0], linear_world.joints(person), atol=1e-3)


def test_joints_of_a_world_stay_where_they_are_with_any_expression(linear_world, tmp_path):
    """A FLAME-format model's would follow: its regressor lets the expressions' motion cancel."""
    model = exported(linear_world, tmp_path, n_expression=len(NAMES), samples=60)
    assert model.expressiondirs.norm(dim=1).max() > 0.02 and model.joint_expressions.norm(dim=-1).max() < 1e-4


def test_fewer_components_lose_more(linear_world, tmp_path):
    errors = [rms(linear_world, exported(linear_world, tmp_path, n_expression=n, samples=60)) for n in (50, 30, 10)]
    assert errors[0] < errors[1] < errors[2]


def test_coefficients_of_people_have_unit_variance(linear_world, tmp_path):
    coder = Coder(linear_world, exported(linear_world, tmp_path, samples=600))
    still = np.zeros((1, len(NAMES)))
    shapes = torch.cat([coder(linear_world.identity(k), still).shape for k in range(300)])
    assert (shapes.std(0) - 1).abs().max() < 0.2


def test_codes_are_the_least_squares_fit_of_the_true_mesh(linear_world, tmp_path):
    """The coefficients read off ARKit's equal those fitted to the posed mesh itself."""
    model = exported(linear_world, tmp_path, n_expression=len(NAMES), samples=60)
    person, e = linear_world.identity(3), sample(np.random.default_rng(1), "train")[None]
    code = Coder(linear_world, model)(person, e)
    mesh = torch.tensor(linear_world.vertices(person, e[0], linear=True), dtype=torch.float32)[None]
    shape, expression = flame.fit(model, mesh, code.pose)
    torch.testing.assert_close(shape, code.shape, rtol=0, atol=0.02)
    torch.testing.assert_close(expression, code.expression, rtol=0, atol=0.02)


def test_arkit_coefficients_drive_jaw_and_gaze(linear_world, tmp_path):
    model = exported(linear_world, tmp_path, samples=20)
    e = torch.zeros(len(NAMES))
    e[INDEX["jawOpen"]], e[INDEX["eyeLookUpLeft"]] = 1, 1
    moved = (e @ model.arkit_pose).nonzero().flatten().tolist()
    assert moved == [6, 9], "jaw and left eye, about x"


def test_exports_stay_where_they_are(linear_world, tmp_path):
    """Ours are in canonical space already; FLAME's own are in metres and are moved."""
    model = exported(linear_world, tmp_path, samples=20)
    people = np.stack([linear_world.neutral(linear_world.identity(10**6 + k)) for k in range(20)])
    np.testing.assert_allclose(model.v_template, people.mean(0), atol=1e-6)


def test_a_folder_that_cannot_be_written(linear_world, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        export_flame(linear_world, tmp_path / "file" / "flame.npz", samples=10)


def test_the_embedded_world_loses_only_what_is_not_linear(tmp_path):
    world = ProceduralWorld()
    model = exported(world, tmp_path, samples=60)
    assert rms(world, model, people=2) < 6e-5
    assert rms(world, model, people=2, linear=False) > 1e-3
