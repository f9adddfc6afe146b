"""An animation is shown when its driver's frames were."""

from __future__ import annotations

import av
import numpy as np
import pytest
import torch

from i4d_bench.config.presets import smoke
from i4d_bench.data import frames as store
from i4d_bench.jobs.bench import describe
from i4d_bench.model.avatar import Backbone
from i4d_bench.play.animate import animate
from i4d_bench.play.session import shown_at


def driver(path, times, identity, kind="clips", fps=(30.0, 30.0), **more) -> store.Frames:
    """A data set of grey pictures."""
    n = len(identity)
    arrays = {
        "rgb": np.full((n, 128, 128, 3), 90, np.uint8),
        "alpha": np.full((n, 128, 128), 255, np.uint8),
        "region": np.zeros((n, 128, 128), np.uint8),
        "viewmats": np.tile(np.diag([1, -1, -1, 1]).astype(np.float32), (n, 1, 1)),
        "Ks": np.tile(np.array([[386, 0, 64], [0, 386, 64], [0, 0, 1]], np.float32), (n, 1, 1)),
        "identity": np.array(identity, np.int32),
        "expression": np.arange(0, 2 * n, 2, dtype=np.int32),
        "coefficients": np.random.default_rng(0).random((n, 52), np.float32),
        "landmarks": np.zeros((n, 68, 2), np.float32),
    }
    arrays["viewmats"][:, 2, 3] = 2.7
    if times is not None:
        arrays["times"] = np.array(times, float)
    meta = {"kind": kind, "source": "drawn", **({"fps": list(fps)} if fps else {}), **more}
    return store.open_frames(store.write(path, arrays, meta))


def test_a_film_keeps_the_drivers_times(tmp_path, monkeypatch):
    """Also over frames that were skipped, and over the next person's video."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    own = [0.1, 0.2, 0.5, 0.54, 1.9]
    data = driver(tmp_path / "data", [*own, 0.0, 0.04], [0] * 5 + [1] * 2)
    experiment = smoke()
    states = {"backbone": Backbone(experiment.model).state_dict(), "fusion": experiment.fusion("static").state_dict()}
    describe(tmp_path / "run", experiment, "static", data)
    torch.save(states, tmp_path / "run" / "checkpoint.pt")
    out = animate(data.path, data.path, tmp_path / "run", tmp_path / "out.mp4")
    with av.open(str(out)) as film:
        shown = [frame.time for frame in film.decode(video=0)]
    assert shown == pytest.approx([*own, 1.9 + 1 / 30, 1.9 + 1 / 30 + 0.04], abs=1e-4)


def test_data_sets_without_times(tmp_path):
    """Older ones hold frame numbers and rates; a rendered world is no video."""
    old, fps = shown_at(driver(tmp_path / "old", None, [0] * 3, fps=(50.0,)))
    assert old == pytest.approx([0, 0.04, 0.08]) and fps == 50
    world, fps = shown_at(driver(tmp_path / "world", None, [0, 0, 1], kind="procedural", fps=None))
    assert world == pytest.approx([0, 0.04, 0.08]) and fps == 25
