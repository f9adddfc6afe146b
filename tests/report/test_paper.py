"""Tables for a paper: they fit their columns whatever stands in them."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from i4d_bench.metrics.cards import CARDS
from i4d_bench.report import appendix, latex, pairs, paper
from i4d_bench.report.columns import METRICS, SET_NAMES, Column
from i4d_bench.report.drawing import SMALL
from i4d_bench.report.rows import BLOCKS, Row
from i4d_bench.results.record import Record
from i4d_bench.results.store import Store
from i4d_bench.stats import Interval

NAMES = ["local_adaln", "global_interleaved_attention", "local_blendshapes@blendshapes=50,delta_scale=0.01,w_std=0.14",
         *(f"global_design_{k}" for k in range(10)), *(f"flame_design_{k}" for k in range(6)), "static"]  # fmt: skip
TRAIN = {"train": {"stages": [{"steps": 3600, "sources": 16, "frames": 4, "resolution": 128}]}}
FAMILY = {"local": "local", "global": "global", "flame": "parametric", "static": "control"}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with the tables of 20 designs and 4 seeds but one run, every metric of every set among them: none is measured."""
    rng, seeds, designs = np.random.default_rng(0), range(4), {}
    for name in NAMES:
        family = FAMILY[name.split("_")[0]]
        sees = ["the true coefficients of the person's shape and expression"] * (family == "parametric")
        record = Record(name, name, family, "gpu", TRAIN, {}, 0, "image", {"kind": "procedural", "hash": "0"}, "started", sees=sees,
                        environment={})  # fmt: skip
        ran = [seed for seed in seeds if (name, seed) != ("global_design_3", 2)]
        designs[name] = Row(tuple(dataclasses.replace(record, seed=seed) for seed in ran))
    designs = {d: row for block in BLOCKS for d, row in designs.items() if row.block == block}
    best = frozenset(NAMES[:3])
    column = lambda head, of, digits: Column(  # noqa: E731
        head,
        {d: 31 * rng.random() for d in designs},
        digits,
        best,
        {"true frame": 0.1},
        of,
        dict.fromkeys(designs, Interval(0.25, 0.0, 0.5, 96, 0, 4)),
    )
    columns = [
        column("FPS ↑", ("", "fps"), 0),
        column("onset (steps)", ("", "onset"), 0),
        column("GFLOP / person", ("", ""), 3),
    ]
    columns += [
        column(f"{name} {CARDS[m].label} {CARDS[m].arrow}", (s, m), 3) for s, name in SET_NAMES.items() for m in METRICS
    ]
    verdicts = [("better", 0.0), ("worse", 0.01), ("undecided", 0.3), ("practically equal", 0.5), ("not told", np.nan)]
    found = pd.DataFrame([
        {"set": s, "metric": m, "design": d, "verdict": v, "p": p}
        for s in ("self", "cross") for m in METRICS for d, (v, p) in zip(NAMES, verdicts * 4, strict=True)
    ])  # fmt: skip
    store, notes = (
        Store(tmp_path_factory.mktemp("paper")),
        [f"{c.definition}: 100 % of {c.name}." for c in CARDS.values()],
    )
    paper.write(store, columns, designs, None)
    appendix.write(store.folder, columns, designs, notes, ("local_adaln", found))
    return store.folder


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here")
@pytest.mark.parametrize("name", ["paper", "appendix"])
def test_twenty_designs_and_four_seeds_fit_two_columns(built: Path, name: str):
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", f"{name}.tex"], cwd=built, capture_output=True,
        encoding="utf-8", errors="replace",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    log = (built / f"{name}.log").read_text(encoding="utf-8", errors="replace")
    for trouble in ("Overfull", "Float too large", "Missing character", "undefined"):
        assert trouble not in log


def test_a_papers_tables_have_nine_columns_at_most_and_say_what_they_are(built: Path):
    for name, most in (("paper_column", 6), ("paper_wide", 9)):
        text = (built / f"{name}.tex").read_text(encoding="utf-8")
        row = next(line for line in text.splitlines() if line.startswith("local adaln"))
        assert row.count("&") == most - 1 and r"\textbf{" in row and r"\pm$0.250" in row
        for said in (
            "4 seeds",
            "test people",
            "procedural heads",
            "driver image",
            "64 pictures at 128",
            "Given more: the true",
            "Not yet run: global design 3 of seed 2.",
        ):
            assert said.replace(",", r",\allowbreak{}") in text
        heads = [latex.BLOCK_HEADS[b] for b in ("fair", "privileged", "control")]
        assert [text.index(h) for h in heads] == sorted(text.index(h) for h in heads)


def test_a_papers_tables_have_no_text_smaller_than_figures_have(built: Path):
    """\\scriptsize is 7 pt in a document of 10."""
    for name in ("paper_column", "paper_wide"):
        sizes = re.findall(r"\\fontsize\{([\d.]+)\}", (built / f"{name}.tex").read_text(encoding="utf-8"))
        assert all(float(size) >= SMALL for size in sizes)
        assert r"\tiny" not in (built / f"{name}.tex").read_text(encoding="utf-8")


def test_comparisons_are_marks_and_tiny_p_are_no_numbers():
    verdicts = ["better", "worse", "undecided", "not told: 1 of 3 seeds"]
    found = pd.DataFrame({"set": "self", "metric": ["psnr", "psnr", "gap", "gap"], "design": ["a", "b", "a", "c"],
                          "p": [1e-9, 0.01, 0.4, np.nan], "verdict": verdicts})  # fmt: skip
    table = pairs.matrices(found)["self"]
    assert (
        table.loc["a"].tolist() == ["▲", "·"] and table.loc["b"].tolist() == ["▽", ""] and table.loc["c", "gap"] == "?"
    )
    assert "▲ better, p < 0.0001; ▽ worse, p < 0.05" in pairs.legend(found) and "practically" not in pairs.legend(found)
