"""A face network that does not tell a data set's people apart is left out there, and said so."""

from __future__ import annotations

import dataclasses

import pytest
import torch.nn.functional as F

from i4d_bench.config import presets
from i4d_bench.jobs import bench
from i4d_bench.jobs.run import run
from i4d_bench.results.store import Store


class Alike:
    """Finds one face in everyone; `spread` of what it sees besides."""

    name = "alike"

    def __init__(self, spread: float):
        self.spread = spread

    def embed(self, images, landmarks, check=True):
        return F.normalize(1 + self.spread * (images.mean((1, 2)) - 0.5), dim=-1)


@pytest.mark.parametrize(("spread", "left_out"), [(0.0, True), (-1e3, False)])
def test_networks_that_cannot_tell_are_left_out(tmp_path, monkeypatch, spread, left_out):
    monkeypatch.setattr(bench, "embedder", lambda name: Alike(spread))
    if not left_out:
        monkeypatch.setattr(bench, "telling", lambda *_: True)
    smoke = presets.smoke()
    evaluate = dataclasses.replace(smoke.evaluate, identity=("dlib",))
    experiment = dataclasses.replace(smoke, designs=("static",), evaluate=evaluate)
    (record,) = Store(run(experiment, tmp_path / "reports", tmp_path / "runs", jobs=1)).records
    assert ("csim_dlib" in record.metrics["self"]) != left_out
    known = {m for sets in record.references.values() for metrics in sets.values() for m in metrics}
    assert known >= {"csim_dlib", "leak_dlib"} if not left_out else not known & {"csim_dlib", "leak_dlib"}
    said = "CSIM by dlib is left out, since that network does not tell these people apart: two pictures of one person have 1.000"
    assert any(note.startswith(said) for note in record.notes) == left_out
    true = record.references["true frame"]
    assert true["self"]["aed_true"] > 0 and true["novel"]["reprojection"] > 0 and true["cross"]["leak_driver"] == 0
