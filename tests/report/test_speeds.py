"""Where the FPS of tables and figures come from, and what is said of it."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from helpers import ROOT
from helpers.speeds import TRACKER, frame, speed_report, timed

from i4d_bench.metrics.cards import CARDS
from i4d_bench.report import build_report, speed_tables, speeds, tradeoff
from i4d_bench.report.rows import Row
from i4d_bench.report.speeds import TIMELESS, Speeds, find, inside
from i4d_bench.results.record import Record
from i4d_bench.results.store import Store
from i4d_bench.speed.rows import Tracker
from i4d_bench.types import UserError
from variants import names

DATA = {"kind": "procedural", "hash": "0123456789abcdef"}
ENVIRONMENT = {"hardware": "h100", "commit": "feedbeef0123", "dirty": False, "gpu": None, "versions": {}}
DESIGNS = ("local_adaln", "local_film", "flame_binding", "static")


@pytest.fixture
def published(tmp_path, monkeypatch):
    """An empty folder in place of the checkout's own reports/published."""
    monkeypatch.setattr(speeds, "PUBLISHED", tmp_path / "published")
    return tmp_path / "published"


def one(folder, rows, **more) -> Speeds:
    """The speed report of these rows."""
    (found,) = inside(speed_report(folder / "speed-one", rows, **more).parent)
    return found


def report(folder, designs=DESIGNS, hardware="h100", overrides=None):
    """A report folder with one run of each design, and its tables."""
    for design in designs:
        rows = [
            {"run_id": design, "design": design, "seed": 0, "set": s, "sample": p, "identity": p, "driver": p, "metric": m,
             "value": 0.1 + 0.01 * p, "ok": True}
            for s in ("self", "cross") for m in ("psnr", "aed_true") for p in range(3)
        ]  # fmt: skip
        made = Record(design, design, "local", "gpu", {}, overrides or {}, 0, "sliders", DATA, "started",
                      environment=ENVIRONMENT | {"hardware": hardware})  # fmt: skip
        Store(folder).add(made, rows)
    build_report(folder)
    return pd.read_csv(folder / "main.csv").set_index("design"), (folder / "main.md").read_text(encoding="utf-8")


def test_a_users_own_report_of_the_same_machine_comes_before_the_published_one(tmp_path, published):
    speed_report(published / "speed-a", {frame("static"): timed(1)}, "a100")
    speed_report(published / "speed-h", {frame("static"): timed(2)})
    at = tmp_path / "reports" / "run"
    assert find(at, "h100").name == "speed-h", "of the same kind, where one was published"
    assert find(at, "amd-epyc-2cores").name == "speed-a", "the first, where none was"
    speed_report(tmp_path / "reports" / "speed-l40", {frame("static"): timed(3)}, "l40")
    assert find(at, "h100").name == "speed-h", "two machines never share a table"
    assert find(at, "l40").name == "speed-l40"


def test_it_has_whole_frames_at_the_papers_size_in_the_graph_or_is_none(tmp_path, published):
    good, eager = {frame("static"): timed(1)}, {frame("static", "eager"): timed(1)}
    cpu = {"hardware": "cpu", "commit": None, "dirty": False, "gpu": None, "versions": {}}
    for name, rows, more in (
        ("small", {frame("static", size="b1/n4096/r128"): timed(1)}, {"base": [1, 4096, 128]}),
        ("older", good, {"schema": 0}),
        ("eager", eager, {}),
        ("fusion", {"fusion/static/triton+graph/b1/n196608": timed(1)}, {}),
    ):
        speed_report(published / f"speed-{name}", rows, **more)
    assert inside(published) == [] and find(tmp_path / "run", "h100") is None
    own = one(tmp_path, eager, environment=cpu)
    assert own.mode == "eager" and own.machine == "cpu" and "cpu, commit unknown" in own.about(), (
        "a CPU has no other mode"
    )
    for damaged in ("{", "{}", "[]"):
        (published / "speed-small" / "speed.json").write_text(damaged, encoding="utf-8")
        for read in (lambda: inside(published), lambda: build_report(published / "speed-small")):
            with pytest.raises(UserError, match=r"speed-small.speed.json is damaged .* move it away"):
                read()


