"""A packed run is the run, without what is of one machine alone."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from helpers.runs import untrained

from i4d_bench.config.presets import smoke
from i4d_bench.drivers.image import ImageEncoder
from i4d_bench.play.animate import animate
from i4d_bench.play.pack import pack
from i4d_bench.play.session import load_run
from i4d_bench.types import UserError

CPU = torch.device("cpu")


def test_a_pack_animates_as_its_run_does(tmp_path, monkeypatch, smoke_frames):
    """Also where the folder of runs, and the image driver's encoder in it, is not."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    experiment = dataclasses.replace(smoke(), driver="image")
    run = untrained(tmp_path / "runs" / "smoke" / "run", "local_adaln", experiment, ImageEncoder(32))
    packed = pack(run, tmp_path / "elsewhere")
    world = smoke_frames.path
    plys = [animate(world, world, f, tmp_path / f"{f.name}.ply").read_bytes() for f in (run, packed)]
    assert plys[0] == plys[1]
    assert sorted(p.name for p in packed.iterdir()) == ["avatar.safetensors", "run.json"]
    assert str(tmp_path) not in (packed / "run.json").read_text()


def test_a_pack_is_packed_again_to_the_same_bytes(tmp_path):
    first = pack(untrained(tmp_path / "run", "static"), tmp_path / "a")
    second = pack(first, tmp_path / "b")
    for name in ("avatar.safetensors", "run.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_what_is_no_run_or_damaged_is_refused(tmp_path):
    run = untrained(tmp_path / "run", "static")
    with pytest.raises(UserError, match="name another folder"):
        pack(run, run)
    with pytest.raises(UserError, match="no trained run"):
        pack(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    packed = pack(run, tmp_path / "packed")
    (packed / "avatar.safetensors").write_bytes(b"no")
    with pytest.raises(UserError, match="pack the run again"):
        load_run(packed, CPU)
    whole = json.loads((packed / "run.json").read_text())
    for content in (
        {},
        [],
        whole | {"experiment": {}},
        whole | {"experiment": whole["experiment"] | {"colour": "red"}},
    ):
        (packed / "run.json").write_text(json.dumps(content))
        with pytest.raises(UserError, match=r"run\.json is damaged"):
            load_run(packed, CPU)


def test_a_pack_may_be_read_by_whom_other_files_may(tmp_path):
    packed = pack(untrained(tmp_path / "run", "static"), tmp_path / "packed")
    (tmp_path / "other").touch()
    assert {p.stat().st_mode for p in packed.iterdir()} == {(tmp_path / "other").stat().st_mode}


def test_weights_of_another_design_are_refused(tmp_path):
    run = untrained(tmp_path / "run", "local_adaln")
    content = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(content | {"design": "local_film"}))
    with pytest.raises(UserError, match="not those of local_film"):
        load_run(run, CPU)
