"""Frames as training tensors: on the device once, resized and composited on demand, drawn by (seed, step) alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from i4d_bench.config.experiment import Stage
from i4d_bench.data.frames import Frames
from i4d_bench.data.splits import SPLITS, rng, source_frames, split_of
from i4d_bench.drivers.driver import Driver
from i4d_bench.drivers.tracked import tracked
from i4d_bench.heads.base import REGIONS
from i4d_bench.model.surface import HeadSurface
from i4d_bench.render.views import GREY
from i4d_bench.types import Camera, FlameCode, MotionCode, UserError, placed


@dataclass(frozen=True)
class Targets:
    """Ground truth at some resolution. `rgb` is premultiplied by `alpha`."""

    rgb: Float[Tensor, "B H W 3"]
    alpha: Float[Tensor, "B H W 1"]
    regions: Bool[Tensor, "B H W"]  # eyes and mouth
    camera: Camera
    landmarks: Float[Tensor, "B 68 2"]  # pixels, iBUG order, NaN where unknown

    def over(self, background: Float[Tensor, "B 3"]) -> Float[Tensor, "B H W 3"]:
        return self.rgb + (1 - self.alpha) * background[:, None, None]

    @property
    def photo(self) -> Float[Tensor, "B 3 H W"]:
        """On grey, channels first."""
        return self.over(self.rgb.new_full((len(self.rgb), 3), GREY)).movedim(-1, 1)

    def map(self, fn: Callable[[Tensor], Tensor]) -> Targets:
        return Targets(fn(self.rgb), fn(self.alpha), fn(self.regions), self.camera.map(fn), fn(self.landmarks))


def targets(
    rgb: UInt8[Tensor, "B H W 3"],
    alpha: UInt8[Tensor, "B H W"],
    region: UInt8[Tensor, "B H W"],
    viewmats: Float[Tensor, "B 4 4"],
    Ks: Float[Tensor, "B 3 3"],
    landmarks: Float[Tensor, "B 68 2"],
    size: int,
) -> Targets:
    """Pictures as data sets hold them (`frames.ARRAYS`), at size × size pixels."""
    rgba = torch.cat([rgb, alpha[..., None]], -1).movedim(-1, 1) / 255
    regions = (region == REGIONS.index("eyes")) | (region == REGIONS.index("mouth"))
    h, w = rgba.shape[2:]
    camera = Camera(viewmats, Ks, w, h)
    if size != h:
        rgba = F.interpolate(rgba, (size, size), mode="area")
        regions = F.adaptive_max_pool2d(regions.float(), size) > 0
        camera = camera.resized(size, size)
        landmarks = landmarks * (size / h)
    rgba = rgba.movedim(1, -1)
    return Targets(rgba[..., :3], rgba[..., 3:], regions, camera, landmarks)


class Loader:
    """Serves a data set to training and evaluation on one device, with the frozen driver's code of every frame."""

    def __init__(self, frames: Frames, driver: Driver, device: torch.device, chunk: int = 512):
        self.frames, self.device = frames, device
        on_device = lambda a: torch.from_numpy(a).to(device)  # noqa: E731
        self.rgb, self.alpha, self.region = (on_device(frames.arrays[k]) for k in ("rgb", "alpha", "region"))
        self.viewmats, self.Ks, self.landmarks = (on_device(frames.arrays[k]) for k in ("viewmats", "Ks", "landmarks"))
        self.surface = HeadSurface().to(device)
        self.driver = driver = driver.to(device)
        codes = [driver.encode(frames, np.arange(i, min(i + chunk, len(frames)))) for i in range(0, len(frames), chunk)]
        self.motion = torch.cat([c.motion for c in codes])
        parts = [c.flame for c in codes]
        self.flame = None
        if parts[0] is not None:
            self.flame = FlameCode(
                *(torch.cat([getattr(p, n) for p in parts]) for n in ("shape", "expression", "pose"))
            )

    def tracked(self, error: float) -> Loader:
        """The same with FLAME coefficients that are off by so many times a tracker's errors (`drivers.tracked`), and with the codes
        that the flame driver makes of those. Shares all other tensors. Raises UserError where there are none."""
        if error == 0:
            return self
        if self.flame is None:
            raise UserError(f"the data set {self.frames.path} has no FLAME coefficients to be off")
        out, frames = copy.copy(self), self.frames
        out.flame = tracked(self.flame, frames.identity, error, split_of(frames) == SPLITS.index("train"))
        if self.driver.name == "flame":
            out.motion = self.driver.codes(self.rgb, self.landmarks, frames.coefficients, out.flame)
        return out

    def code(self, index: np.ndarray) -> MotionCode:
        i = placed(index, self.device)
        return MotionCode(self.motion[i], None if self.flame is None else self.flame[i])

    def sources(self, index: np.ndarray, size: int) -> Float[Tensor, "B 3 S S"]:
        """Photos as the encoder sees them: turned to the frontal camera by their own and a mean head, on grey.

        Departure from the paper, whose encoder learns it in days: all designs profit alike.
        """
        t = self.targets(index, size)
        return self.surface.rectify(t.photo, t.camera)

    def photos(self, index: np.ndarray, size: int) -> Float[Tensor, "B 3 S S"]:
        """Photos on grey."""
        return self.targets(index, size).photo

    def targets(self, index: np.ndarray, size: int) -> Targets:
        i = placed(index, self.device)
        arrays = (self.rgb, self.alpha, self.region, self.viewmats, self.Ks, self.landmarks)
        rgb, alpha, region, viewmats, Ks, landmarks = (a[i] for a in arrays)
        return targets(rgb, alpha, region, viewmats, Ks, landmarks, size)


class Batches:
    """Draws training batches: `sources` people, each with `frames` targets, three in four of another expression."""

    def __init__(self, frames: Frames, within: np.ndarray, seed: int):
        self.seed = seed
        self.expression = frames.expression
        candidates = source_frames(frames, within)
        self.people = np.unique(frames.identity[within])
        self.source = [candidates[frames.identity[candidates] == p] for p in self.people]
        self.all = [within[frames.identity[within] == p] for p in self.people]

    def draw(self, step: int, stage: Stage, drive: bool) -> tuple[np.ndarray, np.ndarray]:
        """Frame numbers: sources [S] and targets [S·k], identity-major. Without `drive` no expression changes."""
        r = rng(self.seed, "batch", step)
        few = len(self.people) < stage.sources
        chosen = r.choice(len(self.people), stage.sources, replace=few)
        sources, targets = [], []
        for p in chosen:
            s = r.choice(self.source[p])
            same = self.expression[self.all[p]] == self.expression[s]
            own, other = self.all[p][same], self.all[p][~same]
            kept = max(1, stage.frames // 4) if drive and len(other) else stage.frames
            sources.append(s)
            targets += (
                [*r.choice(own, kept), *r.choice(other, stage.frames - kept)] if len(other) else [*r.choice(own, kept)]
            )
        return np.array(sources), np.array(targets)
