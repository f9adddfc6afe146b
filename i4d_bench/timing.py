"""Stage timings of one animated avatar (DESIGN §6, the part that every run reports): driver, fusion, raster, frame.

Random, changing driving frames in turn, warm-up, median with p5/p95, batch 1. On a GPU CUDA events time the device and
the host's wall clock is kept beside them; a frame is what the user waits for: driver code → image.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from i4d_bench.data.loader import Loader
from i4d_bench.data.splits import Triples
from i4d_bench.model.avatar import Avatar
from i4d_bench.render import render


@dataclass(frozen=True)
class Timing:
    """Milliseconds per call."""

    ms: float  # median: device time on a GPU, host time on a CPU
    p5: float
    p95: float
    host_ms: float  # median wall clock, synchronised

    @property
    def fps(self) -> float:
        """Calls per second as a user sees them: from the wall clock."""
        return 1000 / self.host_ms


def measure(call: Callable[[int], object], count: int, device: torch.device, warmup: int = 10) -> Timing:
    """Times call(k) for k in 0..count-1 after `warmup` calls."""
    cuda = device.type == "cuda"
    for k in range(min(warmup, count)):
        call(k)
    host, dev = [], []
    if cuda:
        torch.cuda.synchronize()
    for k in range(count):
        if cuda:
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        t = time.perf_counter()
        if cuda:
            begin.record()
        call(k)
        if cuda:
            end.record()
            end.synchronize()
        host.append(1000 * (time.perf_counter() - t))
        dev.append(begin.elapsed_time(end) if cuda else host[-1])
    p5, ms, p95 = np.percentile(dev, [5, 50, 95])
    return Timing(float(ms), float(p5), float(p95), float(np.median(host)))


@torch.no_grad()
def stages(avatar: Avatar, loader: Loader, rows: Triples, grid: int, head, count: int, name: str) -> dict[str, dict]:
    """Timings of one identity driven by the rows' frames in turn, under the keys of DESIGN §7."""
    device, size = loader.device, loader.frames.resolution
    image = loader.sources(rows.source[:1], avatar.backbone.config.size)
    identity = avatar.backbone.lift(image, grid, head)
    prepared = avatar.fusion.prepare(identity, loader.code(rows.source[:1]))
    index = [rows.driving[k % len(rows)] for k in range(count)]
    codes = [loader.code(np.array([i])) for i in index]
    cameras = [loader.targets(np.array([i]), size).camera for i in index]
    gaussians = [avatar.fusion.animate(prepared, c) for c in codes[:8]]
    background = torch.zeros(1, 3, device=device)
    n = gaussians[0].means.shape[1]

    def frame(k: int):
        code = loader.driver.encode(loader.frames, np.array([index[k]]))
        return render(avatar.fusion.animate(prepared, code), cameras[k], background).rgb

    calls = {
        f"encode/backbone/eager/b1/n{n}": lambda k: avatar.backbone.lift(image, grid, head),
        f"driver/{loader.driver.name}/eager/b1": lambda k: loader.driver.encode(loader.frames, np.array([index[k]])),
        f"fusion/{name}/eager/b1/n{n}": lambda k: avatar.fusion.animate(prepared, codes[k]),
        f"raster/{name}/eager/b1/n{n}/r{size}": lambda k: render(gaussians[k % len(gaussians)], cameras[k], background),
        f"frame/{name}/eager/b1/n{n}/r{size}": frame,
    }
    out = {}
    for key, call in calls.items():
        t = measure(call, count, device)
        out[key] = {"ms": t.ms, "p5": t.p5, "p95": t.p95, "host_ms": t.host_ms, "fps": t.fps, "status": "ok"}
    return out
