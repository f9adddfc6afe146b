"""Small stores of teacher pairs."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from i4d_bench.data.teacher.samples import ROLES, Picture, Sample
from i4d_bench.data.teacher.store import Row, Writer, write_index
from i4d_bench.data.video.landmarker import Landmarker

WAVES = np.arange(1, 4)


class NoLandmarker(Landmarker):
    """Stands where nothing is looked for."""

    def __init__(self, *_, **__):
        self.close = lambda: None


def picture(seed: int, size: int = 16) -> Picture:
    """Smooth, as JPEG likes it: a disc of waves."""
    r = np.random.default_rng(seed)
    x, y = np.meshgrid(*[np.linspace(-1, 1, size)] * 2)
    inside = x * x + y * y < 0.8
    phase = r.uniform(0, 6, 3)
    rgb = (127 + 120 * np.sin(WAVES * x[..., None] + y[..., None] + phase)) * inside[..., None]
    return {
        "rgb": rgb.astype(np.uint8),
        "alpha": (255 * inside).astype(np.uint8),
        "region": (inside * r.integers(0, 5, (size, size))).astype(np.uint8),
        "viewmats": r.normal(size=(4, 4)).astype(np.float32),
        "Ks": r.normal(size=(3, 3)).astype(np.float32),
        "coefficients": r.uniform(size=52).astype(np.float32),
        "landmarks": r.uniform(0, size, (68, 2)).astype(np.float32),
    }


def sample(seed: int, size: int = 16) -> Sample:
    return {role: picture(10 * seed + k, size) for k, role in enumerate(ROLES)}


def row(person: int, driver: int, split: str = "train") -> Row:
    names = f"p{person:03d}", f"d{driver:03d}"
    return Row("-".join(names), names[0], f"{names[0]}.png", f"{names[1]}.png", 0, split, "stand-in", "1", "{}")


def store(folder: Path, people: int = 3, drivers: int = 4, size: int = 16, **writer) -> Path:
    """Every person by every driver; the last person is validated on."""
    with Writer(folder, **writer) as w:
        for p in range(people):
            for d in range(drivers):
                w.add(row(p, d, "val" if p == people - 1 else "train"), sample(p * drivers + d, size))
    write_index(folder)
    return folder


@dataclass(frozen=True)
class Maker:
    """A `pairs.Maker` of small pictures: every person by every driver. Those in `failing` fail; at `dying` the process is
    killed, and at `waiting` it waits for long."""

    people: int = 3
    drivers: int = 4
    failing: tuple[str, ...] = ()
    dying: str = ""
    waiting: str = ""

    def jobs(self):
        return range(self.people)

    def rows(self, job: int) -> list[Row]:
        return [row(job, d) for d in range(self.drivers)]

    def make(self, job: int, rows: list[Row], worker: int):
        for r in rows:
            if r.id == self.dying:
                os.kill(os.getpid(), signal.SIGKILL)
            if r.id == self.waiting:
                time.sleep(600)
            if r.id in self.failing:
                yield r, f"{r.driver} shows no face"
            else:
                yield r, sample(job * self.drivers + int(r.driver[1:4]))
