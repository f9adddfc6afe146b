"""Reports at their edges: many designs, a failed one, metrics that only some have, one that was not timed, one person."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from helpers.speeds import frame, speed_report, timed

from i4d_bench.metrics.cards import CARDS, OF_RUNS
from i4d_bench.report import build_report, figures, keep_baseline, search, tables
from i4d_bench.report.baseline import pick
from i4d_bench.report.columns import METRICS
from i4d_bench.report.notes import conditions
from i4d_bench.report.rows import onset, rows
from i4d_bench.results.environment import hardware_name
from i4d_bench.results.record import Record
from i4d_bench.results.store import Store
from i4d_bench.types import UserError
from variants.base import parse

FAMILIES = ("local", "global", "parametric")
DATA = {"kind": "procedural", "hash": "0123456789abcdef"}
SAID = "Test people were never trained on."
"""What every run says."""


def fill(
    folder, designs: int, people: int = 12, metrics=("psnr", "gap", "aed_true", "lpips_alex"), seeds: int = 1
) -> Store:
    """The last of several designs has failed, and the second has no LPIPS. Every design is 1 dB better than the one before."""
    store = Store(folder)
    for seed in range(seeds):
        add(store, designs, people, metrics, seed)
    return store


def add(store: Store, designs: int, people: int, metrics, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for k in range(designs):
        name = "local_adaln" if k == 0 else f"{FAMILIES[k % 3]}_design_{k}"
        failed = k == designs - 1 and k > 0
        rows = [
            {"run_id": f"{name}-{seed}", "design": name, "seed": seed, "set": s, "sample": p, "identity": p, "driver": p,
             "metric": m, "value": 20 + k + rng.normal() if m == "psnr" else abs(rng.normal(0.1 + 0.01 * k, 0.02)), "ok": True}
            for s in ("self", "cross") for p in range(people) for m in metrics
            if not failed and not (k == 1 and m == "lpips_alex")
        ]  # fmt: skip
        store.add(
            Record(run_id=f"{name}-{seed}", design=name, family=FAMILIES[k % 3], preset="cpu", config={}, overrides={}, seed=seed,
                   driver="sliders", data=DATA, status="failed" if failed else "started", why="nan" if failed else "",
                   curve=[{"step": s, "gap": 0.01 * s * k} for s in (100, 200)], notes=[SAID]),
            rows,
        )  # fmt: skip


@pytest.fixture
def undrawn(monkeypatch):
    """Tables alone: figures take most of a report's time."""
    monkeypatch.setattr(figures, "draw", lambda *_: None)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    store = fill(folder / "runs", 18, seeds=3)
    names = sorted({r.design for r in store.records} - {"parametric_design_2"})
    rows = {frame(name): timed(10 / (k + 1)) for k, name in enumerate(names)}
    speed_report(folder / "speed-here", rows, hardware_name())
    build_report(store.folder)
    return store


def test_every_design_has_its_row_and_a_failed_one_says_so(many):
    table = pd.read_csv(many.folder / "main.csv")
    assert len(table) == 18 and set(table.design) == {r.design for r in many.records}
    failed = table[table.status == "failed"].iloc[0]
    assert np.isnan(failed["self PSNR"]) and f"{failed.design}†" in (many.folder / "main.md").read_text()
    for name in ("speed_quality", "curves", "differences", "intervals"):
        assert (many.folder / f"{name}.png").stat().st_size > 5000


def test_what_was_not_measured_stays_empty(many):
    table = pd.read_csv(many.folder / "main.csv").set_index("design")
    assert np.isnan(table.loc["global_design_1", "self LPIPS (alex)"])
    fps = f"FPS ({hardware_name().upper()})"
    assert np.isnan(table.loc["parametric_design_2", fps]) and table[fps].notna().sum() == 17
    assert list(table)[-1] == fps, "what other hardware measured stands behind the quality"
    assert table.loc["global_design_1", "self PSNR"] == pytest.approx(21, abs=1.5)
    heads = (many.folder / "main.md").read_text().splitlines()[0]
    assert "PSNR" in heads and "MobileFace" not in heads, "a column without any number is not printed"


