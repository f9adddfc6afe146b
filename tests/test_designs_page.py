"""The page of all designs and the table of costs say what the code is."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import variants
from i4d_bench.presets import gpu
from i4d_bench.report import designs
from i4d_bench.speed import everything
from i4d_bench.types import UserError

ROOT = Path(__file__).parent.parent


def test_the_page_is_what_the_docstrings_and_the_stored_numbers_make(tmp_path):
    designs.build(ROOT / "reports", tmp_path / "designs.md")
    assert (tmp_path / "designs.md").read_text() == (ROOT / "docs" / "designs.md").read_text(), "run `i4d-bench docs`"


def test_stored_costs_are_of_the_designs_as_they_are():
    stored = designs.read_costs(ROOT / "reports").set_index("design")["params"]
    now = {entry: sum(p.numel() for p in gpu().fusion(entry).parameters()) for entry in everything()}
    assert stored.to_dict() == now, "run `i4d-bench costs` and `i4d-bench docs`"


def test_every_learned_design_is_matched_to_local_adaln():
    """By default in parameters or in FLOPs per frame; published sizes need not be."""
    by = designs.matched(designs.read_costs(ROOT / "reports"))
    unmatched = [name for name in variants.names() if not by[name]]
    assert unmatched == ["flame_binding", "static"], "these two have no parameters"


def test_what_a_match_is():
    rows = [("local_adaln", 100, 50), ("wide", 115, 500), ("tokens", 1000, 55), ("large", 1000, 500), ("still", 0, 0)]
    by = designs.matched(pd.DataFrame(rows, columns=["design", "params", "flops_frame"]))
    assert by == {"local_adaln": "parameters", "wide": "parameters", "tokens": "FLOPs", "large": "", "still": ""}


def test_without_costs_the_page_says_what_to_run(tmp_path):
    with pytest.raises(UserError, match="i4d-bench costs"):
        designs.build(tmp_path, tmp_path / "designs.md")
