"""An animation is shown when its driver's frames were."""

from __future__ import annotations

import av
import pytest
import torch
from helpers.clips import drawn_clips
from helpers.runs import untrained

from i4d_bench.play.animate import animate
from i4d_bench.play.session import shown_at


def test_a_film_keeps_the_drivers_times(tmp_path, monkeypatch):
    """Also over frames that were skipped, and over the next person's video."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    own = [0.1, 0.2, 0.5, 0.54, 1.9]
    data = drawn_clips(tmp_path / "data", [0] * 5 + [1] * 2, [*own, 0.0, 0.04], fps=(30.0, 25.0))
    run = untrained(tmp_path / "run", "static")
    out = animate(data.path, data.path, run, tmp_path / "out.mp4", camera="turntable")
    with av.open(str(out)) as film:
        shown = [frame.time for frame in film.decode(video=0)]
    assert shown == pytest.approx([*own, 1.9 + 1 / 30, 1.9 + 1 / 30 + 0.04], abs=1e-4)


def test_data_sets_without_times(tmp_path):
    """Older ones hold frame numbers and rates; a rendered world is no video."""
    old, fps = shown_at(drawn_clips(tmp_path / "old", [0] * 3, fps=(50.0,)))
    assert old == pytest.approx([0, 0.02, 0.04]) and fps == 50
    rig, _ = shown_at(drawn_clips(tmp_path / "rig", [0] * 4, times=[0, 0, 0.04, 0.04]))
    assert rig == pytest.approx([0, 0.04, 0.08, 0.12]), "two cameras: one view after the other"
    world, fps = shown_at(drawn_clips(tmp_path / "world", [0, 0, 1], kind="procedural", fps=None))
    assert world == pytest.approx([0, 0.04, 0.08]) and fps == 25