def test_designs_on_flame_coefficients_wait_for_a_tracker(tmp_path):
    rows = {frame("local_adaln"): timed(0.5), frame("flame_binding"): timed(0.5)}
    tracked, bare = one(tmp_path / "a", rows | {TRACKER: timed(12)}), one(tmp_path / "b", rows)
    assert tracked.fps("local_adaln") == 2000 == bare.fps("local_adaln")
    assert tracked.fps("flame_binding") == pytest.approx(80) and np.isnan(bare.fps("flame_binding"))
    assert np.isnan(one(tmp_path / "c", rows | {TRACKER: timed(12, "wrong")}).fps("flame_binding"))
    assert "with a tracker" in tracked.about() and "tracker" not in bare.about()
    assert Tracker().key == TRACKER


def test_it_is_what_the_speed_reports_own_table_says():
    (found,) = inside(speeds.PUBLISHED)
    content = json.loads((speeds.PUBLISHED / found.name / "speed.json").read_text(encoding="utf-8"))
    keys = {speeds.Key.parse(k): row for k, row in content["rows"].items()}
    table = speed_tables.frames_table(keys, speeds.described(content, keys))
    own = table[
        (table["mode"] == found.mode)
        & (table["batch"] == 1)
        & (table["Gaussians"] == 196_608)
        & (table["resolution"] == 512)
    ]
    assert len(own) > 15
    for _, row in own.iterrows():
        flame = row["design"].startswith("flame")
        assert f"{found.fps(row['design']):.0f}" == str(row["with tracker" if flame else "frames per second"])


@pytest.mark.parametrize(("entry", "fps"), [
    ("local_adaln", 1000), ("local_adaln@lr=0.001,init_scale=0.0", 1000), ("local_adaln@budget=4", 1000),
    ("local_adaln@motion_basis=8", 500), ("local_adaln@lr=0.1,hidden=16,motion_basis=8", 250),
    ("local_adaln@native", 125), ("local_adaln@motion_basis=16", None), ("local_adaln@hidden=16", None),
    ("local_film", None), ("local_mlp", None),
])  # fmt: skip
def test_settings_have_the_time_of_exactly_that_entry(tmp_path, entry, fps):
    """Those of the harness and of how weights start cost no time. What failed or is wrong has no time."""
    found = one(tmp_path, {
        frame("local_adaln"): timed(1), frame("local_adaln@motion_basis=8"): timed(2),
        frame("local_adaln@motion_basis=8,hidden=16"): timed(4), frame("local_adaln@native"): timed(8),
        frame("local_adaln", size="b8/n196608/r512"): timed(16), frame("local_adaln", "eager"): timed(16),
        frame("local_film"): timed(1, "wrong"), frame("local_mlp"): {"status": "failed: out of memory"},
    })  # fmt: skip
    assert found.fps(entry) == fps if fps else np.isnan(found.fps(entry))
    assert {"lr", "budget", "flame_error", "init_scale", "cross_scale", "delta_scale", "w_std"} == TIMELESS


def test_a_table_says_where_its_numbers_come_from(tmp_path, published):
    rows = {
        frame("local_adaln"): timed(0.5),
        frame("static"): timed(0.25),
        frame("flame_binding"): timed(0.5),
        TRACKER: timed(12),
    }
    speed_report(tmp_path / "speed-mine", rows)
    table, main = report(tmp_path / "run")
    assert table["FPS (H100)"].to_dict() == pytest.approx(
        {"local_adaln": 2000, "local_film": np.nan, "flame_binding": 80, "static": 4000}, nan_ok=True
    )
    assert (
        "FPS: whole frames (ResNet-18 as driver, fusion, splatting) of speed-mine (h100, commit 0123456789ab): triton+graph, "
        "196,608 Gaussians, 512², batch 1; FLAME designs with a tracker (MediaPipe).  \n"
        "‡ No FPS, for want of a valid row there: local_film. All rows on h100: `i4d-bench speed --designs flame_binding "
        "local_adaln local_film static --gaussians 196608 --resolution 512 --base-only`, then `i4d-bench report` again."
    ) in main
    assert next(line for line in main.splitlines() if line.startswith("| local_film")).endswith("| ‡ |")
    for name in ("paper_wide.tex", "appendix.tex"):
        assert r"$^\ddagger$" in (tmp_path / "run" / name).read_text(encoding="utf-8")
    assert (tmp_path / "run" / "speed_quality.png").exists() and CARDS["fps"].higher_is_better


