"""`teacher make`: what is there is not made again, failures are rows, and workers share a store."""

from __future__ import annotations

import multiprocessing
import time

import pytest
from helpers import teacher

from i4d_bench.data.teacher.check import check
from i4d_bench.data.teacher.pairs import make
from i4d_bench.data.teacher.store import Store, standing
from i4d_bench.types import UserError


def contents(folder) -> dict[str, str]:
    return {r.id: r.sha256 for r in Store(folder).rows()}


def test_workers_make_what_one_makes(tmp_path):
    assert make(teacher.Maker(), tmp_path / "one") == 0 and make(teacher.Maker(), tmp_path / "two", workers=2) == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "two") and len(contents(tmp_path / "one")) == 12
    assert check(tmp_path / "two", complete=True) == 0


def test_what_is_there_is_not_made_again(tmp_path, capsys):
    make(teacher.Maker(people=2), tmp_path / "s")
    before = contents(tmp_path / "s")
    size = (tmp_path / "s" / "shards" / "0-00000.tar").stat().st_size
    capsys.readouterr()
    assert make(teacher.Maker(), tmp_path / "s") == 0
    assert "8 pairs are there, 4 are to be made" in capsys.readouterr().out
    assert before.items() <= contents(tmp_path / "s").items()
    assert (tmp_path / "s" / "shards" / "0-00000.tar").stat().st_size < 2 * size


@pytest.mark.parametrize("workers", [1, 2])
def test_it_goes_on_after_kill_9(tmp_path, workers):
    """A killed command, or a killed worker: what was made is kept, and the same command ends it."""
    dying = teacher.Maker(dying="p001-d002")
    if workers == 1:
        process = multiprocessing.get_context("spawn").Process(target=make, args=(dying, tmp_path / "s"))
        process.start()
        process.join()
        assert process.exitcode == -9
    else:
        with pytest.raises(UserError, match="a worker was killed"):
            make(dying, tmp_path / "s", workers)
    assert make(teacher.Maker(), tmp_path / "s", workers, complete=True) == 0
    assert len(contents(tmp_path / "s")) == 12 and check(tmp_path / "s", complete=True) == 0


def test_workers_end_with_a_killed_command(tmp_path):
    """Otherwise they would hold the store for ever."""
    process = multiprocessing.get_context("spawn").Process(
        target=make, args=(teacher.Maker(waiting="p002-d003"), tmp_path / "s", 2)
    )
    process.start()
    while len(standing(tmp_path / "s")) < 11:
        time.sleep(0.05)
    process.kill()
    process.join()
    assert make(teacher.Maker(), tmp_path / "s", 2, complete=True) == 0
    assert len(contents(tmp_path / "s")) == 12


def test_failures_are_listed_and_tried_again_where_asked(tmp_path, capsys):
    failing = teacher.Maker(failing=("p000-d001", "p002-d001", "p002-d003"))
    assert make(failing, tmp_path / "s") == 0
    out = capsys.readouterr().out
    assert "2 failed: d001.png shows no face" in out and "9 pairs, 3 failed" in out
    assert make(failing, tmp_path / "s", complete=True) == 1
    assert make(teacher.Maker(), tmp_path / "s", complete=True) == 1, "not tried again unasked"
    assert make(teacher.Maker(), tmp_path / "s", retry=True, complete=True) == 0
    assert all(r.failure == "" for r in Store(tmp_path / "s").rows())


def test_nothing_made_is_a_failure(tmp_path):
    assert make(teacher.Maker(people=1, drivers=1, failing=("p000-d000",)), tmp_path / "s") == 1


def test_a_folder_of_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="no store of teacher pairs"):
        make(teacher.Maker(), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
