"""Locks hold between processes and machines, without what file systems offer, and do not outlive their holders."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from filelock import Timeout
from helpers import ROOT

from i4d_bench import cache

LOST, RENEWED, WORDLESS = 2.0, 0.2, 0.3
QUICK = f"""from pathlib import Path
from i4d_bench import cache
cache.LOST, cache.RENEWED, cache.LOOK, cache.WORDLESS = {LOST}, {RENEWED}, 0.01, {WORDLESS}"""
HOLDS = f"{QUICK}\nimport sys, time\nwith cache.alone(Path(sys.argv[1])): print('mine', flush=True); time.sleep(60)"
COUNTS = f"""{QUICK}
import sys
path = Path(sys.argv[1])
for _ in range(50):
    with cache.alone(path):
        number = int(path.read_text())
        path.write_text('half')
        path.write_text(str(number + 1))"""


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    for name, seconds in {"LOST": LOST, "RENEWED": RENEWED, "LOOK": 0.01, "WORDLESS": WORDLESS}.items():
        monkeypatch.setattr(cache, name, seconds)


def started(code, path) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=ROOT, stdout=subprocess.PIPE, encoding="utf-8")


@contextmanager
def holder(path):
    """Another process that holds the lock of `path`."""
    process = started(HOLDS, path)
    try:
        assert process.stdout.readline() == "mine\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def lease(path):
    return path.with_name(f".{path.name}.lease")


def move_elsewhere(path):
    """The lock's holder is on another machine from now on."""
    lines = lease(path).read_text(encoding="utf-8").splitlines(keepends=True)
    moved = ["host=another-machine\n" if line.startswith("host=") else line for line in lines]
    assert moved != lines
    lease(path).write_text("".join(moved), encoding="utf-8")


def seconds_to_get(path, limit=10.0) -> float:
    begun, lock = time.monotonic(), cache.lock(path)
    cache.acquire(lock, limit)
    lock.release()
    return time.monotonic() - begun


def test_processes_exclude_each_other(tmp_path):
    (tmp_path / "number").write_text("0", encoding="utf-8")
    workers = [started(COUNTS, tmp_path / "number") for _ in range(3)]
    assert [w.wait() for w in workers] == [0, 0, 0]
    assert (tmp_path / "number").read_text(encoding="utf-8") == "150"
    assert [p.name for p in tmp_path.iterdir()] == ["number"], "nothing stays of the locks"


def test_who_waits_says_so(tmp_path, capsys):
    with holder(tmp_path / "a") as other:
        with pytest.raises(Timeout):
            cache.lock(tmp_path / "a").acquire(timeout=0)
        waiting = started(HOLDS, tmp_path / "a")
        assert f"waiting for another process that makes {tmp_path / 'a'}" in waiting.stdout.readline()
        other.kill()
        assert waiting.stdout.readline() == "mine\n"
        waiting.kill()
        waiting.communicate()


def test_a_killed_holder_is_noticed_at_once(tmp_path):
    with holder(tmp_path / "a") as other:
        other.kill()
        other.wait()
        assert lease(tmp_path / "a").exists()
        assert seconds_to_get(tmp_path / "a") < LOST / 4


def test_a_holder_that_was_killed_before_it_said_who_it_is_holds_nothing(tmp_path):
    lease(tmp_path / "a").touch()
    assert seconds_to_get(tmp_path / "a") < LOST
    with holder(tmp_path / "a"), pytest.raises(Timeout):
        cache.acquire(cache.lock(tmp_path / "a"), 3 * WORDLESS)


def test_another_process_that_has_the_holders_number_is_not_it(tmp_path):
    with holder(tmp_path / "a") as other, holder(tmp_path / "b") as living:
        other.kill()
        other.wait()
        text = lease(tmp_path / "a").read_text(encoding="utf-8")
        lease(tmp_path / "a").write_text(text.replace(f"pid={other.pid}", f"pid={living.pid}"), encoding="utf-8")
        if "start=" not in text:
            pytest.skip("this system does not say when a process began")
        assert seconds_to_get(tmp_path / "a") < LOST / 4


def test_a_holder_on_another_machine_keeps_the_lock_while_it_renews_it(tmp_path):
    with holder(tmp_path / "a") as other:
        move_elsewhere(tmp_path / "a")
        with pytest.raises(Timeout):
            seconds_to_get(tmp_path / "a", 2 * LOST)
        other.kill()
        other.wait()
        assert LOST * 0.9 < seconds_to_get(tmp_path / "a") < 2 * LOST


def test_a_holder_that_lost_its_lock_says_so_and_leaves_the_others(tmp_path, capsys):
    mine = cache.lock(tmp_path / "a")
    mine.acquire()
    lease(tmp_path / "a").unlink()  # as one does that saw no sign of it
    others = cache.lock(tmp_path / "a")
    others.acquire(timeout=1)
    time.sleep(5 * RENEWED)
    assert "another process took" in capsys.readouterr().out
    mine.release()
    assert lease(tmp_path / "a").exists()
    others.release()
    assert not lease(tmp_path / "a").exists()
