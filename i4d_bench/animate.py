"""Animates one photo with a trained run: a video, or the avatar as a standard 3DGS .ply."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from i4d_bench import ply
from i4d_bench.cache import cache_dir
from i4d_bench.config.experiment import Experiment, from_dict
from i4d_bench.data.frames import Frames, open_frames
from i4d_bench.data.opening import open_head, with_flame
from i4d_bench.data.splits import SPLITS, source_frames, split_of
from i4d_bench.drivers.driver import Driver
from i4d_bench.loader import Loader
from i4d_bench.model.avatar import Avatar, Backbone
from i4d_bench.progress import console, track
from i4d_bench.render.views import on_grey
from i4d_bench.types import Identity, UserError

DRIVER_ON_VIDEO = {"oracle": "blendshapes"}
"""A world's oracle speaks the 52 ARKit coefficients; on video MediaPipe measures the same 52."""


@dataclass
class Run:
    """A trained design with its configuration."""

    experiment: Experiment
    design: str
    avatar: Avatar
    folder: Path


def load_run(folder: Path, device: torch.device) -> Run:
    """Raises UserError when the folder holds no finished run."""
    described, checkpoint = folder / "run.json", folder / "checkpoint.pt"
    if not described.exists() or not checkpoint.exists():
        raise UserError(
            f"{folder} holds no trained run (run.json and checkpoint.pt): `i4d-bench run` makes them under runs/"
        )
    content = json.loads(described.read_text())
    experiment = from_dict(content["experiment"])
    backbone = Backbone(experiment.model)
    fusion = experiment.fusion(content["design"])
    try:
        state = torch.load(checkpoint, map_location="cpu")
        backbone.load_state_dict(state["backbone"])
        fusion.load_state_dict(state["fusion"])
    except Exception as e:  # torch raises several kinds for a damaged file
        raise UserError(f"the checkpoint {checkpoint} cannot be read ({type(e).__name__}): train the run again") from e
    return Run(experiment, content["design"], Avatar(backbone, fusion).to(device).eval(), folder)


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
    from i4d_bench.data.video.clips import ingest

    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    folder = cache_dir() / "driving" / f"{digest}-{size}-{max_frames or 'all'}"
    if not (folder / "dataset.json").exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        ingest([path], folder, size=max(size, 128), model=model, max_frames=max_frames)
    return open_frames(folder)


@torch.no_grad()
def animate(
    source: Path, driving: Path, run: Path, out: Path, model: Path | None = None, max_frames: int | None = None
) -> Path:
    """Writes `out`: .mp4 (source, driver and result side by side) or .ply (the avatar at the first driving frame).

    Raises UserError for input that cannot be used; nothing half-written stays.
    """
    if out.suffix not in (".mp4", ".ply"):
        raise UserError(f"--out names a .mp4 or a .ply file, not {out.name}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trained = load_run(run, device)
    size, model_size = trained.experiment.world.resolution, trained.experiment.model.size
    head = open_head(trained.experiment, device)
    person, drivers = open_source(source, model, size), open_driving(driving, model, size, max_frames)
    own = lambda f: f if f.flame([0]) is not None and not trained.experiment.flame else with_flame(f, head)  # noqa: E731
    person, drivers = own(person), own(drivers)
    loaders = [Loader(f, _driver(trained.experiment, f), device) for f in (person, drivers)]
    identity = trained.avatar.backbone.lift(loaders[0].sources(np.array([0]), model_size), head=head)
    prepared = trained.avatar.fusion.prepare(identity, loaders[0].code(np.array([0])))
    count = len(drivers) if max_frames is None else min(len(drivers), max_frames)
    if out.suffix == ".ply":
        gaussians = trained.avatar.fusion.animate(prepared, loaders[1].code(np.array([0])))
        ply.write_ply(out, gaussians[0:1])
    else:
        from i4d_bench.data.video.files import write_video

        size = max(size, 128)
        frames = (
            _frame(trained, identity, prepared, loaders, k, size) for k in track(range(count), "animating", count)
        )
        write_video(out, frames, drivers.meta.get("fps", [25.0])[0])
    console.print(f"{out}: {trained.design}, {count if out.suffix == '.mp4' else 1} frames")
    return out


def _driver(experiment: Experiment, frames: Frames) -> Driver:
    name = experiment.driver
    if name == "image":
        raise UserError("runs with the image driver cannot be animated yet: train with oracle, blendshapes or flame")
    return Driver(DRIVER_ON_VIDEO.get(name, name) if frames.meta["kind"] == "clips" else name, frames)


def _frame(trained: Run, identity: Identity, prepared, loaders: list[Loader], k: int, size: int) -> np.ndarray:
    """Source, driver and result side by side, uint8 [size, 3·size, 3], from the driver's camera."""
    index = np.array([k])
    gaussians = trained.avatar.fusion.animate(prepared, loaders[1].code(index))
    camera = loaders[1].targets(index, size).camera
    views = [loaders[0].photos(np.array([0]), size), loaders[1].photos(index, size)]
    images: list[Tensor] = [v.movedim(1, -1)[0] for v in views] + [on_grey(gaussians, camera)[0]]
    return (torch.cat(images, 1) * 255).round().byte().cpu().numpy()
