"""Who is trained, validated and tested on what (DESIGN §3)."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from helpers.clips import drawn_clips

from i4d_bench.data.splits import EVERY_SET, MOST_DRIVERS, MOST_FRAMES, SETS, SPLITS, UNSEEN, split_of, triples, yaw
from i4d_bench.heads.expressions import ACTIONS, held_out


def test_splits_keep_people_views_and_expressions_apart(smoke_frames):
    split = split_of(smoke_frames)
    by_split = [set(smoke_frames.identity[split == k]) for k in range(len(SPLITS))]
    assert not (by_split[0] & by_split[2]) and not (by_split[0] & by_split[1])
    assert np.abs(yaw(smoke_frames)[split == 0]).max() <= 35.5
    for name in SETS:
        rows = triples(smoke_frames, "test", name)
        assert len(rows) and (split[rows.source] == 2).all()
        assert (np.abs(yaw(smoke_frames)[rows.source]) <= 12.5).all()
    assert (np.abs(yaw(smoke_frames)[triples(smoke_frames, "test", "novel").target]) >= 34.5).all()
    cross = triples(smoke_frames, "test", "cross")
    assert (smoke_frames.identity[cross.driving] != smoke_frames.identity[cross.source]).all()
    assert (smoke_frames.identity[cross.target] == smoke_frames.identity[cross.source]).all()
    np.testing.assert_array_equal(smoke_frames.coefficients[cross.driving], smoke_frames.coefficients[cross.target])
    pairs = [(m, e) for m in ACTIONS["mouth"] for e in ACTIONS["eyes"]]
    assert 0.1 < np.mean([held_out(*p) for p in pairs]) < 0.35


def with_split(frames, split):
    return dataclasses.replace(frames, arrays=frames.arrays | {"split": np.array(split, np.uint8)})


@pytest.mark.parametrize(
    ("frames", "parts"), [(1, [1, 0, 0]), (2, [1, 0, 1]), (3, [1, 1, 1]), (6, [3, 1, 2]), (100, [60, 15, 25])]
)
def test_a_video_is_split_in_time(tmp_path, frames, parts):
    """The first 60 % are trained on, the next 15 % validate; of few frames each part has its share as soon as it can."""
    split = split_of(drawn_clips(tmp_path / "one", [0] * frames, size=8))
    assert np.bincount(split, minlength=3).tolist() == parts and (np.diff(split) >= 0).all()


def test_people_are_split_each_by_themselves_and_cameras_of_a_moment_stay_together(tmp_path):
    frames = drawn_clips(tmp_path / "two", [0, 1] * 20, size=8)
    assert np.bincount(split_of(frames)[1::2]).tolist() == [12, 3, 5]
    moments = np.tile(np.arange(10, dtype=np.int32), 2)  # first one camera's frames, then another's
    seen = dataclasses.replace(drawn_clips(tmp_path / "one", [0] * 20, size=8))
    seen = dataclasses.replace(seen, arrays=seen.arrays | {"expression": moments})
    assert all(len(set(split_of(seen)[moments == m])) == 1 for m in range(10))


def test_a_data_sets_own_split_is_kept_and_the_last_training_moments_validate_where_it_has_none(tmp_path):
    frames = drawn_clips(tmp_path / "own", [0] * 10 + [1] * 10, size=8)
    own = [0] * 8 + [1] * 2 + [2] * 10
    assert split_of(with_split(frames, own)).tolist() == own
    assert split_of(with_split(frames, [0] * 10 + [2] * 10)).tolist() == own


def test_nobody_is_tested_or_validated_with_a_frame_of_another_part(tmp_path):
    frames = drawn_clips(tmp_path / "three", [0] * 20 + [1] * 20 + [2] * 20, size=8)
    part = split_of(frames)
    for split in ("val", "test"):
        for name in ("self", "cross"):
            rows = triples(frames, split, name)
            assert len(rows) and (part[rows.source] == SPLITS.index("train")).all()
            assert (part[rows.driving] == SPLITS.index(split)).all()
        assert not any(len(triples(frames, split, name)) for name in EVERY_SET if name.startswith(UNSEEN))


def test_the_unseen_have_sets_of_their_own(tmp_path):
    frames = drawn_clips(tmp_path / "three", [0] * 20 + [1] * 20 + [2] * 20, size=8)
    part = split_of(frames)
    part[frames.identity == 1] = SPLITS.index("test")
    frames = with_split(frames, part)
    for name in ("recon", "self", "cross"):
        seen, unseen = triples(frames, "test", name), triples(frames, "test", UNSEEN + name)
        assert set(frames.identity[seen.source]) == {0, 2} and set(frames.identity[unseen.source]) == {1}
    own = triples(frames, "test", f"{UNSEEN}self")
    assert len(own) == 19 and set(own.driving) == set(range(20, 40)) - {own.source[0]}


@pytest.mark.parametrize("people", [2, 4, 30])
def test_everybody_else_drives_in_cross_reenactment(tmp_path, people):
    frames = drawn_clips(tmp_path / "many", list(np.repeat(range(people), 8)), size=8)
    rows = triples(frames, "test", "cross")
    source, driver = frames.identity[rows.source], frames.identity[rows.driving]
    assert (source != driver).all() and (rows.target == -1).all()
    pairs = set(zip(source.tolist(), driver.tolist(), strict=True))
    assert len(pairs) == people * min(people - 1, MOST_DRIVERS)
    assert len(set(np.bincount(driver))) == 1, "all drive as often"
    assert np.bincount(source).max() <= MOST_FRAMES
