"""A design that lies outside of the repository, from `--designs ./my_gain.py` to tables, figures and `animate`."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from helpers.designs import shown_example

from i4d_bench import cli
from i4d_bench.play.ply import read_ply
from i4d_bench.play.session import load_run
from i4d_bench.types import UserError
from variants import base

DRAWN = True


@pytest.fixture
def forget():
    """Forgets what was loaded, as another process would not know it."""

    def again() -> None:
        for name in base._GIVEN:
            del base._REGISTRY[name]
        base._GIVEN.clear()

    return again


def test_it_is_trained_scored_printed_drawn_and_animated(cpu, outside, forget):
    """In processes of their own, which load it from its file, too."""
    (outside / "my_gain.py").write_text(shown_example())
    entry = "local_gain@hidden=8"
    cli.run(
        preset="smoke",
        designs=("static", "./my_gain.py@hidden=8"),
        reports=outside / "reports",
        runs=outside / "runs",
        jobs=2,
        baseline="static",
    )
    (folder,) = (outside / "reports").iterdir()
    table = pd.read_csv(folder / "main.csv").set_index("design")
    assert set(table.index[table.status != "reference"]) == {entry, "static"} and table.loc[entry, "params (M)"] > 0
    assert table.loc[entry].notna()[["self PSNR", "cross driving gap"]].all()
    assert "Differences from static" in (folder / "pairs.md").read_text()
    for name in ("curves", "intervals", "qualitative"):
        assert (folder / f"{name}.png").stat().st_size > 1000

    (run,) = outside.glob("runs/*/local_gain*")
    described = json.loads((run / "run.json").read_text(encoding="utf-8"))
    world = Path(described["data"])
    assert described["design"] == entry and described["experiment"]["sources"] == [str(outside / "my_gain.py")]
    forget()
    cli.animate(world, world, run, outside / "avatar.ply")
    assert read_ply(outside / "avatar.ply").means.isfinite().all()

    forget()
    (outside / "my_gain.py").rename(outside / "moved.py")
    with pytest.raises(
        UserError, match=r"local_gain is missing: there is no file .*my_gain.py; name .* with --designs"
    ):
        load_run(run, torch.device("cpu"))
    (outside / "my_gain.py").write_text(shown_example().replace('"local_gain"', '"other_gain"'))
    with pytest.raises(UserError, match="no fusion design 'local_gain'"):
        load_run(run, torch.device("cpu"))
    cli.animate(world, world, run, outside / "again.ply", designs=("./moved.py",))
    assert (outside / "again.ply").read_bytes() == (outside / "avatar.ply").read_bytes()
