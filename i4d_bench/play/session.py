"""A trained run opened with a photo and a driver."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from i4d_bench.cache import cache_dir
from i4d_bench.config.experiment import Experiment, from_dict
from i4d_bench.data.frames import Frames, open_frames
from i4d_bench.data.splits import SPLITS, source_frames, split_of
from i4d_bench.drivers.driver import Driver
from i4d_bench.drivers.external import located
from i4d_bench.drivers.image import ImageEncoder
from i4d_bench.model.avatar import Avatar, Backbone
from i4d_bench.play.pack import described, weights
from i4d_bench.types import UserError
from variants import know

DRIVER_ON_VIDEO = {"sliders": "blendshapes"}
"""In a world sliders are the true ARKit coefficients; on video MediaPipe measures the same 52."""


@dataclass
class Run:
    """A trained design with its configuration."""

    experiment: Experiment
    design: str
    avatar: Avatar
    folder: Path
    encoder: ImageEncoder | None  # the image driver's

    def driver(self, frames: Frames) -> Driver:
        """Its driver, for these frames. Raises UserError where it cannot read them."""
        name = self.experiment.driver
        if frames.meta["kind"] == "clips":
            name = DRIVER_ON_VIDEO.get(name, name)
        return Driver(name, frames, self.encoder)


def load_run(folder: Path, device: torch.device, driver: Path | None = None) -> Run:
    """A run, or one that was packed. driver: where its encoder lies now, if it was moved. Raises UserError when the folder holds
    neither, or the encoder is gone."""
    content = described(folder)
    experiment = from_dict(content["experiment"])
    found = located(experiment.driver, content.get("encoder"), driver)
    experiment = dataclasses.replace(experiment, driver=found)
    backbone = Backbone(experiment.model)
    know([content["design"]], experiment.sources)
    fusion, state = experiment.fusion(content["design"]), weights(folder, content)
    try:
        backbone.load_state_dict(state.backbone)
        fusion.load_state_dict(state.fusion)
    except RuntimeError as e:
        raise UserError(
            f"the weights in {folder} are not those of {content['design']} here: train the run again"
        ) from e
    return Run(experiment, content["design"], Avatar(backbone, fusion).to(device).eval(), folder, state.encoder)


def open_source(path: Path, model: Path | None, size: int) -> Frames:
    """One photo, or a data set's first test person, as a data set of one frame."""
    if path.is_dir():
        frames = open_frames(path)
        test = np.flatnonzero(split_of(frames) == SPLITS.index("test"))
        chosen = source_frames(frames, test)[:1]
        return dataclasses.replace(frames, arrays={k: a[chosen] for k, a in frames.arrays.items()})
    if not path.exists():
        raise UserError(f"there is no source image {path}")
    from i4d_bench.data.video.clips import prepare_image

    arrays = prepare_image(path, max(size, 128), model)
    return Frames(path, {"kind": "clips"}, arrays)


def open_driving(path: Path, model: Path | None, size: int, max_frames: int | None) -> Frames:
    """A data set, or a video ingested into the cache (once, under a hash of its content)."""
    if path.is_dir():
        return open_frames(path)
    if not path.exists():
        raise UserError(f"there is no driving video {path}")
    from i4d_bench.data.video.clips import VERSION, ingest

    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    folder = cache_dir() / "driving" / f"{digest}-{size}-{max_frames or 'all'}-v{VERSION}"
    if not (folder / "dataset.json").exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        ingest([path], folder, size=max(size, 128), model=model, max_frames=max_frames)
    return open_frames(folder)


def shown_at(frames: Frames) -> tuple[Float[np.ndarray, " F"], float]:
    """Seconds at which the frames are shown, and the first video's frames per second. Their own times, so that what was skipped
    keeps its room; one video after the other. A rendered world, which has none, is shown at 25 per second."""
    rates = frames.meta.get("fps", [25.0])
    if "times" in frames.arrays:
        own = np.array(frames.times)
    elif frames.meta["kind"] == "clips":
        own = frames.expression / np.asarray(rates)[frames.identity]
    else:
        return np.arange(len(frames)) / rates[0], rates[0]
    times, start = [], 0.0
    for video in np.split(own, np.flatnonzero(np.diff(frames.identity)) + 1):
        if (np.diff(video) <= 0).any():  # several cameras saw each moment: one view after the other
            video = np.arange(len(video)) / rates[0]
        times.append(start + video)
        start = times[-1][-1] + 1 / rates[0]
    return np.concatenate(times), rates[0]
