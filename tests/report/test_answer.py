"""What a report found, in one line that claims no more than its seeds allow."""

from __future__ import annotations

import dataclasses
import json

import pytest

from i4d_bench.report import answer
from i4d_bench.report.columns import Column
from i4d_bench.report.rows import Row
from i4d_bench.report.web import speed
from i4d_bench.results.record import Record
from i4d_bench.stats import Interval

GAPS = {"local_a": 4.5, "global_b": 4.75, "flame_c": 7.8, "static": 9.0}
FAMILIES = {"local": "local", "global": "global", "flame": "parametric", "static": "control"}


def designs(seeds: int, named=tuple(GAPS)) -> dict[str, Row]:
    out = {}
    for name in named:
        family = FAMILIES[name.partition("_")[0]]
        one = Record(name, name, family, "gpu", {}, {}, 0, "image", {"kind": "procedural", "hash": "0"}, "started",
                     sees=["the truth"] * (family == "parametric"))  # fmt: skip
        out[name] = Row(tuple(dataclasses.replace(one, seed=s) for s in range(seeds)))
    return out


def column(metric: str = "gap", bold: frozenset[str] = frozenset(), values=GAPS) -> Column:
    intervals = {d: Interval(v, v - 0.5, v + 0.5, 96, 0, 4) for d, v in values.items()}
    return Column(f"cross {metric}", dict(values), 2, bold, {}, ("cross", metric), intervals)


def test_the_best_of_each_block_is_named_with_its_interval():
    said = answer.of_designs([column()], designs(2))
    assert said == (
        "Largest cross driving gap: global_b, 4.75 dB (4.25 to 5.25); of those given more flame_c, 7.80 dB (7.30 to 8.30). "
        "95% intervals over people alone; two seeds: no design is called better, that takes 3."
    )


def test_one_seed_has_no_interval_over_seeds_and_one_design_is_no_largest():
    said = answer.of_designs([column()], designs(1, ["local_a"]))
    assert said == (
        "Cross driving gap: local_a, 4.50 dB (4.00 to 5.00). 95% intervals over people alone; one seed: no intervals over seeds."
    )


@pytest.mark.parametrize(
    ("bold", "told"),
    [
        ({"global_b", "local_a"}, "5.25), not told apart from 1 of those given the same;"),
        ({"global_b"}, "5.25), ahead of all that are given the same;"),
    ],
)
def test_of_three_seeds_it_says_whether_the_best_is_told_apart(bold, told):
    said = answer.of_designs([column(bold=frozenset(bold))], designs(3))
    assert told in said and said.endswith("95% intervals over seeds and people.")


def test_without_a_gap_it_is_the_least_expression_error():
    said = answer.of_designs([column("aed_mp52")], designs(3))
    assert said.startswith("Smallest cross AED (MediaPipe): local_a, 4.50 (4.00 to 5.00)")
    assert answer.of_designs([dataclasses.replace(column(), of=("self", "psnr"))], designs(3)) == ""
    assert answer.of_designs([column()], designs(3, ["static"])) == "", "a control is no answer"


def test_a_search_names_the_setting_that_was_taken():
    rates = [
        Column("lr 0.001, own", {"local_a": 3.0, "flame_c": 5.0}, 2, frozenset({"local_a"})),
        Column("lr 0.003, silent", {"local_a": 2.0, "flame_c": 6.0}, 2, frozenset({"flame_c"})),
    ]
    assert answer.of_search(rates, designs(1, ["local_a", "flame_c"])) == (
        "Largest driving gap on validation, at the best rate and start: local_a, 3.00 dB (lr 0.001, own); of those given more "
        "flame_c, 6.00 dB (lr 0.003, silent). One seed: no intervals over seeds."
    )


def test_a_speed_report_names_the_fastest_design_that_waits_for_no_tracker(tmp_path):
    row = lambda fps: {"status": "ok", "ms": 1.0, "host_ms": 1.0, "fps": fps}  # noqa: E731
    rates = {"local_a": 100.0, "global_b": 1500.0, "flame_c": 1800.0, "static": 2000.0}
    rows = {f"frame/{d}/triton+graph/b1/n64/r32": row(fps) for d, fps in rates.items()}
    rows["frame/local_a/triton+graph/b1/n8/r32"] = row(9000.0)  # of another size
    rows["frame/local_a/eager/b1/n64/r32"] = row(9000.0) | {"status": "wrong"}
    needs = {"flame_c": "flame", "static": "none"}
    stored = {
        "schema": 1,
        "environment": {"hardware": "h100", "commit": "0", "dirty": False, "versions": {}},
        "roof": {"copy_tb_s": 1.0, "matmul_tflop_s": 1.0, "empty_ms": 1.0, "empty_host_ms": 1.0},
        "base": [1, 64, 32],
        "designs": {d: {"family": "local", "needs": needs.get(d, "motion")} for d in rates},
        "rows": rows,
    }
    (tmp_path / "speed.json").write_text(json.dumps(stored))
    said = speed.content(tmp_path)["answer"]
    size = "triton+graph; 64 Gaussians, 32², batch 1"
    assert said == f"Most frames per second of designs that need no tracker: global_b, 1,500 ({size})."
