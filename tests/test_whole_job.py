"""Beside each phase stands how far the whole job is, and what it has left."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from i4d_bench import progress
from i4d_bench.progress import Whole, duration, track


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes by hand: clock(seconds)."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])

    def wait(seconds: float) -> None:
        now[0] += seconds

    return wait


@pytest.fixture
def log(monkeypatch):
    """What was printed where there is no terminal."""
    out = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=out, soft_wrap=True, highlight=False))
    return lambda: out.getvalue().splitlines()


def test_each_phase_says_how_far_the_job_is(clock, log):
    with Whole(18, "designs", done=15) as whole:
        for _ in track(range(1), "rendering", 1):
            clock(300)
        for _ in whole.parts("abc"):
            for _ in track(range(2), "training", 2):
                clock(300)
            clock(60)
    assert [line.partition("; ")[2] for line in log()] == [
        "15 of 18 designs",  # what the designs share says nothing of them
        "15 of 18 designs, 25 min left",  # the phase takes 600 s, so three designs 1800 s, of which 300 s are over
        "15 of 18 designs, 20 min left",
        "16 of 18 designs, 17 min left",  # the first took 660 s: two more, of which 300 s are over
        "16 of 18 designs, 12 min left",
        "17 of 18 designs, 6 min left",
        "17 of 18 designs, 60 s left",
    ]


def test_a_part_that_takes_long_has_the_others_left(clock):
    whole = Whole(4, "designs")
    parts = whole.parts("abcd")
    next(parts)
    clock(100)
    next(parts)
    clock(1000)
    assert whole.left() == 200 and whole.text() == "1 of 4 designs, 3 min left"


def test_before_anything_is_known_no_time_is_named(clock):
    assert Whole(4, "designs", done=1).text() == "1 of 4 designs"


def test_parts_of_other_processes_are_told_as_they_finish(clock, log):
    def finished():
        for name in "abcd":
            clock(120)
            yield name

    assert list(Whole(4, "designs trained").parts(finished(), say=True)) == list("abcd")
    assert log() == [
        "1 of 4 designs trained, 6 min left",
        "2 of 4 designs trained, 4 min left",
        "3 of 4 designs trained, 2 min left",
        "4 of 4 designs trained, 0 s left",
    ]


def test_a_job_inside_a_job_is_over_when_it_is_over(log):
    with Whole(1, "designs"):
        with Whole(2, "videos"):
            pass
        list(track([1], "phase", 1))
    list(track([1], "phase", 1))
    assert "of 1 designs" in log()[0] and "of 1" not in log()[1]


def test_processes_beside_others_write_lines_on_a_terminal_too(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=out, force_terminal=True, highlight=False))
    monkeypatch.setattr(progress, "_bars", True)
    progress.lines_only()
    list(track(range(3), "training", 3))
    assert out.getvalue().count("\n") == 1 and "3/3" in out.getvalue()


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0 s"), (89, "89 s"), (90, "2 min"), (1200, "20 min"), (12000, "3 h 20 min")]
)
def test_durations_are_short(seconds, said):
    assert duration(seconds) == said
