"""Who and what the viewer shows: runs of one experiment, the people they can lift, and what drives them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8

from i4d_bench.config.experiment import World
from i4d_bench.data import synthetic
from i4d_bench.data.frames import Frames, open_frames
from i4d_bench.data.opening import on_head, open_head
from i4d_bench.data.splits import SPLITS, source_frames, split_of
from i4d_bench.loader import Loader
from i4d_bench.play import face
from i4d_bench.play.face import Face
from i4d_bench.play.pack import DESCRIBED
from i4d_bench.play.puppet import Puppet
from i4d_bench.play.session import load_run, open_driving, open_source, shown_at
from i4d_bench.types import MotionCode, UserError

MOST_PEOPLE = 12
PHOTO = 256
"""Pixels per side of the photo that is shown."""
SHARED = ("world", "driver", "flame")
"""Of the experiments of runs that stand side by side."""


@dataclasses.dataclass(frozen=True)
class Clip:
    """Motion codes of `count` frames at `fps`."""

    code: Callable[[int], MotionCode]
    count: int
    fps: float


class Stage:
    """`people`: names → frames that are photos. `clip`: the driver, or a built-in motion. `lift` puts a person on it."""

    def __init__(
        self,
        folders: Sequence[Path],
        source: Path | None = None,
        driving: Path | None = None,
        model: Path | None = None,
        driver: Path | None = None,
        device: torch.device | None = None,
    ):
        """folders: of runs, packs, or folders of several. source: a photo or a data set; without one the run's own test people.
        model: MediaPipe's. driver: where the runs' encoder lies now. device: default: the GPU, if there is one. Raises
        UserError."""
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.runs = [load_run(f, self.device, driver) for f in _each(folders)]
        first = self.runs[0].experiment
        for run in self.runs[1:]:
            if differ := [w for w in SHARED if getattr(run.experiment, w) != getattr(first, w)]:
                raise UserError(
                    f"{run.folder} was trained with another {' and '.join(differ)} than {self.runs[0].folder}: the viewer shows "
                    "runs of one experiment side by side"
                )
        designs = [run.design for run in self.runs]
        self.names = [
            d if designs.count(d) == 1 else f"{d} {r.folder.name[-6:]}" for d, r in zip(designs, self.runs, strict=True)
        ]
        self.head = open_head(first, self.device)
        size = first.world.resolution
        if source is not None and not source.is_dir():
            photos = open_source(source, model, size)
        else:
            photos = _people(open_frames(source) if source else _own(first.world))
        photos = self._on_head(photos)
        self.sources = Loader(photos, self.runs[0].driver(photos), self.device)
        self.people = (
            {f"person {who}": k for k, who in enumerate(photos.identity)} if len(photos) > 1 else {"the photo": 0}
        )
        self.clip = self._clip(open_driving(driving, model, size, None)) if driving else None
        self.puppets: list[Puppet] = []
        self.lift(next(iter(self.people)))

    def lift(self, person: str) -> None:
        """By every run."""
        index = self.people[person]
        self.puppets = [Puppet(run, self.sources, index, self.head) for run in self.runs]
        flame = self.puppets[0].code.flame
        assert flame is not None  # `on_head` sees to it
        self.face = Face(self.runs[0].experiment.world, self.sources.driver, self.head, flame.shape)

    def photo(self, person: str) -> UInt8[np.ndarray, "S S 3"]:
        picture = self.sources.photos(np.array([self.people[person]]), PHOTO)[0].movedim(0, -1)
        return (picture * 255).round().byte().cpu().numpy()

    def played(self) -> Clip:
        """The driver, or a built-in motion."""
        if self.clip is not None:
            return self.clip
        values: Float[np.ndarray, "F 52"] = face.motion()
        return Clip(lambda k: self.face(values[k]), len(values), face.FPS)

    def _clip(self, frames: Frames) -> Clip:
        drivers = self._on_head(frames)
        loader = Loader(drivers, self.runs[0].driver(drivers), self.device)
        return Clip(lambda k: loader.code(np.array([k])), len(drivers), shown_at(drivers)[1])

    def _on_head(self, frames: Frames) -> Frames:
        return on_head(frames, self.runs[0].experiment, lambda: self.head)[0]


def _each(folders: Sequence[Path]) -> list[Path]:
    """Runs themselves and the runs in folders of several."""
    out: list[Path] = []
    for folder in folders:
        inside = sorted(p.parent for p in folder.glob(f"*/{DESCRIBED}"))
        out += inside if inside and not (folder / DESCRIBED).exists() else [folder]
    return out


def _own(world: World) -> Frames:
    """The data that a run was trained on. Raises UserError where they are not here."""
    return open_frames(world.path or synthetic.rendered(world))


def _people(frames: Frames) -> Frames:
    """A photo of each test person, of MOST_PEOPLE at most."""
    test = np.flatnonzero(split_of(frames) == SPLITS.index("test"))
    photos = source_frames(frames, test)
    _, first = np.unique(frames.identity[photos], return_index=True)
    chosen = photos[first][:MOST_PEOPLE]
    return dataclasses.replace(frames, arrays={k: a[chosen] for k, a in frames.arrays.items()})
