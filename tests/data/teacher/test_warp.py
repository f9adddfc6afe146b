"""The animator `warp` on real faces: what moves, what stays, and what it says to pictures that it cannot use."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from i4d_bench.data.teacher.animators import Driver, Rgb
from i4d_bench.data.teacher.pairs import make
from i4d_bench.data.teacher.photos import Animator, PhotoMaker
from i4d_bench.data.teacher.store import Store
from i4d_bench.data.teacher.warp import Warp
from i4d_bench.data.video.files import write_video
from i4d_bench.data.video.landmarker import Landmarker
from i4d_bench.heads.expressions import INDEX

RESTS, SHUTS, SHOUTS = 288, 240, 312
"""Frames of the clip d3: a face at rest, eyes closed, and mouth wide open."""


@pytest.fixture
def photo() -> Rgb:
    pytest.importorskip("mediapipe")
    return pytest.importorskip("skimage.data").astronaut()[:300, 80:380].copy()


@pytest.fixture(scope="module")
def drivers(tmp_path_factory) -> Path:
    """shout.png, blink.png and both.mp4, in which the shout comes at 1 and the blink at 2, between two faces at rest."""
    blink, rest, shout = clip(SHUTS, RESTS, SHOUTS)
    folder = tmp_path_factory.mktemp("drivers")
    Image.fromarray(shout).save(folder / "shout.png")
    Image.fromarray(blink).save(folder / "blink.png")
    write_video(folder / "both.mp4", [rest, shout, blink, rest], 25.0)
    return folder


def clip(*moments: int) -> list[Rgb]:
    """With more room around, as the head leaves the picture."""
    shown = Driver(Path(os.environ["I4D_ASSETS"]) / "clips" / "d3.mp4", moments).wanted()
    return [np.pad(rgb, ((80, 80), (80, 80), (0, 0)), mode="edge") for rgb in shown]


def animated(photo: Rgb, *drivers: Driver) -> list:
    return list(Warp().animate(photo, drivers, 0))


def saved(path: Path, rgb: Rgb) -> Driver:
    Image.fromarray(rgb).save(path)
    return Driver(path, (0,))


def test_it_is_an_animator_and_travels_to_workers():
    assert isinstance(Warp(), Animator) and pickle.loads(pickle.dumps(Warp(Path("m")))) == Warp(Path("m"))


@pytest.mark.assets
def test_a_photo_that_drives_itself_stays(photo, tmp_path):
    (made,) = animated(photo, saved(tmp_path / "self.png", photo))
    np.testing.assert_array_equal(made[0], photo)


@pytest.mark.assets
def test_a_video_at_rest_leaves_the_photo(photo, drivers, tmp_path):
    (rest,) = clip(RESTS)
    (made,) = animated(photo, Driver(write_video(tmp_path / "rest.mp4", [rest] * 4, 25.0), (0, 3)))
    for frame in made:
        assert 10 * np.log10(255**2 / max(np.mean((frame.astype(float) - photo) ** 2), 1e-9)) > 40


@pytest.mark.assets
def test_mouth_and_lids_follow(photo, drivers):
    both, shout, blink = animated(
        photo,
        Driver(drivers / "both.mp4", (0, 1, 2)),
        *(Driver(drivers / f"{n}.png", (0,)) for n in ("shout", "blink")),
    )
    with Landmarker() as find:
        before = find(photo).blendshapes
        rest, by_video, lids, by_picture, lids_by_picture = (find(rgb).blendshapes for rgb in (*both, *shout, *blink))
    jaw, eyes = INDEX["jawOpen"], [INDEX["eyeBlinkLeft"], INDEX["eyeBlinkRight"]]
    assert max(before[jaw], rest[jaw]) < 0.05 < 0.1 < min(by_video[jaw], by_picture[jaw])
    assert max(*before[eyes], *rest[eyes]) < 0.1 < 0.2 < min(*lids[eyes], *lids_by_picture[eyes])
    assert lids[jaw] < 0.05


@pytest.mark.assets
def test_what_is_not_face_stays(photo, drivers):
    (made,) = animated(photo, Driver(drivers / "shout.png", (0,)))
    changed = (made[0] != photo).any(-1)
    assert changed[120:240, 100:200].mean() > 0.5  # the face; hair, background and suit lie around it
    assert not changed[:40].any() and not changed[:, :30].any() and not changed[:, -70:].any()


@pytest.mark.assets
def test_frames_do_not_depend_on_which_others_are_wanted(photo, drivers):
    few, all_, again = animated(photo, *(Driver(drivers / "both.mp4", m) for m in ((1,), (0, 1, 2, 3), (1,))))
    assert len(all_) == 4
    np.testing.assert_array_equal(few[0], all_[1])
    np.testing.assert_array_equal(few[0], again[0])


@pytest.mark.assets
def test_without_a_face_there_is_a_sentence(photo, drivers, tmp_path):
    grey = np.full((128, 128, 3), 99, np.uint8)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    shout = Driver(drivers / "shout.png", (0,))
    said = animated(photo, saved(tmp_path / "grey.png", grey), Driver(tmp_path / "broken.png", (0,)), shout)
    assert said[0] == "the driver cannot be used: no face" and said[1].startswith(
        "the driver cannot be used: the image"
    )
    assert len(said[2]) == 1
    assert animated(grey, shout, shout) == ["the source cannot be used: no face"] * 2


@pytest.mark.assets
def test_frames_without_a_face_are_black(photo, drivers, tmp_path):
    (shout,) = clip(SHOUTS)
    video = write_video(tmp_path / "gone.mp4", [shout, np.full_like(shout, 99)], 25.0)
    (made,) = animated(photo, Driver(video, (0, 1)))
    assert made[0].any() and not made[1].any()


@pytest.mark.assets
def test_large_small_and_cut_photos(photo, drivers):
    shout = Driver(drivers / "shout.png", (0,))
    large = np.asarray(Image.fromarray(photo).resize((2400, 2400)))
    for rgb in (large, photo[::2, ::2].copy(), photo[60:215, 90:215].copy()):
        (made,) = animated(rgb, shout)
        assert made[0].shape == rgb.shape and (made[0] != rgb).any()


@pytest.mark.assets
def test_pairs_are_made_of_it(photo, drivers, tmp_path):
    (tmp_path / "sources").mkdir()
    Image.fromarray(photo).save(tmp_path / "sources" / "ann.png")
    assert make(PhotoMaker(Warp(), tmp_path / "sources", drivers, 64, 2), tmp_path / "s", complete=True) == 0
    rows = Store(tmp_path / "s").rows()
    assert len(rows) == 4 and {(r.animator, r.version, r.failure) for r in rows} == {("warp", "1", "")}
    jaw = {
        r.driver: Store(tmp_path / "s").read(k)["target"]["coefficients"][INDEX["jawOpen"]] for k, r in enumerate(rows)
    }
    assert jaw["shout.png#0"] > jaw["blink.png#0"] + 0.1
