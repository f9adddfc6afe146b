"""Timings of one trained identity, under the keys of DESIGN §7."""

from __future__ import annotations

import numpy as np
import torch

from i4d_bench.data.splits import Triples
from i4d_bench.loader import Loader
from i4d_bench.model.avatar import Avatar
from i4d_bench.render import render
from i4d_bench.speed.protocol import measure


@torch.no_grad()
def stages(avatar: Avatar, loader: Loader, rows: Triples, grid: int, head, count: int, name: str) -> dict[str, dict]:
    """Timings of one identity driven by the rows' frames in turn, under the keys of DESIGN §7; on a GPU with its kernels.
    `driver` is all from frame to code; of the external one, `crop` is what cuts the face out."""
    device, size = loader.device, loader.frames.resolution
    image = loader.sources(rows.source[:1], avatar.backbone.config.size)
    identity = avatar.backbone.lift(image, grid, head)
    prepared = avatar.fusion.prepare(identity, loader.code(rows.source[:1]))
    index = [rows.driving[k % len(rows)] for k in range(count)]
    codes = [loader.code(np.array([i])) for i in index]
    cameras = [loader.targets(np.array([i]), size).camera for i in index]
    gaussians = [avatar.fusion.animate(prepared, c) for c in codes[:8]]
    background = torch.zeros(1, 3, device=device)
    n, mode = gaussians[0].means.shape[1], "triton" if device.type == "cuda" else "eager"

    def splat(gaussians, k: int):
        return render(gaussians, cameras[k], background, depth=False).rgb

    def frame(k: int):
        code = loader.driver.encode(loader.frames, np.array([index[k]]))
        return splat(avatar.fusion.animate(prepared, code), k)

    def crop(k: int):
        frames, i = loader.frames, np.array([index[k]])
        return loader.driver.crop(frames.rgb[i], frames.landmarks[i])

    calls = {
        f"encode/backbone/eager/b1/n{n}": lambda k: avatar.backbone.lift(image, grid, head),
        f"driver/{loader.driver.name}/eager/b1": lambda k: loader.driver.encode(loader.frames, np.array([index[k]])),
        **({"crop/external/eager/b1": crop} if loader.driver.encoder else {}),
        f"fusion/{name}/{mode}/b1/n{n}": lambda k: avatar.fusion.animate(prepared, codes[k]),
        f"raster/{name}/eager/b1/n{n}/r{size}": lambda k: splat(gaussians[k % len(gaussians)], k),
        f"frame/{name}/{mode}/b1/n{n}/r{size}": frame,
    }
    return {key: measure(call, count, device).row() for key, call in calls.items()}