@pytest.mark.parametrize(("gaps", "wanted"), [
    ((0.1, 0.6, 0.7), 200),
    ((0.6, 0.1, 0.7), 300),  # passes by chance and falls back
    ((0.6, 0.7, 0.5), 100),
    ((0.1, 0.6, 0.4), None),
    ((None, None, None), None),
    ((0.1, np.nan, 0.7), 300),
    ((), 150),  # an older record without its curve says it itself
])  # fmt: skip
def test_an_onset_is_where_the_gap_stays(gaps, wanted):
    curve = [{"step": 100 * (k + 1), "gap": g} for k, g in enumerate(gaps)]
    run = Record(run_id="a", design="a", family="local", preset="cpu", config={}, overrides={}, seed=0, driver="sliders", data=DATA,
                 status="started", curve=curve, onset=None if curve else {"step": 150})  # fmt: skip
    assert onset(run) == wanted


def test_comparisons_hold_only_pairs_that_exist(many):
    pairs = pd.read_csv(many.folder / "pairs.csv")
    order = [d for d in rows(many) if d in set(pairs.design)]
    assert list(pairs.query("set == 'self' and metric == 'psnr'").design) == order, "as in the main table"
    lpips = set(pairs[pairs.metric == "lpips_alex"].design)
    assert "global_design_1" not in lpips and len(lpips) == 15  # neither the failed one nor the baseline
    far = pairs[(pairs.metric == "psnr") & (pairs.design == "local_design_15") & (pairs.set == "self")].iloc[0]
    assert far.difference == pytest.approx(15, abs=2) and far.verdict == "better"


@pytest.mark.parametrize(("designs", "people", "seeds", "said"), [
    (1, 6, 1, "One seed: intervals are over people alone, and no row is called better than another (that takes 3)."),
    (3, 6, 2, "2 seeds: intervals are over people alone"),
    (3, 1, 3, "One person: no row is called better than another."),
    (3, 6, 3, "3 seeds. Bold: best of its block and not significantly worse"),
])  # fmt: skip
def test_what_is_too_little_to_tell_is_said_and_nothing_is_bold(undrawn, tmp_path, designs, people, seeds, said):
    store = fill(tmp_path, designs, people, seeds=seeds)
    build_report(store.folder)
    main, pairs = (tmp_path / "main.md").read_text(), pd.read_csv(tmp_path / "pairs.csv")
    assert len(pd.read_csv(tmp_path / "main.csv")) == designs and said in main
    told = seeds >= 3 and people > 1
    assert ("**" in main) == told and pairs.p.notna().all() == (told or not len(pairs))
    assert pairs.verdict.str.startswith("not told").all() != told or not len(pairs)


def test_a_seed_that_was_not_run_is_missing_and_said_so_and_no_failure(undrawn, tmp_path):
    """Its samples are left out of the pairs; they do not count as the worst value."""
    store = fill(tmp_path, 3, seeds=4, metrics=("psnr",))
    store.remove("global_design_1-2")
    build_report(tmp_path)
    assert "global_design_1 has no run of seed 2 yet." in (tmp_path / "main.md").read_text()
    pair = pd.read_csv(tmp_path / "pairs.csv").query("design == 'global_design_1' and set == 'self'").iloc[0]
    assert (pair.seeds, pair.n, pair.unpaired, pair.failures) == (3, 36, 12, 0)
    assert pair.difference == pytest.approx(1, abs=0.7)


def test_intervals_are_columns_of_numbers(many):
    for name in ("main", "sets"):
        table = pd.read_csv(many.folder / f"{name}.csv").set_index("design")
        lows = [c.removesuffix("_low") for c in table if c.endswith("_low")]
        assert bool(lows) == (name == "main")
        for column in lows:
            own = table[[f"{column}_low", column, f"{column}_high"]].dropna().to_numpy()
            assert len(own) > 10 and (np.diff(own) >= 0).all()
        assert not any(c.startswith("params") and c.endswith(("_low", "_high")) for c in table)


def test_small_numbers_have_the_digits_that_they_need(tmp_path):
    store = Store(tmp_path)
    values = {
        "floaters": (0.0004, 0.00002),
        "lpips_alex": (0.31, 0.04),
        "l1_eyes": (0.0, 0.0),
        "leak_driver": (1e-9, 0.0),
    }
    for k, name in enumerate(("local_adaln", "static")):
        rows = [
            {"run_id": name, "design": name, "seed": 0, "set": "cross", "sample": p, "identity": p, "metric": m, "value": v[k],
             "ok": True}
            for m, v in values.items() for p in range(3)
        ]  # fmt: skip
        store.add(Record(name, name, "local", "cpu", {}, {}, 0, "sliders", DATA, "started"), rows)
    columns = (*tables.main_table(store, None)[0], *tables.sets_table(store)[0])
    found = {c.of[1]: [c.text(v) for v in c.values.values()] for c in columns if c.of[0] == "cross"}
    assert found["floaters"] == ["0.00040", "0.00002"] and found["lpips_alex"] == ["0.310", "0.040"]
    assert found["l1_eyes"] == ["0.000", "0.000"] and found["leak_driver"] == ["0.000000", "0.000000"]


