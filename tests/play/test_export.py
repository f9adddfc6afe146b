"""What onnxruntime makes of an exported avatar is what torch makes of it, or no file is left."""

from __future__ import annotations

import dataclasses
import sys

import onnxruntime
import pytest
from helpers.runs import untrained

from i4d_bench.config.presets import smoke
from i4d_bench.drivers.image import ImageEncoder
from i4d_bench.play import export as module
from i4d_bench.play.export import OUTPUTS, TOLERANCE, export
from i4d_bench.types import UserError


def names(file) -> tuple[list[str], list[str]]:
    session = onnxruntime.InferenceSession(str(file))
    return [i.name for i in session.get_inputs()], [o.name for o in session.get_outputs()]


def test_sliders_to_gaussians(tmp_path, capsys, smoke_frames):
    out = export(untrained(tmp_path / "run", "local_adaln"), tmp_path / "avatar.onnx", smoke_frames.path)
    assert names(out) == (["coefficients"], list(OUTPUTS))
    assert float(capsys.readouterr().out.rsplit("by ", 1)[1]) < TOLERANCE


def test_a_picture_and_a_parametric_head_to_gaussians(tmp_path, smoke_frames):
    experiment = dataclasses.replace(smoke(), driver="image")
    run = untrained(tmp_path / "runs" / "smoke" / "run", "flame_adaln", experiment, ImageEncoder(32))
    out = export(run, tmp_path / "avatar.onnx", smoke_frames.path)
    assert names(out) == (["crop", "coefficients"], list(OUTPUTS))


def test_a_graph_that_says_something_else_is_not_left(tmp_path, monkeypatch, smoke_frames):
    run = untrained(tmp_path / "run", "static")
    monkeypatch.setattr(module, "difference", lambda file, frame: 0.5)
    with pytest.raises(UserError, match=r"static as ONNX gives other Gaussians than torch, by 50.0%"):
        export(run, tmp_path / "avatar.onnx", smoke_frames.path)
    assert not (tmp_path / "avatar.onnx").exists()
    with pytest.raises(UserError, match=r"names a \.onnx file"):
        export(run, tmp_path / "avatar.pt")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match=r"export needs onnx: pip install -e '.\[export\]'"):
        export(run, tmp_path / "avatar.onnx")
