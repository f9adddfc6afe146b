"""appendix.tex: every column, every comparison and every note of a report, as a document of two columns.

`\\usepackage{docmute}` lets a paper `\\input` it without its preamble.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, pairwise
from pathlib import Path

import pandas as pd

from i4d_bench.metrics.cards import CARDS
from i4d_bench.report import latex, pairs
from i4d_bench.report.columns import SET_NAMES, Column
from i4d_bench.report.drawing import plain
from i4d_bench.report.rows import Row
from i4d_bench.report.writing import write_text

MOST_COLUMNS, MOST_ROWS, FLOATS = 8, 45, 6
"""Of a table; and how many tables wait for a page at most."""


def write(
    folder: Path,
    columns: Sequence[Column],
    designs: dict[str, Row],
    notes: Sequence[str],
    compared: tuple[str | None, pd.DataFrame] | None = None,
    title: str = "",
) -> None:
    """compared: the baseline, and what `pairs.pairs` found. title: of columns that belong to no test set."""
    shown = [c for c in columns if not c.empty]
    parts = []
    for group, own in groupby(shown, lambda c: c.group):
        for some in _pieces(list(own), MOST_COLUMNS):
            for rows in _pieces(list(designs.items()), MOST_ROWS):
                parts.append(latex.floating(latex.table(some, dict(rows), True), _caption(group or title, some), True))
    parts += _matrices(*compared) if compared else []
    write_text(folder / "appendix.tex", latex.document([*paged(parts), _listed(notes)]))


def printed(frame: pd.DataFrame, caption: str) -> list[str]:
    """Floats of a table of numbers and text, MOST_ROWS rows each; of "median (low to high)" the median."""
    heads = [latex.line("", [latex.head(str(c)) for c in frame.columns[1:]])]
    lines = [
        latex.line(latex.escape(str(first)), map(_median, cells)) for first, *cells in frame.itertuples(index=False)
    ]
    body = [
        latex.tabular(heads, some, "r" * (len(frame.columns) - 1), latex.DENSE) for some in _pieces(lines, MOST_ROWS)
    ]
    return [latex.floating(some, latex.escape(f"{caption}. Medians; ranges are in the .csv."), True) for some in body]


def _median(cell: object) -> str:
    if isinstance(cell, float):
        return f"{cell:.4g}" if cell == cell else ""  # NaN differs from itself
    return latex.escape(str(cell).partition(" (")[0])


def paged(floats: Sequence[str]) -> list[str]:
    """With breaks, so that not too many wait for a page."""
    return [part for some in _pieces(list(floats), FLOATS) for part in (*some, r"\clearpage")]


def _pieces(items: list, most: int) -> list[list]:
    """In as few lists of about the same length as hold at most so many each."""
    count = -(-len(items) // most)
    bounds = [round(k * len(items) / count) for k in range(count + 1)] if count else []
    return [items[a:b] for a, b in pairwise(bounds)]


def _caption(group: str, columns: Sequence[Column]) -> str:
    labels = ", ".join(c.label.rstrip(" ↑↓") for c in columns)
    return latex.escape(f"{group[:1].upper()}{group[1:]}: {labels}." if group else f"{labels}.")


def _matrices(baseline: str | None, found: pd.DataFrame) -> list[str]:
    """A table of marks for each test set."""
    out = []
    for set_, table in pairs.matrices(found).items():
        heads = [
            rf"\rotatebox{{90}}{{{latex.escape(f'{CARDS[m].label} {CARDS[m].arrow}'.strip())}}}" for m in table.columns
        ]
        lines = [latex.line(latex.name(str(d)), map(latex.escape, marks)) for d, *marks in table.itertuples()]
        body = latex.tabular([latex.line("", heads)], lines, "c" * len(table.columns), latex.WIDE)
        compared = f"Differences from {plain(str(baseline))}, {SET_NAMES[set_]}; p after Holm over the designs."
        caption = f"{compared} {pairs.legend(found)}."
        out.append(latex.floating(body, latex.escape(caption), True))
    return out


def _listed(notes: Sequence[str]) -> str:
    items = "\n".join(rf"\item {latex.escape(note)}" for note in notes)
    return f"\\begin{{itemize}}\\raggedright\\small\n{items}\n\\end{{itemize}}" if notes else ""
