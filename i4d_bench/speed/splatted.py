"""Rows of the rasterisers alone: trained avatars, and pictures with the gradients of all Gaussians."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from i4d_bench.render import Backend, render
from i4d_bench.speed import protocol, rig
from i4d_bench.speed.plan import Plan
from i4d_bench.speed.rows import PSNR, psnr
from i4d_bench.types import Gaussians

GRADIENTS = 0.01
"""Of gsplat's in norm, that ours may be off."""
FIELDS = ("means", "quats", "scales", "opacities", "colors")


@dataclass(frozen=True)
class Trained:
    """A picture of a trained avatar. what: its name in the plan. mode: one of `rig.SPLATS`."""

    what: str
    mode: str
    n: int
    resolution: int

    @property
    def key(self) -> str:
        return f"raster/{self.what}/{self.mode}/b1/n{self.n}/r{self.resolution}"

    @torch.no_grad()
    def measure(self, what: Plan, device: torch.device) -> dict[str, Any]:
        view, given = rig.view(self.resolution, 1, device), what.avatars[self.what].map(lambda t: t.to(device))
        call, true = (rig.raster(view, mode, given) for mode in (self.mode, "eager"))
        if self.mode.endswith("+graph"):
            call = protocol.graphed(call, given)
        closest = psnr(call(given), true(given))
        t = protocol.measure(lambda k: call(given), what.frames, device)
        return t.row("ok" if closest >= PSNR else "wrong", psnr=closest)


@dataclass(frozen=True)
class Gradients:
    """A picture and the gradients of all Gaussians, as training has them: fp32, products in tf32 (`Trainer._products`), one thread
    (`Trainer.step`); ∂L/∂rgb is given. Ours and gsplat's in turn: outside a graph both wait for the host. what: static for the
    untrained avatar, else one of the plan's, the same in every picture of the batch."""

    batch: int
    n: int
    resolution: int
    what: str = "static"

    @property
    def key(self) -> str:
        return self._key("triton")

    def _key(self, backend: Backend) -> str:
        return f"raster+backward/{self.what}/{backend}/b{self.batch}/n{self.n}/r{self.resolution}"

    def measure(self, what: Plan, device: torch.device) -> dict[str, Any]:
        """beside: gsplat's row. error: how far our gradients are from its, over what they may be (`GRADIENTS`)."""
        view, still = rig.view(self.resolution, self.batch, device), self._still(what, device)
        given = [getattr(still, f).detach().requires_grad_() for f in FIELDS]
        weight = torch.rand(self.batch, self.resolution, self.resolution, 3, device=device)

        def gradients(backend: Backend) -> tuple[Tensor, ...]:
            rgb = render(Gaussians(*given), view.camera, view.background, backend, depth=False).rgb
            return torch.autograd.grad(rgb, given, weight)

        before = torch.get_float32_matmul_precision()
        try:
            torch.set_float32_matmul_precision("high")
            with torch.autograd.set_multithreading_enabled(False):
                pairs = zip(gradients("triton"), gradients("gsplat"), strict=True)
                error = protocol.worst(float((a - b).norm() / b.norm()) for a, b in pairs) / GRADIENTS
                ours, theirs = protocol.in_turn(
                    [lambda k: gradients("triton"), lambda k: gradients("gsplat")], what.frames, device
                )
        finally:
            torch.set_float32_matmul_precision(before)
        return ours.row("ok" if error <= 1 else "wrong", error=error, beside={self._key("gsplat"): theirs.row()})

    @torch.no_grad()
    def _still(self, what: Plan, device: torch.device) -> Gaussians:
        if self.what in what.avatars:
            trained = what.avatars[self.what]
            return trained.map(lambda t: t.to(device).expand(self.batch, *t.shape[1:]).contiguous())
        r = rig.rig("static", self.n, self.resolution, self.batch, device, storage=what.storage)
        return rig.fusion(r, "eager")(rig.driver(r, "eager")(r.images[0]))
