"""The main table as a run's last words: the columns that fit, all notes, and where the rest is."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from i4d_bench.printing import print_table
from i4d_bench.report.columns import Column, reference_rows
from i4d_bench.report.rows import Row

ORDER = (
    "self driving gap",
    "unseen self driving gap",
    "self PSNR",
    "cross driving gap",
    "self LPIPS (alex)",
    "cross AED",
    "cross CSIM",
    "FPS",
    "onset",
    "cross PSNR",
    "unseen self PSNR",
    "unseen cross",
)
"""What heads begin with, the most important first; the others follow in their own order."""


def show(folder: Path, tables: dict[str, list[Column]], designs: dict[str, Row], notes: list[str]) -> None:
    """Prints the first table, its notes, and the folder."""
    title, every = next(iter(tables.items()))
    columns = [c for c in every if not c.empty]
    heads = ["design", *(c.head for c in columns)]
    rows = [[d + row.mark, *(_cell(c, d) for c in columns)] for d, row in designs.items()]
    known = [
        [f"({name})", *(_padded(c, c.text(c.references.get(name, np.nan))) for c in columns)]
        for name in reference_rows(columns)
    ]
    print(f"\n{title}\n")
    left_out = print_table(heads, rows, sorted(heads[1:], key=_importance), known)
    print()
    if any(c.bold for c in columns):
        print("* best, or not significantly worse")
    for line in notes:
        print(line)
    more = f" with {len(left_out)} more columns" if left_out else ""
    print(f"the whole table{more}: {folder / 'main.md'}")


def _cell(column: Column, design: str) -> str:
    text = column.printed(design)
    return f"{text}*" if design in column.bold and np.isfinite(column.values[design]) else _padded(column, text)


def _padded(column: Column, text: str) -> str:
    return text + " " * bool(text and column.bold)


def _importance(head: str) -> int:
    return next((k for k, start in enumerate(ORDER) if head.startswith(start)), len(ORDER))
