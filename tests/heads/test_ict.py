"""The ICT world, on its real file where I4D_ASSETS holds it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from i4d_bench.assets import ICT, find
from i4d_bench.heads.expressions import INDEX, NAMES
from i4d_bench.heads.ict import EYES, IctWorld
from i4d_bench.types import UserError


@pytest.fixture(scope="module")
def world():
    if find(ICT) is None:
        pytest.skip(f"{ICT} is not here: `i4d-bench assets` says where to get it")
    return IctWorld()


def one(**coefficients) -> np.ndarray:
    e = np.zeros(len(NAMES), np.float32)
    for name, value in coefficients.items():
        for full in (name,) if name in INDEX else (f"{name}Left", f"{name}Right"):
            e[INDEX[full]] = value
    return e


def test_landmarks_and_features_are_where_the_suite_expects_them(world):
    v = world.vertices(world.identity(3), one())[world.landmarks]
    assert np.abs(v[36:42].mean(0) - [-0.084, 0.135, 0.19]).max() < 0.04
    assert np.abs(v[42:48].mean(0) - [0.084, 0.135, 0.19]).max() < 0.04
    assert np.abs(v[48:60].mean(0) - [0, -0.045, 0.25]).max() < 0.04


def test_expressions_move_what_they_name(world):
    person = world.identity(0)
    rest = world.vertices(person, one())[world.landmarks]
    opened = world.vertices(person, one(jawOpen=1))[world.landmarks]
    shut = world.vertices(person, one(eyeBlink=1))[world.landmarks]
    gap = lambda v, top, bottom: v[top, 1] - v[bottom, 1]  # noqa: E731
    assert gap(opened, 62, 66) > gap(rest, 62, 66) + 0.02, "the lips part"
    assert gap(shut, 37, 41) < 0.5 * gap(rest, 37, 41), "the lids close"
    assert np.abs(shut[48:] - rest[48:]).max() < 0.004, "blinking leaves the mouth alone"


def test_gaze_turns_the_eyes_alone(world):
    person = world.identity(0)
    rest, looking = (world.vertices(person, one(**e)) for e in ({}, {"eyeLookUp": 1}))
    assert np.abs(looking[EYES[0]] - rest[EYES[0]]).max() > 0.005
    assert np.linalg.norm(looking[EYES[0]].mean(0) - rest[EYES[0]].mean(0)) < 0.01


def test_people_are_seeds_and_a_changed_copy_is_another(world):
    a, again, b = world.identity(1), world.identity(1), world.identity(2)
    v = world.vertices(a, one())
    np.testing.assert_array_equal(v, world.vertices(again, one()))
    assert np.abs(v - world.vertices(b, one())).max() > 0.01
    changed = dataclasses.replace(a, shape=-a.shape)
    assert np.abs(v - world.vertices(changed, one())).max() > 0.005


def test_expressions_are_not_all_linear(world):
    person = world.identity(0)
    both, smile, jaw, rest = (
        world.vertices(person, one(**e))
        for e in ({"mouthSmile": 1, "jawOpen": 1}, {"mouthSmile": 1}, {"jawOpen": 1}, {})
    )
    assert np.abs(both - smile - jaw + rest).max() > 0.005


@pytest.mark.parametrize("content", [None, b"", b"not a zip"])
def test_a_wrong_file_is_named(tmp_path, content):
    path = tmp_path / "model.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"assets|ICT-FaceKit"):
        IctWorld(path)
