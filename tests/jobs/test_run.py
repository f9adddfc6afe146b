"""The main job on the smoke preset: it runs end to end, and what is finished stays."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest

from i4d_bench import report
from i4d_bench.config import presets
from i4d_bench.config.ablations import ablation
from i4d_bench.jobs import run
from i4d_bench.jobs.bench import Bench
from i4d_bench.jobs.plan import plan
from i4d_bench.report import build_report, figures, terminal
from i4d_bench.results.record import Record
from i4d_bench.results.store import Store
from i4d_bench.types import UserError

DRAWN = True


@pytest.fixture(scope="module")
def reports(cpu, tmp_path_factory):
    """The smoke preset, run once."""
    folder = tmp_path_factory.mktemp("work")
    return run.run(presets.smoke(), folder / "reports", folder / "runs"), folder


def test_the_report_is_complete_and_rebuilds_from_the_store(reports):
    folder, _ = reports
    store = Store(folder)
    assert sorted(r.design for r in store.records) == sorted(presets.smoke().designs)
    assert {r.status for r in store.records} <= {"did not start", "started", "control"}
    for name in (
        "main.csv",
        "main.md",
        "paper.tex",
        "appendix.tex",
        "speed_quality.pdf",
        "curves.png",
        "qualitative.png",
        "index.html",
    ):
        assert (folder / name).stat().st_size > 100, name
    summary = json.loads((folder / "summary.json").read_text())
    assert set(summary["designs"]) == set(presets.smoke().designs)
    assert {"mean", "lo", "hi", "n", "failures", "seeds"} == set(summary["designs"]["local_adaln"]["cross"]["gap"])
    assert any(k.startswith("frame/local_adaln/eager/b1/") for k in summary["speed"])
    static = summary["designs"]["static"]["self"]["gap"]
    assert static["mean"] == pytest.approx(0, abs=1e-4), "a control that ignores the driver has no gap"
    before = (folder / "main.csv").read_bytes()
    (folder / "main.csv").unlink()
    build_report(folder)
    assert (folder / "main.csv").read_bytes() == before


def test_finished_runs_are_kept(reports, monkeypatch):
    folder, work = reports
    monkeypatch.setattr(run, "work", lambda *a: pytest.fail("a finished run was repeated"))
    monkeypatch.setattr(report, "build_runs", lambda *_: ({}, {}, []))
    monkeypatch.setattr(terminal, "show", lambda *_: None)
    assert run.run(presets.smoke(), work / "reports", work / "runs") == folder


def test_fresh_forgets_what_was_trained_and_scored(reports):
    """Checkpoints, backbone, reader and results of the plan's own runs, and nothing else."""
    _, work = reports
    e = dataclasses.replace(presets.smoke(), designs=("static",))
    what = plan(e, work / "reports", work / "runs")
    assert not what.unfinished() and what.backbone.exists()
    for folder in ("reports", "runs"):
        shutil.copytree(work / folder, work / "copy" / folder)
    again = plan(e, work / "copy" / "reports", work / "copy" / "runs")
    again.forget()
    assert [r.entry for r in again.unfinished()] == ["static"]
    assert not again.backbone.exists() and not again.runs[0].folder.exists()
    assert len(Store(again.report).records) == len(presets.smoke().designs) - 1
    assert not what.unfinished(), "another folder's runs stay"


def test_a_baseline_that_failed_hides_no_failure(cpu, tmp_path, monkeypatch):
    """The report is built without it."""

    def diverged(plans, todo, jobs):
        data = {"kind": "procedural", "hash": "d", "frames": 3}
        record = Record("static-s0", "static", "control", "smoke", {}, {}, 0, "sliders", data, "failed", "nan")
        Store(plans[0].report).add(record, [])
        return {"static, seed 0": "the loss became nan"}

    monkeypatch.setattr(figures, "draw", lambda *_: None)
    monkeypatch.setattr(run, "work", diverged)
    e = dataclasses.replace(presets.smoke(), designs=("static",))
    with pytest.raises(UserError, match="static, seed 0 failed: the loss became nan"):
        run.run(e, tmp_path / "reports", tmp_path / "runs", baseline="static")


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_search_keeps_curves_and_never_meets_the_test_people(cpu, tmp_path, jobs, monkeypatch):
    """Its arms are trained, in processes of their own or not, and judged by validation alone."""
    monkeypatch.setattr(Bench, "evaluator", property(lambda self: pytest.fail("a search looked at the test people")))
    arms = ("local_adaln@lr=0.001,init_scale=0.0", "local_adaln@lr=0.001,init_scale=1.0", "static")
    e = dataclasses.replace(ablation("search", presets.smoke()), designs=arms)
    folder = run.run(e, tmp_path / "reports", tmp_path / "runs", jobs)
    records = Store(folder).records
    assert {r.design for r in records} == set(arms) and all(r.curve and not r.metrics for r in records)
    assert Store(folder).samples.empty
    table = (folder / "main.md").read_text()
    assert "lr 0.001, silent |" in table and "local_adaln" in table and (folder / "search.png").stat().st_size > 5000
