"""The animator of rendered heads: each spoil moves what it should and nothing else, and what is made depends on the row alone."""

from __future__ import annotations

import dataclasses
import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest

from i4d_bench.camera import look_at, project
from i4d_bench.config.experiment import World
from i4d_bench.data import people
from i4d_bench.data.frames import Frames
from i4d_bench.data.people import Pinhole
from i4d_bench.data.splits import SPLITS, yaw
from i4d_bench.data.teacher.check import check
from i4d_bench.data.teacher.pairs import make
from i4d_bench.data.teacher.samples import IMAGES, NUMBERS, ROLES
from i4d_bench.data.teacher.spoils import Spoil
from i4d_bench.data.teacher.store import Store
from i4d_bench.data.teacher.world import WorldMaker
from i4d_bench.heads.worlds import head_world
from i4d_bench.types import UserError

WORLD = World(resolution=48, train_identities=3, val_identities=2, test_identities=2, expressions=2, views=2)
KINDS = [f.name for f in dataclasses.fields(Spoil)]
ARRAYS = (*IMAGES, *NUMBERS)


def made(maker, person=0):
    """By row id, the samples of one person."""
    job = maker.jobs()[person]
    return {row.id: sample for row, sample in maker.make(job, maker.rows(job), 0)}


def same(a, b, names=ARRAYS):
    return all(np.array_equal(a[name], b[name]) for name in names)


def moved(a, b, name):
    """Mean change of a picture, or mean distance of landmarks in pixels."""
    change = a[name].astype(float) - b[name].astype(float)
    return np.linalg.norm(change, axis=-1).mean() if name == "landmarks" else np.abs(change).mean()


@pytest.fixture
def seen_from(monkeypatch):
    """seen_from(yaw, spoil): what the animator makes of the first pair when the driver is seen from there."""

    def animated(degrees, **strengths):
        eye = Pinhole(*look_at(degrees, 0, size=WORLD.resolution))
        with monkeypatch.context() as patch:
            patch.setattr(people, "camera", lambda *_: eye)
            return next(iter(made(WorldMaker(WORLD, Spoil(**strengths), pairs=1)).values()))["target"]

    return animated


def test_without_spoils_the_truth_is_made_bit_by_bit():
    spoiled = made(WorldMaker(WORLD, Spoil(), pairs=2))
    job = people.people(WORLD)[0]
    head = head_world(WORLD.kind)
    identity, light = people.identity(WORLD, head, job), people.light(WORLD, job)
    for sample in spoiled.values():
        target, driver = sample["target"], sample["driver"]
        expression = driver["coefficients"]
        vertices = head.vertices(identity, expression)
        eye = [e for e in cameras(WORLD) if np.array_equal(e.viewmat.astype(np.float32), driver["viewmats"])]
        surface = head.surface(identity, expression, vertices)
        truth = people.picture(head, vertices, surface, expression, eye[0], WORLD.resolution, light)
        assert same(target, truth)


def cameras(world):
    """Every camera of the training people's frames."""
    for person in people.people(world)[: world.train_identities]:
        for e in range(world.expressions):
            for v in range(world.views):
                yield people.camera(world, person, e, v)


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_grows_with_its_strength(seen_from, kind):
    truth = seen_from(30)
    half, full = (moved(seen_from(30, **{kind: s}), truth, "rgb") for s in (0.5, 1.0))
    assert 0.3 < half < full


@pytest.mark.parametrize("kind", KINDS)
def test_errors_are_those_of_the_picture_and_leave_camera_and_expression(seen_from, kind):
    assert same(seen_from(30, **{kind: 1.0}), seen_from(30), ("viewmats", "Ks", "coefficients"))


def test_colours_never_exceed_coverage(seen_from):
    picture = seen_from(30, swim=1.0, drift=1.0, flicker=1.0, parallax=1.0)
    assert (picture["rgb"] <= picture["alpha"][..., None]).all()


def test_texture_swims_with_the_camera_inside_the_outline(seen_from):
    assert same(seen_from(0, swim=1.0), seen_from(0))
    slid = [moved(seen_from(a, swim=1.0), seen_from(a), "landmarks") for a in (0, 10, 20, 30)]
    assert slid == sorted(slid) and slid[1] > 0.2
    assert same(seen_from(30, swim=1.0), seen_from(30), ("alpha",))
    shift = seen_from(30, swim=1.0)["landmarks"] - seen_from(30)["landmarks"]
    other = seen_from(-30, swim=1.0)["landmarks"] - seen_from(-30)["landmarks"]
    assert shift[:, 0].mean() > 0 > other[:, 0].mean(), "it lags behind the turn"


def test_landmarks_swim_with_what_they_mark(seen_from):
    truth, swum = seen_from(25), seen_from(25, swim=1.0)

    def marked(picture, landmarks, name):
        x, y = np.rint(landmarks[17:] - 0.5).astype(int).T
        return picture[name][y, x].astype(float)

    for name in ("rgb", "region"):
        before = marked(truth, truth["landmarks"], name)
        followed, missed = (np.abs(marked(swum, p["landmarks"], name) - before).mean() for p in (swum, truth))
        assert followed < 0.5 * missed, name


def test_drift_moves_the_person_towards_the_driver(seen_from):
    maker = WorldMaker(WORLD, Spoil(), pairs=1)
    (row,) = maker.rows(maker.jobs()[0])
    other = int(row.driver[1:6])
    expression = made(maker)[row.id]["driver"]["coefficients"]
    head, person = head_world(WORLD.kind), people.people(WORLD)[other]
    vertices = head.vertices(people.identity(WORLD, head, person), expression)
    eye = look_at(0, 0, size=WORLD.resolution)
    theirs = project(vertices[head.landmarks], *eye)
    far = [np.linalg.norm(seen_from(0, drift=s)["landmarks"] - theirs, axis=1).mean() for s in (0, 0.5, 1)]
    assert far[0] > far[1] > far[2] > 0.2 * far[0]
    assert not same(seen_from(0, drift=1.0), seen_from(0), ("alpha",))


