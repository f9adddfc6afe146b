"""A page's table as JSON: columns that are sorted and filtered by, rows in blocks, cells with their intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from i4d_bench.metrics.cards import CARDS
from i4d_bench.report.columns import SET_NAMES, Column, reference_rows
from i4d_bench.report.rows import BLOCKS, Row

Cell = dict[str, Any] | None
"""v: a number or a text; of a measured mean also lo, hi, n, failures; best where it is printed in bold; as: how it is printed, if
not in its column's digits, or in place of a number (v is None). None: nothing is known."""
FIRST = ("gap", "aed_true", "aed_mp52", "csim_mobileface", "lpips_alex", "psnr")
"""Metrics that are shown before a reader chooses."""
FIRST_COSTS = ("params (M)", "onset (steps)", "seeds")


@dataclass(frozen=True)
class Head:
    """One column. words: what it holds are words; filtered: rows are chosen by them, at first those of `wanted`.
    better: "high", "low" or "". about: what it means. failed: what becomes of failed measurements. shown: before a reader
    chooses."""

    head: str
    group: str = ""
    digits: int = 0
    better: str = ""
    about: str = ""
    failed: str = ""
    words: bool = False
    filtered: bool = False
    wanted: str = ""
    shown: bool = True


def table(title: str, noun: str, heads: Iterable[Head], rows: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """noun: what its rows are. rows: of `row`, with as many cells as there are heads. Columns without any are left out."""
    heads = list(heads)
    kept = [k for k in range(len(heads)) if any(r["cells"][k] for r in rows)]
    lines = [r | {"cells": [r["cells"][k] for k in kept]} for r in rows]
    return {
        "title": title,
        "noun": noun,
        "columns": [vars(heads[k]) for k in kept],
        "rows": lines,
        "blocks": BLOCKS,
        **more,
    }


def row(name: str, cells: list[Cell], family: str = "", block: str = "fair", mark: str = "") -> dict[str, Any]:
    return {"name": name, "mark": mark, "block": block, "family": family, "cells": cells}


def number(value: float | None, **more: Any) -> Cell:
    return None if value is None or not math.isfinite(value) else {"v": value, **more}


def of_columns(title: str, columns: list[Column], designs: Mapping[str, Row]) -> dict[str, Any]:
    """A table of designs. Its words are the family and what became of the runs."""
    kept = [c for c in columns if not c.empty]  # references have cells for these
    words = [Head(name, "design", words=True, filtered=True, shown=False) for name in ("family", "status")]
    rows = [
        row(
            name,
            [{"v": r.family}, {"v": r.status}, *(_cell(c, name) for c in kept)],
            r.family,
            r.block,
            r.mark,
        )
        for name, r in designs.items()
    ]
    known = [
        row(name, [None, {"v": "reference"}, *(number(c.references.get(name)) for c in kept)])
        for name in reference_rows(kept)
    ]
    return table(title, "designs", [*words, *map(_head, kept)], rows, references=known)


def _head(column: Column) -> Head:
    if not column.of[0]:
        better = {"↑": "high", "↓": "low"}.get(column.head[-1], "")
        rate = column.head.startswith("lr ")  # of a search, whose columns are all there is to see
        shown = rate or column.head in FIRST_COSTS or column.of[1] == "fps"
        about = CARDS[column.of[1]].definition if column.of[1] else ""
        return Head(column.head, "", column.digits, better, about, shown=shown)
    set_, metric = column.of
    card = CARDS[metric]
    better = {True: "high", False: "low", None: ""}[card.higher_is_better]
    about = card.definition + (f"; {card.network}" if card.network else "") + (f" ({card.unit})" if card.unit else "")
    shown = metric in FIRST and not set_.endswith("recon")
    head = f"{card.label} {card.arrow}".strip()
    return Head(head, SET_NAMES[set_], column.digits, better, about, card.failed, shown=shown)


def _cell(column: Column, name: str) -> Cell:
    more: dict[str, Any] = {"best": True} if name in column.bold else {}
    if interval := column.intervals.get(name):
        more |= {"n": interval.n, "failures": interval.failures}
        if math.isfinite(interval.lo):
            more |= {"lo": interval.lo, "hi": interval.hi}
    return number(column.values[name], **more) or ({"v": None, "as": column.absent} if column.absent else None)
