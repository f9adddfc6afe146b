"""Pairs of the user's photos and drivers through a 2D animator. Pictures are cropped, cut out and given a camera as video is."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from i4d_bench.data.splits import rng
from i4d_bench.data.teacher.animators import MOVIES, PICTURES, Driver, Rgb
from i4d_bench.data.teacher.samples import IMAGES, NUMBERS, Picture, Sample
from i4d_bench.data.teacher.store import Row
from i4d_bench.data.video import files, quiet
from i4d_bench.data.video.clips import prepare
from i4d_bench.data.video.landmarker import Landmarker, find_model
from i4d_bench.types import UserError


@runtime_checkable
class Animator(Protocol):
    """What makes a source move as drivers do, in two dimensions."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def flags(self) -> dict[str, Any]: ...

    @property
    def most(self) -> int | None:
        """Frames of a driver that it reads, if it does not read all."""
        ...

    def animate(self, source: Rgb, drivers: Sequence[Driver], worker: int) -> Iterator[list[Rgb] | str]:
        """As `animators.Command.animate`."""
        ...


@dataclass(frozen=True)
class PhotoMaker:
    """A `pairs.Maker`. Every file of `sources` is a person; every picture of `drivers`, and `moments` frames of each video there, a
    driver. size: of the stored crops. held_out: the share of people in val, and in test, by their names' hash."""

    animator: Animator
    sources: Path
    drivers: Path
    size: int = 512
    moments: int = 8
    held_out: float = 0.05
    model: Path | None = None

    def __post_init__(self):
        """Raises UserError."""
        if self.size < 16 or self.moments < 1 or not 0 <= self.held_out < 0.5:
            raise UserError(
                "pictures need 16 pixels, drivers a moment, and the shares held out for two splits lie below a half each"
            )

    def jobs(self) -> Sequence[Path]:
        find_model(self.model)  # said now, not by every pair
        for folder, endings in ((self.sources, PICTURES), (self.drivers, PICTURES + MOVIES)):
            if not _files(folder, endings):
                raise UserError(f"{folder} holds no file that ends in {', '.join(endings)}")
        return _files(self.sources, PICTURES)

    def rows(self, job: Path) -> list[Row]:
        return [row for driver in self._drivers for row in self._rows(job, driver)]

    def make(self, job: Path, rows: list[Row], worker: int) -> Iterator[tuple[Row, Sample | str]]:
        with quiet.landmarker(self.model, most=2) as landmarker:
            try:
                photo = files.read_image(job)
                source = self._picture("source", photo, landmarker)
            except UserError as e:
                yield from ((row, str(e)) for row in rows)
                return
            asked = {row.id for row in rows}
            wanted = {d: [r for r in self._rows(job, d) if r.id in asked] for d in self._drivers}
            drivers = [Driver(d, tuple(_moment(r) for r in own)) for d, own in wanted.items() if own]
            for driver, made in zip(drivers, self.animator.animate(photo, drivers, worker), strict=True):
                if isinstance(made, str):
                    yield from ((row, made) for row in wanted[driver.path])
                    continue
                shown = driver.wanted()
                for k, row in enumerate(wanted[driver.path]):
                    try:
                        if k >= min(len(made), len(shown)):
                            raise UserError(f"the animator made {len(made)} of {len(driver.moments)} frames")
                        yield (
                            row,
                            {
                                "source": source,
                                "driver": self._picture("driver", shown[k], landmarker),
                                "target": self._picture("animated picture", made[k], landmarker),
                            },
                        )
                    except UserError as e:
                        yield row, str(e)

    def _picture(self, what: str, rgb: Rgb, landmarker: Landmarker) -> Picture:
        try:
            arrays = prepare(rgb, self.size, landmarker)
        except UserError as e:
            raise UserError(f"the {what} cannot be used: {e}") from e
        return {name: arrays[name][0] for name in (*IMAGES, *NUMBERS)}

    @functools.cached_property
    def _drivers(self) -> list[Path]:
        return _files(self.drivers, PICTURES + MOVIES)

    @functools.cached_property
    def _flags(self) -> str:
        return json.dumps(self.animator.flags | {"size": self.size}, sort_keys=True)

    @functools.cached_property
    def _version(self) -> str:
        return self.animator.version

    def _rows(self, source: Path, driver: Path) -> list[Row]:
        u = rng("teacher split", source.name).uniform()
        split = "val" if u < self.held_out else "test" if u < 2 * self.held_out else "train"
        names = hashlib.sha256(f"{source.name}\n{driver.name}".encode()).hexdigest()[:8]
        pair = f"{_plain(source.stem)}-{_plain(driver.stem)}-{names}"
        return [
            Row(f"{pair}-{m:05d}", source.name, source.name, f"{driver.name}#{m}", 0, split, self.animator.name,
                self._version, self._flags)
            for m in _moments(driver, self.moments, self.animator.most)
        ]  # fmt: skip

    def __getstate__(self):
        return {k: v for k, v in self.__dict__.items() if not k.startswith("_")}


def _files(folder: Path, endings: tuple[str, ...]) -> list[Path]:
    """Raises UserError where there is no such folder."""
    try:
        return sorted(p for p in folder.iterdir() if p.suffix.lower() in endings and not p.name.startswith("."))
    except OSError as e:
        raise UserError(f"cannot read the folder {folder}: {e.strerror}") from e


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]+", "_", name)[:24]


@functools.cache
def _moments(driver: Path, wanted: int, most: int | None) -> tuple[int, ...]:
    """Numbers of the frames that are taken, evenly over the driver; of one that cannot be read the first, whose row says so."""
    if driver.suffix.lower() in PICTURES:
        return (0,)
    try:
        count = min(files.frame_count(driver), most or 1 << 30)
    except UserError:
        return (0,)
    return tuple(int(m) for m in np.unique(np.linspace(0, max(count - 1, 0), wanted).round()))


def _moment(row: Row) -> int:
    return int(row.driver.rpartition("#")[2])
