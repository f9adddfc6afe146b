"""A run's film: what happens in it, and that only the first seed of a call has one."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from i4d_bench.config import presets
from i4d_bench.data.video.files import read_frames
from i4d_bench.jobs import bench
from i4d_bench.jobs.run import run
from i4d_bench.play import film, splats
from i4d_bench.results.store import Store
from i4d_bench.types import FlameCode, MotionCode


def code(count: int, start: float) -> MotionCode:
    rows = start + torch.arange(count)[:, None]
    return MotionCode(
        rows * torch.ones(512), FlameCode(rows * torch.ones(3), rows * torch.ones(4), rows * torch.ones(15))
    )


def test_it_turns_then_every_driver_is_met_and_the_last_frame_leads_to_the_first():
    yaw, shown, codes = film.script(code(1, 0.0), code(2, 1.0))
    assert len(yaw) == len(shown) == len(codes.motion) == film.TURN + 3 * (film.EASE + film.HOLD)
    assert yaw.max() == pytest.approx(film.WIDEST, abs=0.5) and yaw.min() == pytest.approx(-film.WIDEST, abs=0.5)
    assert not yaw[film.TURN :].any() and not codes.motion[: film.TURN].any()
    held = codes.motion[film.TURN + film.EASE :: film.EASE + film.HOLD, 0]
    assert held.tolist() == [1, 2, 0] and shown[film.TURN + film.EASE :: film.EASE + film.HOLD].tolist() == [1, 2, 0]
    steps = np.abs(np.diff(codes.motion[:, 0].numpy(), append=0))
    assert steps.max() < 0.5, "no jump, the loop's end included"
    assert codes.flame is not None
    assert torch.equal(codes.flame.expression[:, 0], codes.motion[:, 0]) and not codes.flame.shape.any(), "own shape"


def pressed(*_):
    raise KeyboardInterrupt


def test_the_first_seed_of_a_call_is_filmed(tmp_path, monkeypatch):
    """Also where the call was stopped meanwhile."""
    monkeypatch.setattr("i4d_bench.report.build_runs", lambda *a, **k: ({}, {}, []))
    monkeypatch.setattr("i4d_bench.report.terminal.show", lambda *a, **k: None)
    experiment = dataclasses.replace(presets.smoke(), designs=("static",))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(bench, "film", pressed)
        run(experiment, tmp_path / "reports", tmp_path / "runs", jobs=1, seeds=(3,))
    store = Store(run(experiment, tmp_path / "reports", tmp_path / "runs", jobs=1, seeds=(3, 4)))
    filmed = {r.seed: store.film(r.run_id) for r in store.records}
    assert filmed[3].exists() and not filmed[4].exists()
    frames = [p.rgb for p in read_frames(filmed[3])]
    size = 2 * experiment.world.resolution
    assert frames[0].shape == (size, 2 * size, 3) and len(frames) > film.TURN
    ahead, aside = frames[0][:, size:].astype(int), frames[film.TURN // 4][:, size:].astype(int)
    assert np.abs(ahead - aside).mean() > 1, "it turns"
    kept = {r.seed: store.splats(r.run_id) for r in store.records}
    assert kept[3].exists() and not kept[4].exists() and len(splats.load(kept[3])["names"]) == len(splats.FACES)
    store.remove(next(r.run_id for r in store.records if r.seed == 3))
    assert not filmed[3].exists() and not kept[3].exists()