def test_designs_that_came_to_nothing_alike_share_a_footnote(undrawn, tmp_path):
    store, why = (
        fill(tmp_path, 4, metrics=("psnr",)),
        "the validation gap never passed 0.5 dB in 40 steps; it ended at 0.10 dB",
    )
    for record in store.records:
        if record.status == "started":
            store.add(dataclasses.replace(record, status="did not start", why=why, created="2026-01-01"), [])
    build_report(tmp_path)
    daggers = [line for line in (tmp_path / "main.md").read_text().splitlines() if line.startswith("†")]
    ended = [f"{d} (it ended at 0.10 dB)" for d in ("local_adaln", "global_design_1", "parametric_design_2")]
    assert sorted(line.strip() for line in daggers) == [
        f"† Did not start (the validation gap never passed 0.5 dB in 40 steps): {', '.join(ended)}.",
        "† Failed (nan): local_design_3.",
    ]


def test_lost_files_change_no_table_and_what_the_page_lacks_is_said(undrawn, tmp_path):
    store = fill(tmp_path, 3, seeds=3, metrics=("psnr",))
    runs, main = tmp_path / "runs", tmp_path / "main.md"
    for r in store.records:
        if r.metrics:
            np.savez(runs / f"{r.run_id}.npz", design=np.zeros((1, 4, 4, 3), np.uint8))
    np.savez(runs / f"shown-{DATA['hash']}.npz", source=np.zeros((1, 4, 4, 3), np.uint8))
    for design in ("local_adaln", "global_design_1"):
        (runs / f"{design}-0.webm").write_bytes(b"film")
    build_report(tmp_path)
    assert "The page has no" not in main.read_text(), "a film of one seed is enough, and what failed has none"
    (runs / "global_design_1-0.webm").unlink()
    (runs / "local_adaln-1.npz").unlink()
    build_report(tmp_path)
    assert "The page has no film of global_design_1: files are missing." in main.read_text()
    assert "The page has no pictures of local_adaln-1: files are missing." in main.read_text()
    before = main.read_bytes()
    (runs / "local_adaln-2.csv.gz").unlink()
    with pytest.raises(UserError, match="local_adaln-2"):
        build_report(tmp_path)
    assert main.read_bytes() == before


def test_every_seed_says_what_became_of_it(undrawn, tmp_path):
    store = fill(tmp_path, 2, seeds=3, metrics=("psnr",))
    late = dataclasses.replace(store.records[0], status="did not start", why="it ended at 0.2 dB", created="2026-01-01")
    store.add(late, [])
    build_report(tmp_path)
    main, table = (tmp_path / "main.md").read_text(), pd.read_csv(tmp_path / "main.csv").set_index("design")
    assert (
        f"† Did not start (it ended at 0.2 dB): local_adaln (seed {late.seed} of 3)." in main and "local_adaln†" in main
    )
    assert table.loc["local_adaln", "status"] == "2 started, 1 did not start"
    assert main.count(SAID) == 1
    assert table.loc["local_adaln", "seeds"] == 3


EDGES = {"self alone": ("self",), "reconstruction alone": ("recon",), "cross alone": ("cross",), "nothing scored": ()}


@pytest.mark.parametrize("sets", EDGES.values(), ids=EDGES)
def test_sets_without_samples_and_numbers_that_nobody_has(tmp_path, sets):
    """One video alone has no cross-reenactment, no impostors (NaN, stored as null) and perhaps no picture in the grid."""
    store, empty = Store(tmp_path), np.zeros((0, 8, 8, 3), np.uint8)
    for name in ("local_adaln", "static"):
        rows = [
            {"run_id": name, "design": name, "seed": 0, "set": s, "sample": 0, "identity": 0, "metric": m, "value": v, "ok": True}
            for s in sets for m, v in (("psnr", 20.0), ("gap", float("nan")), ("csim_dlib", float("nan")))
        ]  # fmt: skip
        store.add(
            Record(run_id=name, design=name, family="local", preset="cpu", config={}, overrides={}, seed=0, driver="blendshapes",
                   data=DATA, status="started", curve=[{"step": 2, "gap": float("nan")}],
                   references={"other people": {"self": {"csim_dlib": float("nan")}}}),
            rows, {"source": empty, "driver": empty, "design": empty},
        )  # fmt: skip
    build_report(tmp_path)
    main = (tmp_path / "main.md").read_text()
    empty_sets = [s for s in ("self", "cross") if sets and s not in sets]
    assert ("No samples in" in main) == bool(empty_sets) and all(s in main for s in empty_sets)
    assert "other people" not in main and "nan" not in main.lower()
    assert (tmp_path / "index.html").exists() and (tmp_path / "summary.json").exists()


