"""Batches of teacher pairs: by (seed, step) alone, in parts for ranks, and of no more memory for a larger store."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from helpers import teacher

from i4d_bench.data.teacher.store import Store, Writer, write_index
from i4d_bench.data.teacher.stream import Draws, stream
from i4d_bench.types import UserError


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    return Store(teacher.store(tmp_path_factory.mktemp("teacher") / "s", people=5, drivers=6))


def test_a_step_takes_people_and_pairs_of_theirs(opened):
    draws = Draws(opened, "train", people=3, pairs=4, seed=0)
    rows = draws.draw(7).reshape(3, 4)
    who = opened.identity[rows]
    assert (who == who[:, :1]).all() and len(set(who[:, 0])) == 3 and all(len(set(r)) == 4 for r in rows)
    assert "p004" not in opened.people[who], "the validation's person is not trained on"
    np.testing.assert_array_equal(rows.ravel(), Draws(opened, "train", 3, 4, 0).draw(7))
    assert not np.array_equal(rows.ravel(), draws.draw(8))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_in_order_and_resume_at_any_step(opened, workers):
    draws = Draws(opened, "train", 2, 2, 0)
    whole = list(stream(opened, draws, range(4), workers))
    rest = list(stream(opened, draws, range(2, 4), workers))
    for a, b in zip(whole[2:], rest, strict=True):
        assert torch.equal(a["target"]["rgb"], b["target"]["rgb"])
    rows = draws.draw(1)
    for role, of in (("target", rows), ("source", rows[::2])):  # one source of each person
        truth = np.stack([opened.read(int(r))[role]["alpha"] for r in of])
        np.testing.assert_array_equal(whole[1][role]["alpha"].numpy(), truth)
    assert whole[0]["driver"]["coefficients"].shape == (4, 52) and whole[0]["target"]["rgb"].dtype == torch.uint8


def test_ranks_have_parts_of_one_batch(opened):
    draws = Draws(opened, "train", 4, 2, 0)
    whole = next(stream(opened, draws, range(1), 0))["target"]["rgb"].unflatten(0, (4, 2))
    for rank in range(2):
        part = next(stream(opened, draws, range(1), 0, slice(rank, None, 2)))
        assert torch.equal(part["target"]["rgb"], whole[rank::2].flatten(0, 1))


def test_a_damaged_row_stops_training_in_one_sentence(tmp_path):
    folder = teacher.store(tmp_path / "s", people=2, drivers=1)
    (folder / "shards" / "0-00000.tar").write_bytes(b"\0" * 100)
    s = Store(folder)
    for workers in (0, 1):
        with pytest.raises(UserError, match=r"^row 0 of .* ends before it.*--leave-out` goes without$"):
            next(stream(s, Draws(s, "train", 1, 1, 0), range(1), workers))


def test_true_views_are_drawn_apart(tmp_path):
    with Writer(tmp_path) as w:
        for d in range(6):
            w.add(dataclasses.replace(teacher.row(0, d), view=d % 3), teacher.sample(d))
    write_index(tmp_path)
    s = Store(tmp_path)
    for true_views, views in ((False, {0}), (True, {1, 2})):
        assert set(s.view[Draws(s, "train", 1, 4, 0, true_views).draw(0)]) == views


def test_pictures_of_two_sizes_stop_training_in_one_sentence(tmp_path):
    with Writer(tmp_path) as w:
        for d in range(2):
            w.add(teacher.row(0, d), teacher.sample(d, size=16 * (d + 1)))
    write_index(tmp_path)
    s = Store(tmp_path)
    with pytest.raises(UserError, match=r"several sizes: `i4d-bench data check .* --leave-out`"):
        next(stream(s, Draws(s, "train", 1, 2, 0), range(1), 0))


def test_a_store_without_the_split_is_one_sentence(opened):
    with pytest.raises(UserError, match="no pictures of the split test"):
        Draws(opened, "test", 1, 1, 0)
    with pytest.raises(UserError, match="no true views of the split train"):
        Draws(opened, "train", 1, 1, 0, true_views=True)
