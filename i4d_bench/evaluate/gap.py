"""The driving gap: what the right driving code gains over the source's own, in eyes and mouth (DESIGN §4)."""

from __future__ import annotations

import torch
from torch import Tensor

from i4d_bench.data.splits import Triples
from i4d_bench.loader import Loader
from i4d_bench.metrics.image import psnr
from i4d_bench.model.avatar import Avatar
from i4d_bench.render.views import GREY, on_grey
from i4d_bench.types import Gaussians

ONSET_DB = 0.5
"""A design follows the driver once its gap passes this (DESIGN §4)."""


@torch.no_grad()
def driving_gap(avatar: Avatar, loader: Loader, rows: Triples, head, batch: int = 16) -> dict[str, Tensor]:
    """PSNR in eyes and mouth with the right driving code (`psnr_regions`), and what it gains over the source's own (`gap`), dB."""
    out: dict[str, list[Tensor]] = {"gap": [], "psnr_regions": []}
    for i in range(0, len(rows), batch):
        part = rows[slice(i, i + batch)]
        images = loader.sources(part.source, avatar.backbone.config.size)
        truth = loader.targets(part.target, loader.frames.resolution)
        identity = avatar.backbone.lift(images, head=head)
        prepared = avatar.fusion.prepare(identity, loader.code(part.source))
        right = region_psnr(avatar.fusion.animate(prepared, loader.code(part.driving)), truth)
        still = region_psnr(avatar.fusion.animate(prepared, loader.code(part.source)), truth)
        out["gap"].append(right - still)
        out["psnr_regions"].append(right)
    return {k: torch.cat(v) for k, v in out.items()}


def region_psnr(gaussians: Gaussians, truth) -> Tensor:
    """PSNR [B] in dB inside the true eyes and mouth, on grey."""
    return psnr(
        on_grey(gaussians, truth.camera), truth.over(truth.rgb.new_full((len(truth.rgb), 3), GREY)), truth.regions
    )
