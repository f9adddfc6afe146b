"""Source and driver from the front: what the animator inside is shown."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from helpers import teacher
from PIL import Image

from i4d_bench.cache import file_digest
from i4d_bench.camera import look_at
from i4d_bench.config import presets
from i4d_bench.data.teacher.animators import Driver
from i4d_bench.data.video.files import write_video
from i4d_bench.model.avatar import Backbone
from i4d_bench.train import frontal
from i4d_bench.train.frontal import Frontal
from i4d_bench.types import UserError

SIZE = presets.smoke().model.size
LIGHT, LIGHTER, BLACK = 120, 200, 0


@dataclass
class Watcher:
    """Remembers what it is shown, and answers with the driver's frames."""

    name: str = "watcher"
    version: str = "3"
    most: int | None = 40
    flags: dict = field(default_factory=lambda: {"strength": 1})
    sources: list = field(default_factory=list)

    def animate(self, source, drivers, worker):
        self.sources.append(source)
        for driver in drivers:
            yield driver.wanted() if len(driver.moments) < 3 else "too long"


@pytest.fixture
def animator(tmp_path, monkeypatch):
    """In black pictures no face is found; all others are seen a head in their own grey from 30° aside."""

    def prepare(rgb, size, landmarker):
        if rgb.mean() < 50:
            raise UserError("no face")
        view, K = look_at(30, 0, size)
        alpha = teacher.picture(0, size)["alpha"]
        head = (alpha[..., None] / 255 * rgb.mean()).astype(np.uint8).repeat(3, -1)
        camera = {"viewmats": view.astype(np.float32), "Ks": K.astype(np.float32)}
        return {k: v[None] for k, v in (teacher.picture(0, size) | camera | {"rgb": head}).items()}

    monkeypatch.setattr(frontal, "prepare", prepare)
    monkeypatch.setattr(frontal, "Landmarker", teacher.NoLandmarker)
    torch.manual_seed(0)
    torch.save({"backbone": Backbone(presets.smoke().model).state_dict()}, tmp_path / "lifter.pt")
    return Frontal(Watcher(), tmp_path / "lifter.pt", presets.smoke().model)


def photo(brightness: int) -> np.ndarray:
    return np.full((40, 30, 3), brightness, np.uint8)


def drivers(folder) -> list[Driver]:
    Image.fromarray(photo(LIGHT)).save(folder / "light.png")
    Image.fromarray(photo(BLACK)).save(folder / "black.png")
    write_video(folder / "talk.mp4", [np.full((32, 32, 3), b, np.uint8) for b in (BLACK, LIGHT, LIGHTER, BLACK)], 25.0)
    light, black = Driver(folder / "light.png", (0,)), Driver(folder / "black.png", (0,))
    return [black, light, Driver(folder / "talk.mp4", (0, 2)), Driver(folder / "talk.mp4", (0, 1, 2, 3))]


def test_source_and_drivers_are_shown_from_the_front(animator, tmp_path):
    black, light, two, four = animator.animate(photo(LIGHT), drivers(tmp_path), worker=0)
    assert black == "the driver cannot be used: no face" and four == "too long"
    shown = animator.animator.sources[0]
    assert shown.shape == (SIZE, SIZE, 3) and len(light) == 1
    np.testing.assert_array_equal(light[0], shown, "a driver of the source's own picture")
    corners, middle = shown[[0, 0], [0, -1]].astype(int), shown[SIZE // 2, SIZE // 2].astype(int)
    assert np.abs(corners - 128).max() <= 2, "on grey"
    assert np.abs(middle - LIGHT).max() <= 3 and two[1][SIZE // 2, SIZE // 2].min() > (LIGHT + LIGHTER) / 2
    np.testing.assert_array_equal(two[0], two[1], "a frame without a face is shown as the first that has one")


def test_frontal_pairs_are_told_from_others(animator):
    assert (animator.name, animator.version, animator.most) == ("watcher", "3", 40)
    assert animator.flags == {"strength": 1, "frontal": file_digest(animator.network)}


def test_a_source_without_a_face_is_said(animator, tmp_path):
    made = list(animator.animate(photo(BLACK), drivers(tmp_path), worker=0))
    assert made == ["the source cannot be used: no face"] * 4 and not animator.animator.sources
