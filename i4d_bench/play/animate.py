"""Animates one photo with a trained run: a video, or the avatar as a standard 3DGS .ply."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from i4d_bench import outputs
from i4d_bench.data.opening import on_head, open_head
from i4d_bench.loader import Loader
from i4d_bench.play import ply
from i4d_bench.play.session import Run, load_run, open_driving, open_source, shown_at
from i4d_bench.progress import console, track
from i4d_bench.render.views import on_grey
from i4d_bench.types import Identity, UserError


@torch.no_grad()
def animate(
    source: Path,
    driving: Path,
    run: Path,
    out: Path,
    model: Path | None = None,
    max_frames: int | None = None,
    driver: Path | None = None,
) -> Path:
    """Writes `out`: .mp4 (source, driver and result side by side) or .ply (the avatar at the first driving frame).
    driver: where the run's encoder lies now, if it was moved.

    Raises UserError for input that cannot be used; nothing half-written stays.
    """
    if out.suffix not in (".mp4", ".ply"):
        raise UserError(f"--out names a .mp4 or a .ply file, not {out.name}")
    out = outputs.file(out, [source, driving])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trained = load_run(run, device, driver)
    size, model_size = trained.experiment.world.resolution, trained.experiment.model.size
    head = open_head(trained.experiment, device)
    person, drivers = open_source(source, model, size), open_driving(driving, model, size, max_frames)
    person, drivers = (on_head(f, trained.experiment, lambda: head)[0] for f in (person, drivers))
    loaders = [Loader(f, trained.driver(f), device) for f in (person, drivers)]
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
        times, fps = shown_at(drivers)
        write_video(out, frames, fps, times[:count])
    console.print(f"{out}: {trained.design}, {count if out.suffix == '.mp4' else 1} frames")
    return out


def _frame(trained: Run, identity: Identity, prepared, loaders: list[Loader], k: int, size: int) -> np.ndarray:
    """Source, driver and result side by side, uint8 [size, 3·size, 3], from the driver's camera."""
    index = np.array([k])
    gaussians = trained.avatar.fusion.animate(prepared, loaders[1].code(index))
    camera = loaders[1].targets(index, size).camera
    views = [loaders[0].photos(np.array([0]), size), loaders[1].photos(index, size)]
    images: list[Tensor] = [v.movedim(1, -1)[0] for v in views] + [on_grey(gaussians, camera)[0]]
    return (torch.cat(images, 1) * 255).round().byte().cpu().numpy()
