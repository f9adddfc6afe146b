"""Pictures of a prepared avatar, with the time that each stage took: stage by stage, or on CUDA as one graph."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from i4d_bench.model.prepared import prepared
from i4d_bench.play.widened import widened
from i4d_bench.render.resident import Resident
from i4d_bench.render.views import GREY, on_grey
from i4d_bench.speed.protocol import graphed
from i4d_bench.types import Camera, Gaussians, Identity, MotionCode
from variants import Fusion


@dataclass(frozen=True)
class Picture:
    """On grey, 0..1, with the milliseconds of every stage that made it."""

    rgb: Float[Tensor, "H W 3"]
    ms: dict[str, float]


Draw = Callable[[MotionCode, Camera], Picture]
"""Draws one frame (batch of 1)."""


def drawing(fusion: Fusion, identity: Identity, source: MotionCode, width: float = 0.0) -> Draw:
    """The fastest way to draw this person here. width: of Gaussians in training (`widened`)."""
    return (Graphed if identity.f.is_cuda else Staged)(fusion, identity, source, width)


class Staged:
    """Fusion, then whatever renders on this device."""

    def __init__(self, fusion: Fusion, identity: Identity, source: MotionCode, width: float = 0.0):
        self.animate, self.width = prepared(fusion, identity, source), width

    @torch.no_grad()
    def __call__(self, code: MotionCode, camera: Camera) -> Picture:
        begun = time.perf_counter()
        gaussians = self.animate(code)
        fused = time.perf_counter()
        rgb = on_grey(widened(gaussians, self.width, camera), camera)[0]
        return Picture(rgb, {"fusion": 1e3 * (fused - begun), "splatting": 1e3 * (time.perf_counter() - fused)})


@dataclass
class Shot:
    """What a frame depends on."""

    code: MotionCode
    camera: Camera

    def map(self, fn: Callable[[Tensor], Tensor]) -> Shot:
        return Shot(self.code.map(fn), self.camera.map(fn))


class Graphed:
    """Fusion by our kernels in 16 bits and our rasteriser in one CUDA graph (the mode triton+graph of `speed.rig`), a graph per
    size of picture. A frame that needs more room than its graph has is drawn again by a new graph with twice the room it needs.
    """

    def __init__(self, fusion: Fusion, identity: Identity, source: MotionCode, width: float = 0.0):
        self.animate, self.width = prepared(fusion, identity, source, "triton", torch.float16), width
        self.graphs: dict[tuple[int, int], tuple[Callable[[Shot], Tensor], Resident]] = {}

    @torch.no_grad()
    def __call__(self, code: MotionCode, camera: Camera) -> Picture:
        begun, shot, size = time.perf_counter(), Shot(code, camera), (camera.width, camera.height)
        if size not in self.graphs:
            self.graphs[size] = self._captured(shot)
        draw, splat = self.graphs[size]
        rgb = draw(shot)
        assert splat.needed is not None and splat.room is not None
        if int(splat.needed) > splat.room:  # waits for the picture
            draw, _ = self.graphs[size] = self._captured(shot)
            rgb = draw(shot)
        rgb = rgb[0].clamp(0, 1)  # a copy: the next frame overwrites the graph's own
        if rgb.is_cuda:
            torch.cuda.synchronize()
        return Picture(rgb, {"fusion and splatting, one CUDA graph": 1e3 * (time.perf_counter() - begun)})

    def _captured(self, shot: Shot) -> tuple[Callable[[Shot], Tensor], Resident]:
        """A graph with room for twice what this shot needs."""
        shown: Callable[[Shot], Gaussians] = lambda s: widened(self.animate(s.code), self.width, s.camera)  # noqa: E731
        gaussians = shown(shot)
        splat = Resident(gaussians, shot.camera)
        grey = gaussians.means.new_full((1, 3), GREY)
        return graphed(lambda s: splat(shown(s), s.camera, grey), shot), splat
