"""A table takes the terminal's width and no more; what it leaves out is named by its caller."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from i4d_bench import printing
from i4d_bench.printing import counted, print_table

HEAD = ("design", "FPS", "PSNR", "empty", "gap")
ROWS = [("local_adaln", "1811", "31.01", "", "5.63"), ("static", "1937", "29.05", "", "0.00")]


@pytest.mark.parametrize(
    ("width", "left_out"),
    [
        (80, []),
        (30, []),
        (29, ["FPS"]),
        (24, ["FPS"]),
        (23, ["PSNR"]),
        (22, ["FPS", "PSNR"]),
        (17, ["FPS", "PSNR"]),
        (16, ["FPS", "PSNR", "gap"]),
    ],
)
def test_the_most_important_columns_that_fit_are_printed(monkeypatch, capsys, width, left_out):
    monkeypatch.setattr(printing, "console", Console(file=io.StringIO(), force_terminal=True, width=width))
    assert print_table(HEAD, ROWS, order=("gap", "PSNR", "FPS")) == left_out
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width and len(lines) == 4
    assert lines[0].split() == [h for h in HEAD if h not in (*left_out, "empty")]
    assert lines[2].startswith("local_adaln") and lines[3].startswith("static")


def test_a_log_takes_what_a_wide_terminal_takes(capsys):
    head = [f"column_{k}" for k in range(20)]
    assert print_table(head, [["x"] * 20]) == head[13:]
    assert 120 < len(capsys.readouterr().out.splitlines()[0]) <= 132


def test_heads_of_several_words_stand_in_two_lines(capsys):
    assert print_table(["design", "self driving gap ↑", "FPS ↑"], [["static", "0.00", "1937"]]) == []
    assert capsys.readouterr().out.splitlines() == [
        "design  self driving   FPS",
        "               gap ↑     ↑",
        "──────  ────────────  ────",
        "static          0.00  1937",
    ]


def test_one_is_not_many():
    assert [counted(n, "frame") for n in (0, 1, 2)] == ["0 frames", "1 frame", "2 frames"]
    assert counted(1, "person", "people") == "1 person" and counted(12, "person", "people") == "12 people"


def test_rows_below_are_printed_where_they_have_something_to_show(capsys):
    below = [("true frame", "", "", "1.00", ""), ("photo", "", "29.00", "", "")]
    assert print_table(HEAD, ROWS, under=below) == []
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:]] == ["local_adaln", "static", "photo"]


def test_no_rows_is_a_head(capsys):
    assert print_table(HEAD, []) == [] and capsys.readouterr().out.startswith("design")
