"""Pairs of photos through an animator: which rows there are, and what becomes of pictures that cannot be used."""

from __future__ import annotations

import json
import pickle
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from helpers import teacher
from PIL import Image

from i4d_bench.data.teacher import photos
from i4d_bench.data.teacher.animators import command
from i4d_bench.data.teacher.check import check
from i4d_bench.data.teacher.pairs import make
from i4d_bench.data.teacher.photos import PhotoMaker
from i4d_bench.data.teacher.store import INDEX, Store
from i4d_bench.data.video.files import write_video
from i4d_bench.types import UserError


@dataclass
class Mean:
    """Every frame gets the mean brightness of source and driver; what is darker than 10 it does not animate."""

    name: str = "mean"
    version: str = "7"
    most: int | None = None
    flags: dict = field(default_factory=lambda: {"strength": 1})

    def animate(self, source, drivers, worker):
        for driver in drivers:
            shown = driver.wanted()
            yield (
                "too dark" if shown[0].mean() < 10 else [np.full_like(f, (f.mean() + source.mean()) / 2) for f in shown]
            )


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Photos and drivers of one brightness each; a face is found in what is no darker than 50."""

    def prepare(rgb, size, landmarker):
        if rgb.mean() < 50:
            raise UserError("no face")
        picture = teacher.picture(0, size)
        return {k: v[None] for k, v in (picture | {"rgb": np.full((size, size, 3), int(rgb.mean()), np.uint8)}).items()}

    monkeypatch.setattr(photos, "prepare", prepare)
    monkeypatch.setattr("i4d_bench.data.video.quiet.Landmarker", teacher.NoLandmarker)
    monkeypatch.setattr(photos, "find_model", lambda _: None)
    sources, drivers = tmp_path / "sources", tmp_path / "drivers"
    for folder, greys in ((sources, {"ann.v2": 100, "bob": 200, "night": 20}), (drivers, {"smile": 60, "black": 5})):
        folder.mkdir()
        for name, grey in greys.items():
            Image.fromarray(np.full((20, 20, 3), grey, np.uint8)).save(folder / f"{name}.png")
    write_video(drivers / "talk.mp4", [np.full((32, 32, 3), 60 + 10 * k, np.uint8) for k in range(9)], 25.0)
    return sources, drivers


def maker(folders, **settings) -> PhotoMaker:
    return PhotoMaker(Mean(), *folders, size=16, moments=3, **settings)


def test_pictures_and_moments_of_videos_become_pairs(folders, tmp_path, capsys):
    assert make(maker(folders), tmp_path / "s") == 0
    rows = Store(tmp_path / "s").rows()
    assert (
        len(rows) == 3 * (1 + 1 + 3) and {r.animator for r in rows} == {"mean"} and {r.version for r in rows} == {"7"}
    )
    assert json.loads(rows[0].flags) == {"size": 16, "strength": 1}
    by = {(r.source, r.driver): (k, r) for k, r in enumerate(rows)}
    number, row = by["bob.png", "talk.mp4#4"]
    assert row.identity == "bob.png" and not row.failure
    s = Store(tmp_path / "s").read(number)
    assert [round(float(s[role]["rgb"].mean()), -1) for role in ("source", "driver", "target")] == [200, 100, 150]
    assert by["bob.png", "black.png#0"][1].failure == "too dark"
    assert by["night.png", "smile.png#0"][1].failure == "the source cannot be used: no face"
    assert "5 failed: the source cannot be used: no face" in capsys.readouterr().out


def test_an_animator_that_reads_so_many_frames_is_asked_for_those(folders):
    m = PhotoMaker(Mean(most=5), *folders, size=16, moments=3)
    assert [r.driver for r in m.rows(folders[0] / "bob.png") if "talk" in r.driver] == [
        "talk.mp4#0",
        "talk.mp4#2",
        "talk.mp4#4",
    ]


def test_people_stay_in_their_split_whoever_joins(folders):
    def splits():
        m = maker(folders, held_out=0.25)
        return {job.name: {r.split for r in m.rows(job)} for job in m.jobs()}

    before = splits()
    assert all(len(s) == 1 for s in before.values())
    for k in range(40):
        Image.fromarray(np.full((8, 8, 3), 99, np.uint8)).save(folders[0] / f"more{k}.png")
    after = splits()
    assert before.items() <= after.items() and {s for one in after.values() for s in one} == {"train", "val", "test"}


def test_names_of_any_kind_become_keys_of_their_own(folders, tmp_path):
    for name in ("Ann v2", "ann/v2".replace("/", "-"), "日本", "a" * 90):
        Image.fromarray(np.full((20, 20, 3), 100, np.uint8)).save(folders[0] / f"{name}.png")
    assert make(maker(folders), tmp_path / "s") == 0
    assert len({r.id for r in Store(tmp_path / "s").rows()}) == 7 * 5


def test_pairs_made_in_another_way_are_not_taken_for_these(folders, tmp_path):
    """Else a store asked for in another size would stay as it is, and look done."""
    make(maker(folders), tmp_path / "s")
    before = (tmp_path / "s" / INDEX).read_bytes()
    for other in (replace(maker(folders), size=32), replace(maker(folders), animator=Mean(flags={"strength": 2}))):
        with pytest.raises(UserError, match=r"s holds ann_v2-smile-\w+-00000, made by mean .* another folder"):
            make(other, tmp_path / "s")
    assert (tmp_path / "s" / INDEX).read_bytes() == before
    newer = replace(maker(folders), animator=Mean(version="8"))
    assert make(newer, tmp_path / "s") == 0 and {r.version for r in Store(tmp_path / "s").rows()} == {"7"}


def test_a_maker_travels_to_workers(folders):
    m = maker(folders)
    rows = m.rows(folders[0] / "bob.png")
    assert pickle.loads(pickle.dumps(m)).rows(folders[0] / "bob.png") == rows


@pytest.mark.assets
def test_real_faces_are_cropped_and_read(tmp_path):
    """An animator that shows the driver itself: source and target are two people, driver and target one."""
    from helpers.real_faces import clip_frames

    for folder, clips in (("sources", ("d0", "d3")), ("drivers", ("d9",))):
        (tmp_path / folder).mkdir()
        for clip in clips:
            Image.fromarray(clip_frames(clip, 1)[0]).save(tmp_path / folder / f"{clip}.png")
    Image.fromarray(np.full((99, 99, 3), 77, np.uint8)).save(tmp_path / "drivers" / "grey.png")
    (tmp_path / "show.py").write_text("import shutil, sys; shutil.copy(sys.argv[1], sys.argv[2] + '/shown.png')")
    show = command("command", tmp_path, f'"{sys.executable}" show.py {{driver}} {{out}} {{source}}')
    assert make(PhotoMaker(show, tmp_path / "sources", tmp_path / "drivers", 64), tmp_path / "s") == 0
    s = Store(tmp_path / "s")
    reasons = [r.failure for r in s.rows()]
    assert len(s) == 4 and sum("no face" in reason for reason in reasons) == 2
    sample = s.read(reasons.index(""))
    np.testing.assert_allclose(sample["driver"]["coefficients"], sample["target"]["coefficients"], atol=0.02)
    assert np.abs(sample["source"]["coefficients"] - sample["target"]["coefficients"]).max() > 0.1
    assert all(sample[role]["alpha"].mean() > 50 for role in sample) and check(tmp_path / "s") == 0


def test_empty_and_missing_folders_are_one_sentence(folders, tmp_path):
    with pytest.raises(UserError, match=r"holds no file that ends in \.png"):
        maker((folders[0], _made(tmp_path / "empty"))).jobs()
    with pytest.raises(UserError, match="cannot read the folder"):
        maker((tmp_path / "nowhere", folders[1])).jobs()


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
