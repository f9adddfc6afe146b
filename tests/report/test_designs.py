"""The page of all designs and the table of costs say what the code is."""

from __future__ import annotations

import dataclasses

import pandas as pd
import pytest
from helpers import ROOT

import variants
from i4d_bench.config.ablations import STARTS
from i4d_bench.config.presets import gpu
from i4d_bench.report import designs, search
from i4d_bench.report.rows import Row
from i4d_bench.results.record import Record
from i4d_bench.speed import costs
from i4d_bench.speed.costs import COLUMNS
from i4d_bench.speed.plan import everything
from i4d_bench.types import UserError

PUBLISHED = ROOT / "reports" / "published"
PAGE = (ROOT / "docs" / "designs.md").read_text(encoding="utf-8")


def test_the_page_is_what_the_docstrings_and_the_stored_numbers_make(tmp_path):
    """Of the designs that are on it: one that was added has not been published yet."""
    shown = [name for name in variants.names() if f"\n## {name}\n" in PAGE]
    designs.write_page(PUBLISHED, tmp_path / "designs.md", designs=shown)
    assert (tmp_path / "designs.md").read_text(encoding="utf-8") == PAGE, "run `i4d-bench docs`"


def test_stored_costs_are_of_the_designs_as_they_are():
    stored = designs.read_costs(PUBLISHED).set_index("design")["params"].to_dict()
    now = {entry: sum(p.numel() for p in gpu().fusion(entry).parameters()) for entry in everything() if entry in stored}
    assert stored == now, "run `i4d-bench costs` and `i4d-bench docs`"


def test_every_published_design_that_learns_is_matched_to_local_adaln():
    """By default in parameters or in FLOPs per frame; published sizes need not be."""
    by = designs.matched(designs.read_costs(PUBLISHED), "local_adaln")
    unmatched = [entry for entry in by if "@" not in entry and not by[entry]]
    assert unmatched == ["flame_binding", "static"], "these two have no parameters"


ROWS = [("local_adaln", 100, 50), ("wide", 115, 500), ("tokens", 1000, 55), ("large", 1000, 500), ("still", 0, 0)]


def test_what_a_match_is():
    by = designs.matched(pd.DataFrame(ROWS, columns=["design", "params", "flops_frame"]), "local_adaln")
    assert by == {"local_adaln": "parameters", "wide": "parameters", "tokens": "FLOPs", "large": "", "still": ""}


def _costs(folder, rows) -> pd.DataFrame:
    table = pd.DataFrame([dict.fromkeys(COLUMNS, 1) | {"design": d, "params": p, "flops_frame": f} for d, p, f in rows])
    table["family"] = ["control" if d == "static" else "local" for d in table["design"]]
    table.to_csv(folder / "costs.csv", index=False)
    return table


def test_a_design_has_its_row_without_costs_and_reports(tmp_path):
    designs.write_page(tmp_path, tmp_path / "designs.md")
    page = (tmp_path / "designs.md").read_text(encoding="utf-8")
    for name in variants.names():
        assert f"| {name} " in page and f"\n## {name}\n" in page
    assert "not counted yet: `i4d-bench costs`" in page and "nan" not in page


def test_a_design_that_was_not_counted_stands_beside_those_that_were(tmp_path):
    _costs(tmp_path, [("static", 0, 0), ("local_film", 50, 40), ("local_film@hidden=8", 5, 4)])
    designs.write_page(tmp_path, tmp_path / "designs.md", designs=["local_film", "local_mlp", "static"])
    page = (tmp_path / "designs.md").read_text(encoding="utf-8")
    rows = {line.split("|")[1].strip(): line for line in page.splitlines() if line.startswith("| ")}
    assert "of local_film" in rows["design"], "the first that is no control, where there is no local_adaln"
    assert "1.00×" in rows["local_film"] and "0.10×" in rows["local_film@hidden=8"]
    assert set(rows["local_mlp"].replace("|", "").split()) == {"local_mlp", "local"}


