"""The page of all designs and the table of costs say what the code is."""

from __future__ import annotations

import pandas as pd
import pytest
from helpers import ROOT

import variants
from i4d_bench.config.presets import gpu
from i4d_bench.report import designs, search
from i4d_bench.results.record import Record
from i4d_bench.speed.plan import everything
from i4d_bench.types import UserError


def test_the_page_is_what_the_docstrings_and_the_stored_numbers_make(tmp_path):
    designs.build(ROOT / "reports/published", tmp_path / "designs.md")
    assert (tmp_path / "designs.md").read_text() == (ROOT / "docs" / "designs.md").read_text(), "run `i4d-bench docs`"


def test_stored_costs_are_of_the_designs_as_they_are():
    stored = designs.read_costs(ROOT / "reports/published").set_index("design")["params"]
    now = {entry: sum(p.numel() for p in gpu().fusion(entry).parameters()) for entry in everything()}
    assert stored.to_dict() == now, "run `i4d-bench costs` and `i4d-bench docs`"


def test_every_learned_design_is_matched_to_local_adaln():
    """By default in parameters or in FLOPs per frame; published sizes need not be."""
    by = designs.matched(designs.read_costs(ROOT / "reports/published"))
    unmatched = [name for name in variants.names() if not by[name]]
    assert unmatched == ["flame_binding", "static"], "these two have no parameters"


def test_what_a_match_is():
    rows = [("local_adaln", 100, 50), ("wide", 115, 500), ("tokens", 1000, 55), ("large", 1000, 500), ("still", 0, 0)]
    by = designs.matched(pd.DataFrame(rows, columns=["design", "params", "flops_frame"]))
    assert by == {"local_adaln": "parameters", "wide": "parameters", "tokens": "FLOPs", "large": "", "still": ""}


def test_without_costs_the_page_says_what_to_run(tmp_path):
    with pytest.raises(UserError, match="i4d-bench costs"):
        designs.build(tmp_path, tmp_path / "designs.md")


def _arm(lr: float, scale: float, *gaps: float) -> tuple[tuple[float, float], Record]:
    curve = [{"step": 300 * (k + 1), "seconds": 9.0 * (k + 1), "gap": g} for k, g in enumerate(gaps)]
    entry = f"local_adaln@lr={lr},init_scale={scale}"
    return (lr, scale), Record(
        run_id=entry, design=entry, family="local", preset="gpu", config={}, overrides={}, seed=0, driver="oracle", data={},
        status="converged", curve=curve, onset=next((c for c in curve if c["gap"] >= 0.5), None), environment={},
    )  # fmt: skip


def test_the_note_on_the_onset_says_what_decided():
    arms = dict(
        [_arm(1e-3, 0.0, 0.1, 0.6), _arm(1e-3, 1.0, 0.7, 1.0), _arm(3e-3, 0.0, 0.2, 0.8), _arm(3e-3, 1.0, 0.1, 2.0)]
    )
    text = search.decided(arms)
    assert (
        "2.00 dB with lr 0.003 and scale 1; with any other start at most 0.80 and with any other rate at most 1.00;"
        in text
    )
    assert "so the start decided more" in text
    assert text.endswith("First to follow, by step 300: lr 0.001 with scale 1.")
    _, trained = _arm(3e-3, 1.0, 0.4, 3.0)
    note = designs.onset(trained, arms)
    assert "by step 600 (18 s); after 600 steps the validation gap is 3.00 dB" in note and text in note


def test_the_note_says_where_nothing_followed_or_nothing_mattered():
    text = search.decided(dict([_arm(1e-3, 0.0, 0.1, 0.21), _arm(3e-3, 0.0, 0.1, 0.2), _arm(3e-3, 1.0)]))
    assert "rate and start changed it by less than 0.1 dB" in text and text.endswith(
        "No setting passed 0.5 dB by then."
    )
