"""Several data sets of real people as one."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from helpers.clips import drawn_clips

from i4d_bench.config.experiment import World
from i4d_bench.config.presets import smoke
from i4d_bench.data.joined import open_real
from i4d_bench.data.opening import open_data
from i4d_bench.data.seen import people, who_was_seen
from i4d_bench.data.splits import SPLITS, split_of
from i4d_bench.types import UserError


def of(*paths, **more) -> World:
    first, *further = map(str, paths)
    return World(kind="clips", path=first, further=tuple(further), **more)


@pytest.fixture
def parts(tmp_path):
    named = [{"file": "ann.mp4"}, {"file": "ben.mp4"}]
    return (
        drawn_clips(tmp_path / "a", [0] * 8 + [1] * 8, size=64, videos=named, fps=(25.0, 30.0), keys=["1", "2"]),
        drawn_clips(tmp_path / "b", [0] * 6, size=48, videos=[{"file": "cy.mp4"}], fps=(24.0,), keys=["3"]),
    )


def test_people_stand_side_by_side_as_each_data_set_splits_them(parts):
    both = open_real(of(*(p.path for p in parts)))
    assert both.identity.tolist() == [0] * 8 + [1] * 8 + [2] * 6
    assert people(both) == {0: "ann.mp4", 1: "ben.mp4", 2: "cy.mp4"} and both.meta["fps"] == [25.0, 30.0, 24.0]
    np.testing.assert_array_equal(split_of(both), np.concatenate([split_of(p) for p in parts]))
    np.testing.assert_array_equal(both.coefficients, np.concatenate([p.coefficients for p in parts]))
    assert "a and b" in who_was_seen(both)


def test_pictures_and_what_is_measured_in_them_have_the_smallest_size(parts):
    both = open_real(of(*(p.path for p in parts)))
    large, small = parts
    assert both.resolution == 48
    np.testing.assert_array_equal(both.rgb[16:], small.rgb)
    np.testing.assert_allclose(both.Ks[:16, :2], large.Ks[:, :2] * 0.75, rtol=1e-6)
    np.testing.assert_array_equal(both.Ks[:, 2], np.tile([[0, 0, 1]], (22, 1)))
    np.testing.assert_allclose(both.landmarks[:16], large.landmarks * 0.75)
    assert both.rgb[:16].mean() == pytest.approx(large.rgb.mean(), rel=0.01)
    assert (both.region[:16] > 0).mean() == pytest.approx((large.region > 0).mean(), rel=0.05)


def test_one_data_set_is_itself_and_several_are_made_once(parts):
    assert open_real(of(parts[0].path)).path == parts[0].path
    paths = [open_real(of(*(p.path for p in parts))).path for _ in range(2)]
    assert paths[0] == paths[1]


def test_the_same_video_or_a_rendered_world_is_refused(parts, tmp_path, smoke_frames):
    with pytest.raises(UserError, match="share videos"):
        open_real(of(parts[0].path, parts[0].path))
    again = drawn_clips(tmp_path / "c", [0] * 4, size=48, keys=["2"])
    with pytest.raises(UserError, match="share videos"):
        open_real(of(parts[0].path, again.path))
    with pytest.raises(UserError, match=r"is no real video \(procedural\)"):
        open_real(of(parts[0].path, smoke_frames.path))


def test_people_of_any_part_are_held_out(parts):
    e = dataclasses.replace(smoke(), world=of(*(p.path for p in parts), hold_out=("cy",)), driver="blendshapes")
    frames, _ = open_data(e)
    assert set(split_of(frames)[frames.identity == 2]) == {SPLITS.index("test")}


def test_a_world_beside_real_people_is_part_of_the_datas_hash(parts):
    e = smoke()
    hashes = set()
    for beside, resolution in ((None, 32), ("procedural", 32), ("procedural", 24)):
        world = dataclasses.replace(
            e.world, resolution=resolution, kind="clips", path=str(parts[0].path), beside=beside
        )
        hashes.add(open_data(dataclasses.replace(e, world=world))[0].meta["hash"])
    assert len(hashes) == 3
    few = dataclasses.replace(e.train, stages=(dataclasses.replace(e.train.stages[0], sources=1),))
    with pytest.raises(UserError, match="two people, one of each"):
        open_data(dataclasses.replace(e, world=dataclasses.replace(world, resolution=32), train=few))
