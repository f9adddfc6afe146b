"""A design with a tracker's error trains and is scored with it, beside others that are as they were."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from i4d_bench.config.presets import smoke
from i4d_bench.jobs.bench import Bench
from i4d_bench.jobs.plan import plan
from i4d_bench.jobs.run import run
from i4d_bench.results.store import Store
from i4d_bench.types import UserError

pytestmark = pytest.mark.usefixtures("cpu")
NONE, ZERO, HALF = ("flame_adaln", "flame_adaln@flame_error=0", "flame_adaln@flame_error=0.5")
FILMED = True
"""A film of a design that reads FLAME coefficients."""
EXPERIMENT = dataclasses.replace(smoke(), designs=(NONE, ZERO, HALF))


@pytest.fixture(scope="module")
def ran(cpu, tmp_path_factory):
    """The plan of designs with errors, run once, and their results."""
    folder = tmp_path_factory.mktemp("work")
    store = Store(run(EXPERIMENT, folder / "reports", folder / "runs"))
    return plan(EXPERIMENT, folder / "reports", folder / "runs"), store


def test_no_error_is_the_design_itself_to_the_bit(ran):
    what, store = ran
    plain, zero, half = (torch.load(run.folder / "checkpoint.pt") for run in what.runs)
    assert all(torch.equal(a, zero["fusion"][k]) for k, a in plain["fusion"].items())
    assert all(torch.equal(a, zero["backbone"][k]) for k, a in plain["backbone"].items())
    assert not all(torch.equal(a, half["fusion"][k]) for k, a in plain["fusion"].items())
    metrics = {r.design: r.metrics for r in store.records}
    assert metrics[NONE] == metrics[ZERO] != metrics[HALF]


def test_designs_are_scored_with_their_own_coefficients(ran):
    """What was trained without an error, scored with one, has other scores."""
    what, _ = ran
    bench = Bench(what)
    avatar, _ = bench.train(what.runs[0])
    values = []
    for of in what.runs:
        rows = bench.scores(of, avatar).rows
        values.append([row["value"] for row in rows if (row["set"], row["metric"]) == ("self", "psnr")])
    assert values[0] == values[1] and len({tuple(v) for v in values}) == 2


def test_errors_are_part_of_a_runs_identity_and_of_what_it_sees(ran):
    what, store = ran
    assert len({run.id.rpartition("-")[2] for run in what.runs}) == 3
    seen = {r.design: r.sees[0] for r in store.records}
    assert seen[NONE] == seen[ZERO] and seen[NONE].startswith("the true coefficients")
    assert seen[HALF].startswith("0.5 times a tracker's error")


def test_an_error_that_changes_nothing_is_refused_before_work_begins(tmp_path):
    for changed in (
        {"designs": ("local_adaln@flame_error=1",)},
        {"overrides": {"flame_adaln": {"flame_error": -1}}},
    ):
        with pytest.raises(UserError, match="flame_error"):
            run(dataclasses.replace(EXPERIMENT, **changed), tmp_path / "reports", tmp_path / "runs")
    assert not (tmp_path / "runs").exists() and not list(tmp_path.glob("reports/*/runs/*"))
