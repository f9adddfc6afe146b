"""What the paper's animator is shown (PAPER §1): source and driver, which a lifting network has turned to the front."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from i4d_bench.cache import file_digest
from i4d_bench.camera import look_at
from i4d_bench.config.experiment import Model
from i4d_bench.data.teacher.animators import PICTURES, Driver, Rgb
from i4d_bench.data.teacher.photos import Animator
from i4d_bench.data.teacher.samples import IMAGES, NUMBERS
from i4d_bench.data.video.clips import prepare
from i4d_bench.data.video.landmarker import Landmarker
from i4d_bench.train.distil import as_targets
from i4d_bench.train.lifting import Lifter, stacked
from i4d_bench.types import UserError


@dataclass(frozen=True)
class Frontal:
    """A `photos.Animator` that shows another one frontal heads alone, on grey, as large as the lifting network makes them.

    Of a video it shows the wanted frames alone; one without a face is shown as the frame before it. network: the lifting network's
    file; model: how that is built. landmarker: MediaPipe's model, else where `i4d-bench assets` looks.
    """

    animator: Animator
    network: Path
    model: Model
    landmarker: Path | None = None

    @property
    def name(self) -> str:
        return self.animator.name

    @property
    def version(self) -> str:
        return self.animator.version

    @property
    def flags(self) -> dict[str, Any]:
        return self.animator.flags | {"frontal": file_digest(self.network)}

    @property
    def most(self) -> int | None:
        return self.animator.most

    def animate(self, source: Rgb, drivers: Sequence[Driver], worker: int) -> Iterator[list[Rgb] | str]:
        """As the animator's own, whose pictures are frontal."""
        gpus = torch.cuda.device_count()
        device = torch.device("cuda", worker % gpus) if gpus else torch.device("cpu")
        with Landmarker(self.landmarker, most=2) as find, tempfile.TemporaryDirectory(prefix="i4d-") as folder:
            front = functools.partial(_front, find, _lifter(self.network, self.model, device), self.model.size)
            try:
                turned = front([source])[0]
            except UserError as e:
                yield from [f"the source cannot be used: {e}"] * len(drivers)
                return
            shown: dict[int, Driver] = {}
            why: dict[int, str] = {}
            for k, driver in enumerate(drivers):
                try:
                    shown[k] = _written(front(driver.wanted()), driver, Path(folder) / f"driver{k:03d}")
                except UserError as e:
                    why[k] = f"the driver cannot be used: {e}"
            made = self.animator.animate(turned, list(shown.values()), worker)
            for k in range(len(drivers)):
                yield next(made) if k in shown else why[k]


@functools.lru_cache(1)
def _lifter(network: Path, model: Model, device: torch.device) -> Lifter:
    return Lifter.load(network, model, device, landmarks=False)


def _front(find: Landmarker, lifter: Lifter, size: int, pictures: list[UInt8[np.ndarray, "Y X 3"]]) -> list[Rgb]:
    """The faces in these pictures from the front, size × size pixels. Raises UserError where none can be used."""
    found, why = [], "no frame can be read"
    for rgb in pictures:
        try:
            found.append(prepare(rgb, size, find))
        except UserError as e:
            found.append(found[-1] if found else None)
            why = str(e)
    first = next((f for f in found if f is not None), None)
    if first is None:
        raise UserError(why)
    frames = [first if f is None else f for f in found]
    return [_turned(lifter, frame, size) for frame in frames]


def _turned(lifter: Lifter, frame: dict[str, np.ndarray], size: int) -> Rgb:
    device = next(lifter.backbone.parameters()).device
    pictures = as_targets({k: torch.from_numpy(frame[k]).to(device) for k in (*IMAGES, *NUMBERS)}, size)
    seen = lifter.seen(pictures, stacked([look_at(0, 0, size)], size, device))
    photo: Tensor = seen.photo[0].movedim(0, -1).clamp(0, 1)
    return (255 * photo).round().byte().cpu().numpy()


def _written(frames: list[Rgb], driver: Driver, place: Path) -> Driver:
    """The frames as a picture if the driver is one, else as a folder that is read as a video is."""
    if driver.path.suffix.lower() in PICTURES:
        path = place.with_suffix(".png")
        Image.fromarray(frames[0]).save(path)
        return Driver(path, (0,))
    place.mkdir()
    for k, rgb in enumerate(frames):
        Image.fromarray(rgb).save(place / f"{k:05d}.png")
    return Driver(place, tuple(range(len(frames))))
