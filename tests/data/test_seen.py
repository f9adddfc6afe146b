"""Who is kept out of training, by name, and what tables say of it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from helpers.clips import drawn_clips

from i4d_bench.config.presets import smoke
from i4d_bench.data.opening import open_data
from i4d_bench.data.seen import hold_out, who_was_seen
from i4d_bench.data.splits import SPLITS, split_of
from i4d_bench.types import UserError

VIDEOS = [{"file": name} for name in ("anna.mp4", "ben.mov", "carl.mp4", "carl.mov")]


@pytest.fixture
def frames(tmp_path):
    return drawn_clips(tmp_path / "four", list(np.repeat(range(4), 8)), size=8, videos=VIDEOS)


@pytest.mark.parametrize("name", ["ben", "ben.mov", "1"])
def test_a_person_who_is_held_out_is_tested_alone(frames, name):
    out, before = split_of(hold_out(frames, [name])), split_of(frames)
    assert (out[frames.identity == 1] == SPLITS.index("test")).all()
    np.testing.assert_array_equal(out[frames.identity != 1], before[frames.identity != 1])


def test_the_datas_hash_says_who_is_held_out(frames):
    twice = [hold_out(frames, names).meta["hash"] for names in (["ben", "anna.mp4"], ["0", "1", "ben"])]
    assert twice[0] == twice[1] and twice[0] != hold_out(frames, ["ben"]).meta["hash"] != frames.meta["hash"]


def test_many_who_are_held_out_have_a_short_hash(tmp_path):
    """Files are named after it."""
    frames = drawn_clips(tmp_path / "many", list(np.repeat(range(100), 4)), size=8)
    each = [hold_out(frames, [str(k) for k in range(first, first + 90)]).meta["hash"] for first in (0, 1)]
    assert each[0] != each[1] and max(map(len, each)) < 64


@pytest.mark.parametrize(("names", "said"), [
    (["bem.mov"], r"nobody called 'bem.mov'; it shows ben\.mov"),
    (["7"], "nobody called '7'; it shows anna.mp4, ben.mov, carl.mp4, carl.mov"),
    (["carl"], "several people of .*: carl.mp4, carl.mov"),
    (["0", "1", "2", "3"], "nobody is left to train on"),
])  # fmt: skip
def test_wrong_names_are_refused(frames, names, said):
    with pytest.raises(UserError, match=said):
        hold_out(frames, names)


def test_a_world_has_nobody_to_hold_out():
    e = smoke()
    with pytest.raises(UserError, match="--hold-out and mixed training"):
        open_data(dataclasses.replace(e, world=dataclasses.replace(e.world, hold_out=("anna",))))


def test_tables_say_who_was_seen(frames, smoke_frames):
    assert "never trained on" in who_was_seen(smoke_frames)
    seen, held = who_was_seen(frames), who_was_seen(hold_out(frames, ["anna"]))
    assert "seen in training" in seen and "(anna.mp4, ben.mov, carl.mp4, carl.mov)" in seen and "unseen" not in seen
    assert "(ben.mov, carl.mp4, carl.mov); unseen" in held and "was trained on (anna.mp4)" in held