def test_costs_are_compared_with_the_row_that_is_named(tmp_path):
    costs = _costs(tmp_path, [("local_adaln", 100, 50), ("local_film", 50, 40)])
    assert designs.baseline_of(costs) == "local_adaln"
    designs.write_page(tmp_path, tmp_path / "designs.md", baseline="local_film")
    assert "of local_film's" in (tmp_path / "designs.md").read_text(encoding="utf-8")
    with pytest.raises(
        UserError, match="there is no row 'local_mlp' to compare with; there are local_adaln, local_film"
    ):
        designs.write_page(tmp_path, tmp_path / "designs.md", baseline="local_mlp")


def test_nothing_is_a_multiple_of_no_parameters(tmp_path):
    _costs(tmp_path, [("static", 0, 0), ("local_film", 50, 40)])
    designs.write_page(tmp_path, tmp_path / "designs.md", baseline="static", designs=["static", "local_film"])
    costs, _, _ = (tmp_path / "designs.md").read_text(encoding="utf-8").partition("\n## static")
    assert "of static's" in costs and "×" not in costs and "nan" not in costs


def test_counting_one_design_keeps_what_is_stored_of_others(tmp_path, monkeypatch):
    _costs(tmp_path, [("static", 0, 0), ("theirs", 50, 40)])
    (tmp_path / "other").mkdir()
    counted = _costs(tmp_path / "other", [("local_film", 7, 7)])
    monkeypatch.setattr(costs, "costs", lambda entries: counted)
    costs.write_costs(tmp_path, ("local_film",))
    assert list(designs.read_costs(tmp_path)["design"]) == ["local_film", "static", "theirs"]
    costs.write_costs(tmp_path)
    assert list(designs.read_costs(tmp_path)["design"]) == ["local_film"], "all: what is no longer here goes"


def _arm(lr: float, start: str, *gaps: float) -> tuple[tuple[float, str], Record]:
    curve = [{"step": 300 * (k + 1), "seconds": 9.0 * (k + 1), "gap": g} for k, g in enumerate(gaps)]
    entry = f"local_adaln@lr={lr},init_scale={STARTS[start]['init_scale']}"
    return (lr, start), Record(
        run_id=entry, design=entry, family="local", preset="gpu", config={}, overrides={}, seed=0, driver="sliders", data={},
        status="started", curve=curve, onset=next((c for c in curve if c["gap"] >= 0.5), None), environment={},
    )  # fmt: skip


def test_the_note_on_the_onset_says_what_decided():
    arms = dict(
        [
            _arm(1e-3, "silent", 0.1, 0.6),
            _arm(1e-3, "own", 0.7, 1.0),
            _arm(3e-3, "silent", 0.2, 0.8),
            _arm(3e-3, "own", 0.1, 2.0),
        ]
    )
    text = search.decided(arms)
    assert (
        "2.00 dB with lr 0.003 and the start own; with any other start at most 0.80 and with any other rate at most 1.00;"
        in text
    )
    assert "so the start decided more" in text
    assert text.endswith("First to follow, by step 300: lr 0.001 with the start own.")
    _, trained = _arm(3e-3, "own", 0.4, 3.0)
    note = designs.onset(Row((trained,)), arms)
    assert (
        "(seed 0 alone) it follows the driver by step 600; after 600 steps the validation gap is 3.00 dB" in note
        and text in note
    )
    of_seeds = lambda *gaps: designs.onset(  # noqa: E731
        Row((trained, dataclasses.replace(_arm(3e-3, "own", *gaps)[1], seed=1))), arms
    )
    note = of_seeds(0.8, 0.4, 2.0)  # passes by chance and falls back
    assert "(2 seeds) it follows the driver by step 600 to 900;" in note and "the validation gap is 2.50 dB" in note
    assert "by step 600 in 1 of them;" in of_seeds(0.1, 0.2)
    arm, diverged = _arm(1e-2, "own", 9.0)
    assert search.decided(arms | {arm: dataclasses.replace(diverged, status="failed")}) == text


def test_the_note_says_where_nothing_followed_or_nothing_mattered():
    text = search.decided(dict([_arm(1e-3, "silent", 0.1, 0.21), _arm(3e-3, "silent", 0.1, 0.2), _arm(3e-3, "own")]))
    assert "the best at another rate or start came within 0.1 dB" in text and text.endswith(
        "No setting passed 0.5 dB by then."
    )
