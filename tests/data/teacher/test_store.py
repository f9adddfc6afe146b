"""The store of teacher pairs: what is written comes back, whatever ended the writing, and any tool reads it."""

from __future__ import annotations

import dataclasses
import errno
import json
import pathlib
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from helpers import ROOT, teacher

from i4d_bench.data.teacher import store as module
from i4d_bench.data.teacher.samples import IMAGES, NUMBERS, ROLES, pack, unpack
from i4d_bench.data.teacher.store import Store, Writer, standing, write_index
from i4d_bench.types import UserError


def test_a_sample_comes_back():
    """Numbers and masks to the bit; pictures as JPEG leaves them."""
    before = teacher.sample(0, 64)
    after = unpack(pack("a", before), "a")
    for role in ROLES:
        for name in (*IMAGES, *NUMBERS):
            if name != "rgb":
                np.testing.assert_array_equal(after[role][name], before[role][name])
        error = np.mean((after[role]["rgb"].astype(float) - before[role]["rgb"]) ** 2)
        assert 10 * np.log10(255**2 / error) > 38


def test_a_store_is_read_by_its_index(tmp_path):
    s = Store(teacher.store(tmp_path / "s"))
    assert len(s) == 12 and len(s.within("train")) == 8 and len(s.within("val")) == 4 and not len(s.within("test"))
    assert list(s.people) == ["p000", "p001", "p002"]
    rows = s.rows()
    np.testing.assert_array_equal(s.read(5)["target"]["alpha"], teacher.sample(5)["target"]["alpha"])
    np.testing.assert_allclose(rows[5].camera[:16], teacher.sample(5)["target"]["viewmats"].ravel())


def test_shards_are_tars_and_no_larger_than_asked(tmp_path):
    folder = teacher.store(tmp_path / "s", shard_bytes=60_000)
    shards = sorted((folder / "shards").glob("*.tar"))
    assert len(shards) > 2 and all(p.stat().st_size <= 60_000 + 1024 for p in shards)
    names = []
    for path in shards:
        with tarfile.open(path) as tar:
            names += tar.getnames()
    assert len(names) == 12 * 10 and "p001-d002.target.alpha.png" in names and "p001-d002.json" in names
    numbers = json.loads(tarfile.open(shards[0]).extractfile("p000-d000.json").read())
    assert len(numbers["driver"]["coefficients"]) == 52


def test_the_same_pairs_are_the_same_bytes(tmp_path):
    a, b = (teacher.store(tmp_path / name) for name in "ab")
    assert (a / "shards" / "0-00000.tar").read_bytes() == (b / "shards" / "0-00000.tar").read_bytes()


@pytest.mark.parametrize("when", ["half a sample", "half a row", "a sample without its row"])
def test_a_killed_writer_goes_on_from_its_last_row(tmp_path, when):
    folder = tmp_path / "s"
    w = Writer(folder)
    w.add(teacher.row(0, 0), teacher.sample(0))
    w.add(teacher.row(0, 1), teacher.sample(1))
    tar, journal = w.path, w.path.with_suffix(".jsonl")
    if when == "half a row":
        journal.write_bytes(journal.read_bytes()[:-9])
    else:
        piece = pack("x", teacher.sample(9))
        with tar.open("ab") as file:
            file.write(piece[:1000] if when == "half a sample" else piece)
    w.lock.release()  # as is noticed of a killed process
    done = set(standing(folder)) if when != "half a row" else {"p000-d000"}
    with Writer(folder) as again:
        for k in range(4):
            if teacher.row(0, k).id not in done:
                again.add(teacher.row(0, k), teacher.sample(k))
    write_index(folder)
    s = Store(folder)
    assert [r.id for r in s.rows()] == [teacher.row(0, k).id for k in range(4)]
    for k in range(4):
        np.testing.assert_array_equal(s.read(k)["driver"]["region"], teacher.sample(k)["driver"]["region"])
    with tarfile.open(tar) as t:
        assert len(t.getnames()) == 40


