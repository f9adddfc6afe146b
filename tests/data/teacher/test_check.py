"""`i4d-bench data check`: each kind of bad row is named, the good ones stay."""

from __future__ import annotations

import dataclasses
import os

import pytest
from helpers import teacher

from i4d_bench.data.teacher.check import check
from i4d_bench.data.teacher.store import Store, Writer, standing, write_index
from i4d_bench.types import UserError

BAD = 5


@pytest.fixture
def folder(tmp_path):
    return teacher.store(tmp_path / "s")


def spoil(folder, **changes):
    rows = Store(folder).rows()
    rows[BAD] = dataclasses.replace(rows[BAD], **changes)
    write_index(folder, rows)


def overwrite(folder, change):
    row, path = Store(folder).rows()[BAD], folder / "shards" / "0-00000.tar"
    content = bytearray(path.read_bytes())
    change(content, row)
    path.write_bytes(content)


def flip(content, row):
    content[row.offset + 700] ^= 255


def test_a_good_store_is_good(folder, capsys):
    assert check(folder) == 0
    assert "12 good, 0 bad, 0 failed; 3 people" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"shard": "gone.tar"}, "gone.tar cannot be opened"),
        ({"shard": "../../elsewhere.tar"}, "lies outside the store"),
        ({"shard": "/etc/passwd"}, "lies outside the store"),
        ({"offset": 10**9}, "ends before it"),
        ({"offset": -1}, "makes no sense"),
        ({"length": 0}, "makes no sense"),
        ({"sha256": "0" * 64}, "sha256"),
        ({"id": "p000-d000"}, "stands in 2 rows"),
        ({"split": "training"}, "no split 'training'"),
    ],
)
def test_a_bad_row_is_named(folder, capsys, changes, said):
    spoil(folder, **changes)
    assert check(folder) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("row ")]
    assert any(line.startswith(f"row {BAD}, ") and said in line for line in lines)
    assert len(lines) == (2 if "id" in changes else 1)


def test_a_damaged_picture_is_named(folder, capsys):
    overwrite(folder, flip)
    assert check(folder) == 1
    assert f"row {BAD}, p001-d001: its bytes are not those that were written" in capsys.readouterr().out


def test_another_samples_bytes_are_seen(folder, capsys):
    other = Store(folder).rows()[0]
    spoil(folder, offset=other.offset, length=other.length, sha256=other.sha256)
    assert check(folder) == 1 and "the sample there is p000-d000's" in capsys.readouterr().out


def test_a_size_unlike_the_others_is_named(folder, capsys):
    with Writer(folder) as w:
        w.add(teacher.row(7, 7), teacher.sample(7, 32))
    write_index(folder)
    assert check(folder) == 1 and "its pictures are 32 × 32, most are 16 × 16" in capsys.readouterr().out


def test_a_shard_cut_short_spoils_only_its_end(folder, capsys):
    row = Store(folder).rows()[9]
    os.truncate(folder / "shards" / "0-00000.tar", row.offset + 100)
    assert check(folder) == 1
    assert "9 good, 3 bad" in capsys.readouterr().out


def test_bad_rows_are_left_out_where_asked_and_can_be_made_again(folder, capsys):
    overwrite(folder, flip)
    assert check(folder, leaving_out=True) == 0
    s = Store(folder)
    assert not s.good[BAD] and s.good.sum() == 11
    assert check(folder) == 0 and check(folder, complete=True) == 1
    assert "1 pair(s) failed when they were made: bad: its bytes are not" in capsys.readouterr().out
    with Writer(folder) as w:
        assert [r.id for r in standing(folder).values() if r.failure] == ["p001-d001"]
        w.add(teacher.row(1, 1), teacher.sample(BAD))
    write_index(folder)
    assert check(folder, complete=True) == 0


def test_a_damaged_row_says_how_to_go_without_it(folder):
    spoil(folder, offset=10**9)
    with pytest.raises(UserError, match=r"row 5 of .* ends before it.* --leave-out"):
        Store(folder).read(BAD)


def test_failures_count_where_completeness_is_asked_for(folder):
    with Writer(folder) as w:
        w.fail(teacher.row(8, 8), "the animator crashed: out of memory")
    write_index(folder)
    assert check(folder) == 0 and check(folder, complete=True) == 1