def test_a_search_takes_the_setting_with_the_largest_gap_at_the_end(tmp_path):
    """Not the one that was largest on the way, nor one that failed, however far it had come."""
    store, diverged = Store(tmp_path), (0.003, 1.0)
    gaps = {(0.001, 0.0): [0.2, 0.6], (0.001, 1.0): [0.9, 0.7], (0.003, 0.0): [0.1, 1.3], diverged: [2.0]}
    for (lr, scale), curve in gaps.items():
        for name, factor in (("local_adaln", 1), ("global_joint_attention", 0.1)):
            points = [{"step": 100 * (k + 1), "gap": factor * g} for k, g in enumerate(curve)]
            entry = f"{name}@lr={lr},init_scale={scale}"
            onset = next((p for p in points if p["gap"] >= 0.5), None)
            failed = (lr, scale) == diverged
            status = "failed" if failed else "started" if onset else "did not start"
            store.add(Record(run_id=entry, design=entry, family=name.partition("_")[0], preset="gpu", config={"ablation": "search"},
                             overrides={}, seed=0, driver="sliders", data=DATA, status=status, why="nan" if failed else "",
                             curve=points, onset=onset), [])  # fmt: skip
    build_report(tmp_path)
    assert [search.best(arms) for arms in search.arms(store).values()] == [(0.003, "silent")] * 2
    table = pd.read_csv(tmp_path / "main.csv").set_index("design")
    assert (
        table.loc["local_adaln", "lr 0.001, own"] == 0.7
        and table.loc["local_adaln", "onset of the best (steps)"] == 200
    )
    finals = (tmp_path / "finals.txt").read_text().splitlines()
    assert [parse(entry)[1]["lr"] for entry in finals] == [0.003, 0.001, 0.001, 0.01] * 2, (
        "the best three without the failed one, and the rate beyond the best, which is the largest"
    )
    assert [parse(entry)[1]["init_scale"] for entry in finals] == [0.0, 1.0, 0.0, 0.0] * 2
    printed = (tmp_path / "main.md").read_text()
    assert "**1.30**" in printed and "global_joint_attention†" in printed and "scale=1.0: failed (nan)" in printed


def test_conditions_name_every_commit_and_rendering():
    made = [
        {"hardware": "h100", "commit": c, "dirty": dirty} for c, dirty in (("abc", False), ("def", True), (None, False))
    ]
    record = lambda e: Record("r", "d", "local", "gpu", {}, {}, 0, "sliders", DATA, "started", environment=e)  # noqa: E731
    assert conditions(map(record, made)).endswith("commits abc, def with local changes, unknown (version unknown)")
    two = [dataclasses.replace(record(made[0]), data={**DATA, "hash": h}) for h in ("b", "a", "b")]
    assert f"data {DATA['kind']} (a, b), driver" in conditions(two)


def test_conditions_name_the_teacher_and_units_stand_in_heads_but_not_in_columns_of_csv(many):
    by = {"path": "/somewhere/pairs", "supervision": "lifted", "bias_sink": True}
    one = dataclasses.replace(
        many.records[0], config={"teacher": by}, environment={"hardware": "h100", "commit": "abc", "dirty": False}
    )
    assert "driver sliders, teacher pairs (lifted with true frames beside), commit" in conditions([one])
    assert "teacher" not in conditions([dataclasses.replace(one, config={"teacher": {**by, "path": None}})])
    assert "| self PSNR (dB) ↑ |" in (many.folder / "main.md").read_text()
    assert {"self PSNR", "self PSNR_low", "self LPIPS (alex)"} <= set(pd.read_csv(many.folder / "main.csv"))


def test_a_best_rate_of_the_finals_is_at_an_end_only_where_the_search_had_none_beyond(tmp_path):
    store = Store(tmp_path)
    for name, best in (("local_adaln", 0.001), ("global_joint_attention", 0.003)):
        for lr in (0.001, 0.003):
            entry = f"{name}@lr={lr},init_scale=0.0"
            store.add(Record(run_id=entry, design=entry, family=name.partition("_")[0], preset="gpu", config={"ablation": "finals"},
                             overrides={}, seed=0, driver="sliders", data=DATA, status="started",
                             curve=[{"step": 100, "gap": 2.0 if lr == best else 1.0}]), [])  # fmt: skip
    build_report(tmp_path)
    printed = (tmp_path / "main.md").read_text()
    assert "Best at the largest rate tried, so perhaps better beyond it: global_joint_attention." in printed
    assert "smallest rate tried" not in printed
    assert "\\caption{Driving gap on validation (dB): lr 0.001" in (tmp_path / "appendix.tex").read_text()


