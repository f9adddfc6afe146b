"""Cells of tables of times: numbers with how they are printed. Printed tables have the text, .csv files the numbers alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Number:
    """value: NaN where it does not count. low, high: its 5th and 95th percentile, where it is a median."""

    value: float
    text: str
    low: float = np.nan
    high: float = np.nan

    def __str__(self) -> str:
        return self.text


def as_text(table: pd.DataFrame) -> pd.DataFrame:
    return table.map(lambda cell: cell.text if isinstance(cell, Number) else cell)


def as_numbers(table: pd.DataFrame) -> pd.DataFrame:
    """Columns of Number as floats; beside a median its percentiles, under its name with _p5 and _p95. What is no number in such a
    column (a row that failed) is empty."""
    out = {}
    for name, cells in table.items():
        if not any(isinstance(c, Number) for c in cells):
            out[name] = cells
            continue
        own = [c if isinstance(c, Number) else Number(np.nan, "") for c in cells]
        out[name] = [c.value for c in own]
        if any(np.isfinite(c.low) for c in own):
            out[f"{name}_p5"], out[f"{name}_p95"] = [c.low for c in own], [c.high for c in own]
    return pd.DataFrame(out)
