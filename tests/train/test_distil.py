"""Lessons from a teacher's pairs: who is shown, driven by what, and which pictures are the truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import teacher as teacher_store

from i4d_bench.config import presets
from i4d_bench.config.experiment import Stage, Teacher, Train
from i4d_bench.data.splits import YAW
from i4d_bench.data.teacher.stream import Draws
from i4d_bench.loader import Loader
from i4d_bench.model.avatar import Backbone
from i4d_bench.train.distil import Mixed, check
from i4d_bench.train.lessons import FromFrames
from i4d_bench.train.lifting import Lifter
from i4d_bench.types import UserError

STAGE = Stage(4, 32, 16, sources=2, frames=3)


def first(lessons, drive=True, stage=STAGE, step=5):
    return next(lessons.over(range(step, step + 1), stage, drive))


def rgb(picture):
    return torch.from_numpy(picture["rgb"]) / 255


def rows(pairs, true_views=False, step=5):
    """[S, k - 1]: what the lesson is made of."""
    return Draws(pairs, "train", STAGE.sources, STAGE.frames - 1, 0, true_views).draw(step).reshape(STAGE.sources, -1)


@pytest.mark.parametrize("true_views", [False, True])
def test_each_person_reconstructs_the_source_and_reaches_the_drivers(lessons, pairs, true_views):
    made = lessons(true_views=true_views)
    lesson = first(made)
    assert lesson.frames == 3 and lesson.images.shape == (2, 3, 32, 32)
    assert lesson.planar.tolist() == [False, not true_views, not true_views] * 2, "the source's own picture is true"
    for person, own in enumerate(rows(pairs, true_views)):
        samples = [pairs.read(int(r)) for r in own]
        assert ((pairs.view[own] > 0) == true_views).all()
        source, at = samples[0]["source"], person * 3
        torch.testing.assert_close(lesson.truth.rgb[at], rgb(source))
        torch.testing.assert_close(lesson.driving.motion[at], lesson.source.motion[person])
        for k, sample in enumerate(samples, 1):
            torch.testing.assert_close(lesson.truth.rgb[at + k], rgb(sample["target"]))
            assert torch.equal(lesson.truth.camera.viewmats[at + k], torch.from_numpy(sample["target"]["viewmats"]))
            driver = {k: v[None] for k, v in sample["driver"].items()}
            code = made.driver.codes(driver["rgb"], driver["landmarks"], driver["coefficients"])
            torch.testing.assert_close(lesson.driving.motion[at + k], code[0])


def test_parametric_heads_follow_the_52_coefficients(lessons, pairs):
    lesson, head = first(lessons()), lessons().head
    sample = pairs.read(int(rows(pairs)[0, 1]))
    expression, pose = head.arkit(torch.from_numpy(sample["driver"]["coefficients"])[None])
    flame = lesson.driving.flame
    torch.testing.assert_close(flame.expression[2], expression[0])
    torch.testing.assert_close(flame.pose[2], pose[0])
    assert not flame.shape.any()


def test_the_warm_up_is_the_source_from_its_own_side_whatever_the_supervision(lessons):
    a, b = first(lessons(), drive=False), first(lessons(lifter=Lifter(backbone())), drive=False)
    assert a.frames == 1 and torch.equal(a.truth.rgb, b.truth.rgb)
    torch.testing.assert_close(a.driving.motion, a.source.motion)


def backbone() -> Backbone:
    torch.manual_seed(0)
    return Backbone(presets.smoke().model)


def test_lifted_views_are_the_lifting_networks_and_others_at_every_step(lessons):
    made = lessons(lifter=Lifter(backbone()))
    a, b, plain = first(made), first(made, step=6), first(lessons())
    again = first(lessons(lifter=Lifter(backbone())))
    assert torch.equal(a.truth.rgb, again.truth.rgb) and torch.equal(
        a.truth.camera.viewmats, again.truth.camera.viewmats
    )
    assert not torch.equal(a.truth.camera.viewmats, b.truth.camera.viewmats)
    assert torch.equal(a.driving.motion, plain.driving.motion) and torch.equal(a.images, plain.images)
    towards = -np.einsum("fij,fi->fj", a.truth.camera.viewmats[:, :3, :3], a.truth.camera.viewmats[:, :3, 3])
    turned = np.degrees(np.arctan2(towards[:, 0], towards[:, 2]))
    assert abs(turned).max() <= YAW[1][1] and len(set(turned.round(3))) == len(turned)
    assert not a.truth.rgb.requires_grad


def test_lessons_depend_on_the_step_alone(lessons):
    whole = list(lessons().over(range(4), STAGE, True))
    rest = list(lessons().over(range(2, 4), STAGE, True))
    for a, b in zip(whole[2:], rest, strict=True):
        assert torch.equal(a.truth.rgb, b.truth.rgb) and torch.equal(a.driving.motion, b.driving.motion)


def test_parts_of_a_lesson_are_the_lesson(lessons):
    lesson = first(lessons())
    parts = list(lesson.parts(5))
    assert [len(p.images) for p in parts] == [1, 1], "no more parts than people"
    assert torch.equal(torch.cat([p.truth.rgb for p in parts]), lesson.truth.rgb)
    assert torch.equal(torch.cat([p.driving.flame.pose for p in parts]), lesson.driving.flame.pose)


@pytest.mark.parametrize("drive", [False, True])
def test_mixed_lessons_are_half_the_animators_and_half_true(lessons, smoke_frames, drive):
    planar, true = lessons(), FromFrames(Loader(smoke_frames, lessons().driver, torch.device("cpu")), 32, 0)
    stage = Stage(4, 32, 16, sources=4, frames=3)
    lesson = first(Mixed(planar, true), drive, stage)
    assert len(lesson.images) == 4 and lesson.frames == 3
    assert lesson.planar.tolist() == [False, drive, drive] * 2 + [False] * 6
    half = first(true, drive, Stage(4, 32, 16, sources=2, frames=3))
    assert torch.equal(lesson.truth.rgb[6:], half.truth.rgb)
    assert torch.equal(lesson.driving.flame.expression[6:], half.driving.flame.expression)


ENOUGH = Train(warmup=(STAGE,), stages=(STAGE,))


@pytest.mark.parametrize(
    ("teacher", "train", "said"),
    [
        ({}, replace(ENOUGH, stages=(replace(STAGE, frames=1),)), "two frames of each person"),
        ({"bias_sink": True}, replace(ENOUGH, warmup=(replace(STAGE, sources=1),)), "two people"),
        ({"supervision": "multi-view"}, ENOUGH, "there are monocular, lifted, multiview"),
        ({"supervision": "multiview", "bias_sink": True}, ENOUGH, "multiview has none"),
        ({"path": None, "bias_sink": True}, ENOUGH, "go with a teacher's pairs"),
        ({"path": "nowhere"}, ENOUGH, "no store of teacher pairs"),
    ],
)
def test_what_pairs_cannot_teach_is_one_sentence(pairs, teacher, train, said):
    check(Teacher(str(pairs.folder), "multiview"), ENOUGH)
    with pytest.raises(UserError, match=said):
        check(Teacher(**{"path": str(pairs.folder), **teacher}), train)


def test_a_store_of_the_animators_pictures_alone_has_no_true_views(tmp_path):
    store = teacher_store.store(tmp_path / "pairs")
    check(Teacher(str(store)), ENOUGH)
    with pytest.raises(UserError, match="no true views"):
        check(Teacher(str(store), "multiview"), ENOUGH)


def test_the_warm_up_of_true_views_is_that_of_all(lessons):
    a, b = first(lessons(), drive=False), first(lessons(true_views=True), drive=False)
    assert torch.equal(a.truth.rgb, b.truth.rgb) and torch.equal(a.images, b.images)