def test_what_is_known_without_avatars_stands_under_the_designs_and_is_none_of_them(undrawn, tmp_path):
    store = fill(tmp_path, 2, metrics=("aed_true",))
    known = {"true frame": {"self": {"aed_true": 0.06, "akd": 1.0}}, "mean expression": {"self": {"aed_true": None}}}
    store.add(
        dataclasses.replace(store.records[0], references=known), store.samples[["set"]].iloc[:0].to_dict("records")
    )
    build_report(tmp_path)
    table = pd.read_csv(tmp_path / "main.csv").set_index("design")
    assert table.loc["true frame", "self AED (reader)"] == 0.06 and table.loc["true frame", "status"] == "reference"
    assert "mean expression" not in table.index and np.isnan(table.loc["true frame", "cross AED (reader)"])
    for name, row in (
        ("main.md", "| *true frame* |"),
        ("appendix.tex", r"\itshape true frame"),
        ("index.html", '"name":"true frame"'),
    ):
        assert row in (tmp_path / name).read_text(encoding="utf-8")
    assert "true frame" not in set(pd.read_csv(tmp_path / "pairs.csv").design)


def test_every_metric_that_is_listed_reaches_a_report():
    assert set(CARDS) == {*METRICS, *OF_RUNS} and not set(METRICS) & set(OF_RUNS)


def test_the_baseline_is_the_papers_operator_or_the_first_that_is_no_control():
    rows = {"static": "control", "theirs": "local", "local_adaln": "local"}
    assert pick(rows) == "local_adaln" and pick(rows, "theirs") == "theirs"
    del rows["local_adaln"]
    assert pick(rows) == "theirs" and pick(rows, "static") == "static"
    assert pick({"static": "control"}) is None and pick({}) is None
    with pytest.raises(UserError, match="no row 'local_adaln' to compare with; there are static, theirs"):
        pick(rows, "local_adaln")


def test_pairs_are_compared_with_the_row_that_was_asked_for(undrawn, tmp_path, capsys):
    """And so they are when the report is rebuilt, until another is asked for."""
    store = fill(tmp_path, 4, people=6, metrics=("psnr",))
    told = lambda: ((tmp_path / "pairs.md").read_text().split(";")[0], set(pd.read_csv(tmp_path / "pairs.csv").design))  # noqa: E731
    build_report(tmp_path)
    assert told() == ("Differences from local_adaln", {"global_design_1", "parametric_design_2"})
    build_report(tmp_path, "global_design_1")
    build_report(tmp_path)
    assert told() == ("Differences from global_design_1", {"local_adaln", "parametric_design_2"})
    with pytest.raises(UserError, match="no row 'local_design_3'"):  # which failed, so that nothing was measured
        build_report(tmp_path, "local_design_3")
    build_report(tmp_path)
    assert told()[0] == "Differences from global_design_1"
    keep_baseline(tmp_path, "local_design_3")  # by a run, before it failed
    build_report(tmp_path)
    assert told()[0] == "Differences from local_adaln" and "local_design_3 has no scores" in capsys.readouterr().out
    keep_baseline(tmp_path, "global_design_1")
    store.remove("global_design_1-0")
    store.remove("local_adaln-0")
    build_report(tmp_path)
    assert told() == ("Differences from parametric_design_2", set())


def test_a_search_compares_with_no_row(tmp_path):
    curve = [{"step": 100, "gap": 1.0}]
    for entry in ("theirs@hidden=8,lr=0.1,init_scale=0", "theirs@lr=0.1,init_scale=0"):
        record = Record(
            entry, entry, "local", "gpu", {"ablation": "search"}, {}, 0, "sliders", DATA, "started", curve=curve
        )
        Store(tmp_path).add(record, [])
    build_report(tmp_path)
    assert set(pd.read_csv(tmp_path / "main.csv").design) == {"theirs", "theirs@hidden=8"}, (
        "settings of its own make a row"
    )
    with pytest.raises(UserError, match="nothing to compare with 'theirs'"):
        build_report(tmp_path, "theirs")
