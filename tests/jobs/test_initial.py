"""`--init`: designs start from finished runs, where the weights mean the same."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch
from helpers.clips import drawn_clips

from i4d_bench.config.override import override
from i4d_bench.config.presets import smoke
from i4d_bench.jobs.plan import plan
from i4d_bench.jobs.run import run
from i4d_bench.results.store import Store
from i4d_bench.types import UserError

DESIGNS = ("local_adaln", "static")


@pytest.fixture(scope="module")
def work(cpu, tmp_path_factory):
    """A world's runs, and a data set of two people."""
    folder = tmp_path_factory.mktemp("init")
    run(dataclasses.replace(smoke(), designs=DESIGNS), folder / "reports", folder / "runs")
    drawn_clips(folder / "clips", [0] * 8 + [1] * 8)
    return folder


def of_world(work) -> Path:
    """The folder of the world's runs."""
    return next(
        p.parent.parent for p in work.glob("runs/*/local_adaln-*/run.json") if "clips" not in p.parent.parent.name
    )


def on_video(work, *init, designs=DESIGNS, settings=(), driver="blendshapes"):
    e = smoke()
    world = dataclasses.replace(e.world, kind="clips", path=str(work / "clips"))
    e = dataclasses.replace(e, world=world, driver=driver, designs=designs, init=tuple(map(str, init)))
    return override(e, list(settings))


def checkpoint(folder: Path) -> dict:
    return torch.load(next(folder.glob("local_adaln-*/checkpoint.pt")))


def test_designs_start_from_the_weights_of_their_own_name(work, tmp_path):
    still = ["train.lr=0.0", "train.lr_fusion=0.0"]
    report = run(on_video(work, of_world(work), settings=still), tmp_path / "reports", tmp_path / "runs")
    assert f"from-{of_world(work).name}" in report.name
    before, after = checkpoint(of_world(work)), checkpoint(next((tmp_path / "runs").glob("*from-*")))
    for part in ("backbone", "fusion"):
        assert before[part] and all(torch.equal(v, after[part][k]) for k, v in before[part].items()), part
    assert not (tmp_path / "runs" / "backbones").exists(), "there is no warm-up"
    records = Store(report).records
    assert [r.design for r in records] == list(DESIGNS) and all(set(r.weights) == {"init"} for r in records)


def test_it_learns_from_there(work, tmp_path):
    run(on_video(work, of_world(work), designs=("local_adaln",)), tmp_path / "reports", tmp_path / "runs")
    before, after = checkpoint(of_world(work)), checkpoint(next((tmp_path / "runs").glob("*from-*")))
    assert any(not torch.equal(v, after["fusion"][k]) for k, v in before["fusion"].items())


def test_a_run_is_known_by_the_bytes_that_it_starts_from(work, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(of_world(work), copy)
    ids = [plan(on_video(work, copy), tmp_path / "reports", tmp_path / "runs").runs[0].id]
    path = next(copy.glob("local_adaln-*/checkpoint.pt"))
    state = torch.load(path)
    torch.save(state | {"more": 1}, path)
    ids.append(plan(on_video(work, copy), tmp_path / "reports", tmp_path / "runs").runs[0].id)
    ids.append(plan(on_video(work), tmp_path / "reports", tmp_path / "runs").runs[0].id)
    assert len(set(ids)) == 3


def unfinished(work, tmp_path) -> Path:
    shutil.copytree(of_world(work), tmp_path / "copy")
    path = next((tmp_path / "copy").glob("local_adaln-*/checkpoint.pt"))
    state = torch.load(path)
    state["progress"]["step"] = 1
    torch.save(state, path)
    return tmp_path / "copy"


def twice(work, tmp_path) -> Path:
    for name in ("local_adaln-a", "local_adaln-b"):
        shutil.copytree(next(of_world(work).glob("local_adaln-*")), tmp_path / "copy" / name)
    return tmp_path / "copy"


@pytest.mark.parametrize(("folder", "more", "said"), [
    (lambda work, _: of_world(work), {"settings": ["model.widths=[8,16,24]"]}, r"there model\.widths is \(8, 16, 16\), here"),
    (lambda work, _: of_world(work), {"settings": ["overrides.local_adaln.hidden=48"]}, r"overrides\.local_adaln\.hidden"),
    (lambda work, _: of_world(work), {"designs": ("local_film",)}, "no run of local_film; it has local_adaln, static"),
    (lambda work, _: of_world(work), {"driver": "flame"}, "driver's code is 'blendshapes', here 'flame coefficients"),
    (lambda work, _: of_world(work), {"driver": "image"}, "driver's code is 'blendshapes', here 'that of the encoder"),
    (unfinished, {}, "not finished: 1 of"),
    (twice, {}, "several runs of local_adaln: name one of"),
    (lambda work, tmp_path: tmp_path, {}, "holds no finished run"),
])  # fmt: skip
def test_weights_that_mean_something_else_are_refused(work, tmp_path, folder, more, said):
    with pytest.raises(UserError, match=said):
        plan(on_video(work, folder(work, tmp_path), **more), tmp_path / "reports", tmp_path / "runs")