def test_the_published_report_stands_in_and_names_the_other_machine(tmp_path, published):
    speed_report(published / "speed-h100", {frame("local_adaln"): timed(0.5), frame("flame_binding"): timed(0.5)})
    _, main = report(tmp_path / "run", hardware="amd-epyc-2cores")
    assert "batch 1; not on this report's amd-epyc-2cores." in main
    lacking = "No FPS, for want of a valid row there or of the tracker that FLAME designs need: flame_binding, local_film, static."
    assert lacking in main


def test_a_design_of_ones_own_is_named_with_its_file_in_what_would_time_it(tmp_path, published):
    """And where all of ours are among the rows, one word says so."""
    found = one(tmp_path, {frame("local_adaln"): timed(0.5)})

    def told(entries):
        mine = Record("r", "d", "local", "gpu", {"sources": ["/home/me/my gain.py"]}, {}, 0, "sliders", DATA, "started",
                      environment=ENVIRONMENT)  # fmt: skip
        return found.notes(dict.fromkeys(entries, Row((mine,))))[1]

    assert "--designs '/home/me/my gain.py' local_adaln mine@hidden=8 --gaussians" in told(
        ["local_adaln", "mine@hidden=8,lr=0.1"]
    )
    assert "--designs '/home/me/my gain.py' all mine --gaussians" in told([*names(), "mine"])
    assert told(["mine"]).startswith("No FPS"), "no column, so no mark"


def test_the_figure_names_what_it_cannot_draw_and_has_flame_twice_only_where_it_is(tmp_path, published, monkeypatch):
    said = []
    monkeypatch.setattr(tradeoff, "save", lambda figure, *_: said.append(figure.get_supxlabel()))
    timings = {frame(d): timed(0.5) for d in ("local_adaln", "local_mlp", "flame_binding")}
    speed_report(tmp_path / "speed-mine", timings | {TRACKER: timed(12)})
    report(tmp_path / "a", ["local_adaln", "local_mlp", "local_film", "static"])
    report(tmp_path / "b", ["local_adaln", "flame_binding"])
    report(tmp_path / "c", ["local_adaln", "static"])  # one alone is weighed against nothing
    assert len(said) == 2
    assert said[0].endswith("not drawn, for want of FPS: local_film, static") and "FLAME" not in said[0]
    assert said[1].endswith("FLAME designs twice: coefficients from the driver, and with a tracker")


def test_sizes_that_were_not_timed_are_named(tmp_path, published):
    speed_report(published / "speed-h100", {frame("local_adaln"): timed(0.5), frame("static"): timed(0.5)})
    told = lambda folder, **own: [  # noqa: E731
        line.strip() for line in report(folder, ["local_adaln"], overrides=own)[1].splitlines() if "at others" in line
    ]
    assert told(tmp_path / "a", lr=0.1, init_scale=0.0, delta_scale=0.01) == []
    said = "Timed at their default sizes, trained here at others: local_adaln (motion_basis=8)."
    assert told(tmp_path / "b", lr=0.1, motion_basis=8) == [said]


def test_without_a_speed_report_there_is_no_column_and_no_figure(tmp_path, published):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "speed_quality.png").write_bytes(b"of runs that timed themselves")
    table, main = report(folder)
    assert not any("FPS" in c for c in table) and not (folder / "speed_quality.png").exists()
    assert "run `i4d-bench speed` on this machine" in main
    assert json.loads((folder / "summary.json").read_text())["speed"] == {}


def test_slow_machines_have_decimals(tmp_path, published):
    speed_report(tmp_path / "speed-mine", {frame("local_adaln"): timed(800), frame("static"): timed(50)})
    assert "| 1.25 |" in report(tmp_path / "run")[1]


def test_the_summary_has_the_rows_of_the_tables_designs(tmp_path, published):
    timings = {"fusion/local_adaln/eager/b1/n196608": timed(1), "kernel/adaln/triton/b1/n196608": timed(1)}
    rows = {frame("local_adaln"): timed(1), frame("local_adaln", "eager"): timed(2), frame("local_mlp"): timed(1)}
    rows |= timings | {TRACKER: timed(12)}
    speed_report(tmp_path / "speed-mine", rows)
    report(tmp_path / "run", ["local_adaln@lr=0.1"])
    summary = json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))
    assert summary["speed"] == {k: r for k, r in rows.items() if "mlp" not in k and "kernel" not in k}


def test_the_published_report_of_this_checkout_is_one():
    assert speeds.PUBLISHED == ROOT / "reports" / "published"
    assert find(ROOT / "reports" / "mine", "h200").fps("local_adaln") > 1000
