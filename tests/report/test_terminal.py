"""A run's last words: the main table as wide as the terminal, the notes under it, and where the rest is."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from i4d_bench import printing
from i4d_bench.report.columns import Column
from i4d_bench.report.rows import Row
from i4d_bench.report.terminal import show
from i4d_bench.results.record import Record

DESIGNS = ("local_adaln", "global_interleaved_attention", "flame_uv")
HEADS = (
    "FPS ↑",
    "params (M)",
    "memory (MiB)",
    "self LPIPS (alex) ↓",
    "self PSNR ↑",
    "self driving gap ↑",
    "cross driving gap ↑",
)


@pytest.fixture
def shown(monkeypatch, capsys):
    """shown(width) → the lines that a terminal of that width gets."""
    columns = [Column(h, dict.fromkeys(DESIGNS, 1.234), 2, frozenset(["flame_uv"] * ("gap" in h))) for h in HEADS]
    columns[0].values["flame_uv"] = np.nan
    columns[0] = dataclasses.replace(columns[0], absent="‡")
    columns.append(Column("self CSIM ↑", dict.fromkeys(DESIGNS, np.nan), 2))
    record = lambda d, status: Record(d, d, "local", "cpu", {}, {}, 0, "sliders", {}, status)  # noqa: E731
    rows = {d: Row((record(d, s),)) for d, s in zip(DESIGNS, ("started", "did not start", "failed"), strict=True)}
    notes = [
        "cpu preset, …",
        "FPS: whole frames of …",
        "† Did not start: global_interleaved_attention (it ended at 0.21 dB).",
    ]

    def run(width: int, **references: dict[str, float]) -> list[str]:
        columns[:] = [dataclasses.replace(c, references=references.get(c.head.split()[0], {})) for c in columns]
        monkeypatch.setattr(printing, "console", Console(file=io.StringIO(), force_terminal=True, width=width))
        show(Path("reports/x"), {"Self and cross": columns, "Others": []}, rows, notes)
        return capsys.readouterr().out.splitlines()

    return run


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_table_fits_the_terminal_and_has_every_design(shown, width):
    lines = shown(width)
    table = lines[3 : lines.index("", 3)]
    assert max(map(len, table)) <= width and "gap ↑" in table[1]
    assert [line.split()[0] for line in table[3:]] == ["local_adaln", "global_interleaved_attention†", "flame_uv†"]
    left_out = f" with {len(HEADS) - (len(table[2].split()) - 1)} more columns" if width < 120 else ""
    assert lines[-1] == f"the whole table{left_out}: {Path('reports/x/main.md')}"


def test_what_is_best_or_did_not_start_is_said(shown):
    lines = shown(120)
    assert "1.23*" in next(line for line in lines if line.startswith("flame_uv"))
    assert "‡" in next(line for line in lines if line.startswith("flame_uv")), "no FPS"


def test_every_note_of_the_written_table_is_printed(shown):
    """Failed measurements, one seed, no FPS: who reads the terminal alone misses none."""
    lines = shown(80)
    at = lines.index("cpu preset, …")
    assert lines[at : at + 3] == [
        "cpu preset, …",
        "FPS: whole frames of …",
        "† Did not start: global_interleaved_attention (it ended at 0.21 dB).",
    ]


def test_a_reference_without_a_number_in_any_printed_column_is_left_out(shown):
    known = {"true frame": 0.1, "mean expression": np.nan}
    assert any(line.startswith("(true frame)") for line in shown(120, self=known))
    assert not any(line.startswith("(mean") for line in shown(120, self=known))
    assert not any(line.startswith("(true") for line in shown(60, params=known)), "its column has no room"
