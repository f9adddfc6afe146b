"""Animates one photo with a trained run: a video, or the avatar as a standard 3DGS .ply."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from i4d_bench import outputs
from i4d_bench.data.opening import on_head, open_head
from i4d_bench.loader import Loader
from i4d_bench.play import ply
from i4d_bench.play.cameras import DRIVER, cameras
from i4d_bench.play.puppet import Puppet
from i4d_bench.play.session import load_run, open_driving, open_source, shown_at
from i4d_bench.printing import counted
from i4d_bench.progress import console, track
from i4d_bench.types import Camera, UserError


@torch.no_grad()
def animate(
    source: Path,
    driving: Path,
    run: Path,
    out: Path,
    model: Path | None = None,
    max_frames: int | None = None,
    driver: Path | None = None,
    camera: str = DRIVER,
) -> Path:
    """Writes `out`: .mp4 or .webm (source, driver and result side by side) or .ply (the avatar at the first driving frame).
    driver: where the run's encoder lies now, if it was moved. camera: from where the result is seen (`cameras.WRITTEN`).

    Raises UserError for input that cannot be used; nothing half-written stays.
    """
    if out.suffix not in (".mp4", ".webm", ".ply"):
        raise UserError(f"--out names a .mp4, .webm or .ply file, not {out.name}")
    out = outputs.file(out, [source, driving])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cameras(camera, 1, 1, device)  # mistakes first
    trained = load_run(run, device, driver)
    size = trained.experiment.world.resolution
    head = open_head(trained.experiment, device)
    person, drivers = open_source(source, model, size), open_driving(driving, model, size, max_frames)
    person, drivers = (on_head(f, trained.experiment, lambda: head)[0] for f in (person, drivers))
    source_of, driver_of = (Loader(f, trained.driver(f), device) for f in (person, drivers))
    puppet = Puppet(trained, source_of, 0, head)
    count = len(drivers) if max_frames is None else min(len(drivers), max_frames)
    if out.suffix == ".ply":
        ply.write_ply(out, puppet.gaussians(driver_of.code(np.array([0]))))
    else:
        from i4d_bench.data.video.files import write_video

        size = max(size, 128)
        seen = cameras(camera, count, size, device)
        photo = source_of.photos(np.array([0]), size)
        frames = (_frame(puppet, photo, driver_of, seen, k, size) for k in track(range(count), "animating", count))
        times, fps = shown_at(drivers)
        write_video(out, frames, fps, times[:count])
    console.print(f"{out}: {trained.design}, {counted(1 if out.suffix == '.ply' else count, 'frame')}")
    return out


def _frame(
    puppet: Puppet, photo: Float[Tensor, "1 3 S S"], drivers: Loader, seen: Camera | None, k: int, size: int
) -> UInt8[np.ndarray, "S W 3"]:
    """Source, driver and result side by side. seen: the cameras of all frames, or None for the driver's own."""
    index = np.array([k])
    camera = drivers.targets(index, size).camera if seen is None else seen[k : k + 1]
    images = [view[0].movedim(0, -1) for view in (photo, drivers.photos(index, size))]
    images.append(puppet.draw(drivers.code(index), camera).rgb)
    return (torch.cat(images, 1) * 255).round().byte().cpu().numpy()