def test_kill_9_leaves_a_store_that_goes_on(tmp_path):
    code = (
        "import os, signal, sys; sys.path[:0] = sys.argv[2:]; from pathlib import Path; from helpers import teacher\n"
        "from i4d_bench.data.teacher.store import Writer\n"
        "w = Writer(Path(sys.argv[1]))\n"
        "for k in range(3): w.add(teacher.row(0, k), teacher.sample(k))\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "s"), str(ROOT), str(ROOT / "tests")])
    assert done.returncode == -9
    with Writer(tmp_path / "s") as w:
        w.add(teacher.row(0, 3), teacher.sample(3))
    write_index(tmp_path / "s")
    s = Store(tmp_path / "s")
    assert len(s) == 4 and all(s.read(k) for k in range(4))


def test_a_disk_that_fills_up_keeps_what_was_written(tmp_path, monkeypatch):
    """The bytes of half a sample go again, and the next call goes on."""
    folder = tmp_path / "s"
    w = Writer(folder)
    w.add(teacher.row(0, 0), teacher.sample(0))
    size, opened = w.path.stat().st_size, pathlib.Path.open

    class Full:
        """Takes 2,000 bytes and then has no room."""

        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def seek(self, *where):
            return self.file.seek(*where)

        def write(self, piece):
            self.file.write(piece[:2000])
            self.file.flush()
            raise OSError(errno.ENOSPC, "No space left on device")

    def on_a_full_disk(path, *mode, **more):
        file = opened(path, *mode, **more)
        return Full(file) if mode == ("ab",) else file

    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "open", on_a_full_disk)
        with pytest.raises(UserError, match="No space left"):
            w.add(teacher.row(0, 1), teacher.sample(1))
    assert w.path.stat().st_size == size
    w.add(teacher.row(0, 1), teacher.sample(1))
    w.close()
    write_index(folder)
    assert len(Store(folder)) == 2 and Store(folder).read(1)


def test_two_writers_have_shards_of_their_own(tmp_path, monkeypatch):
    with Writer(tmp_path / "s", "a") as a, Writer(tmp_path / "s", "b") as b:
        a.add(teacher.row(0, 0), teacher.sample(0))
        b.add(teacher.row(0, 1), teacher.sample(1))
        monkeypatch.setattr(module, "WAIT", 0)
        with pytest.raises(UserError, match="another process"):
            Writer(tmp_path / "s", "a")
    write_index(tmp_path / "s")
    assert {r.shard for r in Store(tmp_path / "s").rows()} == {"a-00000.tar", "b-00000.tar"}


def test_a_failure_is_a_row_until_there_is_a_picture(tmp_path):
    folder = tmp_path / "s"
    with Writer(folder) as w:
        w.fail(teacher.row(0, 0), "the animator wrote nothing")
        w.fail(teacher.row(0, 1), "")
    write_index(folder)
    s = Store(folder)
    assert [r.failure for r in s.rows()] == ["the animator wrote nothing", "no reason was given"]
    assert not len(s.within("train"))
    with Writer(folder) as w:
        w.add(teacher.row(0, 0), teacher.sample(0))
    write_index(folder)
    assert [bool(r.failure) for r in Store(folder).rows()] == [False, True]


@pytest.mark.parametrize("key", ["", "a/b", "a.b", "x" * 200])
def test_a_key_that_a_tar_would_misread_is_refused(key):
    with pytest.raises(ValueError, match="key"):
        pack(key, teacher.sample(0))


def test_wrong_pictures_are_refused():
    wrong = teacher.sample(0)
    wrong["driver"] = teacher.picture(1, 32)
    with pytest.raises(ValueError, match="pictures of 2 sizes"):
        pack("a", wrong)
    del wrong["target"]
    with pytest.raises(ValueError, match="there is no target"):
        pack("a", wrong)


def test_what_is_no_store_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="no store of teacher pairs"):
        Store(tmp_path)
    (tmp_path / "index.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(UserError, match="is damaged"):
        Store(tmp_path)
    import pandas as pd

    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "index.parquet")
    with pytest.raises(UserError, match="has no column"):
        Store(tmp_path)


def test_the_index_is_a_table_that_pandas_reads(tmp_path):
    import pandas as pd

    table = pd.read_parquet(teacher.store(tmp_path / "s") / "index.parquet")
    assert list(table.columns) == [f.name for f in dataclasses.fields(module.Row)] and len(table) == 12