def test_flicker_differs_between_rows_and_moves_nothing(monkeypatch):
    eye = Pinhole(*look_at(15, 0, size=WORLD.resolution))
    monkeypatch.setattr(people, "camera", lambda *_: eye)
    monkeypatch.setattr(people, "performed", lambda *_: np.zeros((2, 52), np.float32))
    first, second = (
        s["target"] for s in made(WorldMaker(dataclasses.replace(WORLD, seed=1), Spoil(flicker=1), 2)).values()
    )
    assert moved(first, second, "rgb") > 0.5
    assert same(first, second, [name for name in ARRAYS if name != "rgb"])


def test_a_flat_head_is_right_from_the_front_and_wrong_from_the_side(seen_from):
    front, side = (moved(seen_from(a, parallax=1.0), seen_from(a), "landmarks") for a in (0, 30))
    assert front < 0.01 and side > 1
    front, side = (moved(seen_from(a, parallax=1.0), seen_from(a), "rgb") for a in (0, 30))
    assert front < 0.1 * side


def test_pairs_are_of_one_split_and_sources_frontal():
    maker = WorldMaker(WORLD, Spoil.moderate(), pairs=4)
    ids = []
    for job in maker.jobs():
        of = {p.number: p.split for p in people.people(WORLD)}
        for row in maker.rows(job):
            source, driver = int(row.source[1:6]), int(row.driver[1:6])
            assert of[source] == of[driver] == row.split and source != driver
            assert row.identity == row.source[:6]
            assert re.fullmatch("[A-Za-z0-9-]+", row.id)
            ids.append(row.id)
    assert len(set(ids)) == len(ids) == 4 * 7
    for sample in made(maker).values():
        assert abs(yaw_of(sample["source"])) <= 12 and abs(yaw_of(sample["driver"])) <= 35
        assert same(sample["driver"], sample["target"], ("viewmats", "Ks", "coefficients"))


def yaw_of(picture):
    frame = Frames(Path(), {}, {"identity": np.zeros(1), "viewmats": picture["viewmats"][None]})
    return yaw(frame)[0]


def test_more_pairs_begin_with_the_same_ones():
    few, many = ([r.id for r in m.rows(m.jobs()[1])] for m in (WorldMaker(WORLD, Spoil(), k) for k in (2, 6)))
    assert many[:2] == few


def test_further_views_are_true_and_say_so():
    maker = WorldMaker(WORLD, Spoil.moderate(), pairs=1, views=3)
    rows = maker.rows(maker.jobs()[0])
    assert [row.view for row in rows] == [0, 1, 2]
    assert [json.loads(row.flags)["true"] for row in rows] == [False, True, True]
    assert json.loads(rows[0].flags)["swim"] == 0.5
    spoiled, true = made(maker), made(dataclasses.replace(maker, spoil=Spoil()))
    changed = [not same(spoiled[row.id]["target"], true[row.id]["target"]) for row in rows]
    assert changed == [True, False, False]
    eyes = {spoiled[row.id]["target"]["viewmats"].tobytes() for row in rows}
    assert len(eyes) == 3


def test_what_is_made_depends_on_the_row_alone(tmp_path):
    maker = pickle.loads(pickle.dumps(WorldMaker(WORLD, Spoil.moderate(), pairs=2, views=2)))
    everything = made(maker)
    job = maker.jobs()[0]
    last = maker.rows(job)[-2:]
    for row, sample in maker.make(job, last, 7):
        assert all(same(sample[role], everything[row.id][role]) for role in ROLES)
    assert make(maker, tmp_path / "one") == make(maker, tmp_path / "two", workers=2) == 0
    one, two = ({row.id: row.sha256 for row in Store(tmp_path / name).rows()} for name in ("one", "two"))
    assert one == two and len(one) == 7 * 2 * 2 and all(one.values())
    assert check(tmp_path / "two", complete=True) == 0
    store = Store(tmp_path / "two")
    assert [len(store.within(split)) for split in SPLITS] == [12, 8, 8]


@pytest.mark.parametrize(
    "change, says",
    [
        ({"pairs": 0}, "at least one of pairs"),
        ({"views": 0}, "at least one of views"),
        ({"pairs": 9}, "the split train has 8 drivers"),
        ({"world": dataclasses.replace(WORLD, val_identities=0)}, "the split val has 0 people"),
        ({"world": dataclasses.replace(WORLD, test_identities=1)}, "the split test has 1 person"),
    ],
)
def test_what_cannot_be_made_is_refused(change, says):
    with pytest.raises(UserError, match=says):
        WorldMaker(**{"world": WORLD, "spoil": Spoil(), "pairs": 4} | change)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strength", [-0.1, 1.5, float("nan")])
def test_strengths_lie_between_0_and_1(kind, strength):
    with pytest.raises(UserError, match=f"the strength of {kind} must lie between 0 and 1"):
        Spoil(**{kind: strength})


def test_a_world_that_is_not_there_is_refused():
    with pytest.raises(UserError, match="there is no head world 'clips'"):
        WorldMaker(dataclasses.replace(WORLD, kind="clips"), Spoil()).jobs()


def test_strengths_are_written_by_name():
    assert Spoil.of(["swim=1", "flicker=0"]) == Spoil(swim=1.0, drift=0.5, flicker=0.0, parallax=0.5)
    for wrong in ("blur=1", "swim", "swim=much", "swim=2"):
        with pytest.raises(UserError, match="swim"):
            Spoil.of([wrong])
