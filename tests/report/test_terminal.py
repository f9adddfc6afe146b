"""A run's last words: the main table as wide as the terminal, what is to be said of its designs, and where the rest is."""

from __future__ import annotations

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
    record = lambda d, status: Record(d, d, "local", "cpu", {}, {}, 0, "sliders", {}, status)  # noqa: E731
    rows = {d: Row((record(d, s),)) for d, s in zip(DESIGNS, ("started", "did not start", "failed"), strict=True)}
    notes = [
        "cpu preset, …",
        "FPS: whole frames of …",
        "† global_interleaved_attention: did not start (it ended at 0.21 dB).",
    ]

    def run(width: int) -> list[str]:
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
    assert "† global_interleaved_attention: did not start (it ended at 0.21 dB)." in lines
    assert "FPS: whole frames of …" in lines and not any("cpu preset" in line for line in lines)
