"""A short film of a trained avatar of a rendered world, for a report's page: it turns, then others of the test drive it, one after
the other. Beside it stands its photo, then who drives."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from i4d_bench.camera import look_at
from i4d_bench.data.splits import triples
from i4d_bench.loader import Loader
from i4d_bench.model.avatar import Avatar
from i4d_bench.play.cameras import camera_of
from i4d_bench.render.views import on_grey
from i4d_bench.types import FlameCode, MotionCode, ParametricHead
from variants import Prepared

FPS = 25.0
TURN, EASE, HOLD = 50, 10, 10
"""Frames of the turn, and of every driver: on the way to the expression, and held."""
WIDEST = 45.0
"""Degrees of the turn, to either side."""
DRIVERS = 6
LARGEST = 256
"""Pixels per side, if the world's pictures, doubled, have as many."""
BATCH = 10


@torch.no_grad()
def film(avatar: Avatar, loader: Loader, head: ParametricHead | None) -> Iterator[UInt8[np.ndarray, "S 2S 3"]]:
    """The frames, FPS a second; the last leads back to the first. Between two drivers the code goes straight from one to the
    other."""
    frames, device = loader.frames, loader.device
    source, drivers = people(loader)
    size = min(2 * frames.resolution, LARGEST)
    own = loader.code(source)
    prepared = lifted(avatar, loader, head, source)
    beside = loader.photos(np.concatenate([source, drivers]), size).movedim(1, -1)
    yaw, shown, codes = script(own, loader.code(drivers))
    for start in range(0, len(yaw), BATCH):
        part = slice(start, start + BATCH)
        camera = camera_of([look_at(y, 0.0, size) for y in yaw[part]], size, device)
        drawn = on_grey(avatar.fusion.animate(prepared, codes[part]), camera)
        yield from (torch.cat([beside[shown[part]], drawn], 2) * 255).round().byte().cpu().numpy()


def lifted(avatar: Avatar, loader: Loader, head: ParametricHead | None, source: Int[np.ndarray, " B"]) -> Prepared:
    """The people of these frames, ready to be driven."""
    identity = avatar.backbone.lift(loader.sources(source, avatar.backbone.config.size), head=head)
    return avatar.fusion.prepare(identity, loader.code(source))


def people(loader: Loader) -> tuple[Int[np.ndarray, " 1"], Int[np.ndarray, " K"]]:
    """Frames of the test: a photo, and others who drive; where there is one person alone, that person."""
    found = triples(loader.frames, "test", "cross")
    rows = found if len(found) else triples(loader.frames, "test", "self")
    return rows.source[:1], rows.driving[:DRIVERS]


def script(own: MotionCode, drivers: MotionCode) -> tuple[Float[np.ndarray, " F"], Tensor, MotionCode]:
    """Of every frame: degrees of yaw, which picture stands beside it (0 the photo, k the k-th driver), and the code."""
    count = len(drivers.motion)
    keys = _joined(own, drivers)
    turn = WIDEST * np.sin(np.linspace(0, 2 * np.pi, TURN, endpoint=False))
    yaw = np.concatenate([turn, np.zeros((count + 1) * (EASE + HOLD))])
    share = 0.5 - 0.5 * torch.cos(torch.pi * torch.arange(1, EASE + 1) / EASE)
    share = torch.cat([share, torch.ones(HOLD)]).repeat(count + 1)
    before = torch.arange(count + 1).repeat_interleave(EASE + HOLD)
    after = (before + 1) % (count + 1)
    still = torch.zeros(TURN, dtype=torch.long)
    before, after, share = torch.cat([still, before]), torch.cat([still, after]), torch.cat([still, share])
    return yaw, after, _between(keys, before, after, share)


def _joined(a: MotionCode, b: MotionCode) -> MotionCode:
    flame = None
    if a.flame is not None and b.flame is not None:
        same = a.flame.shape.expand(len(b.motion), -1)  # the person's own, whoever drives
        pairs = ((a.flame.shape, same), (a.flame.expression, b.flame.expression), (a.flame.pose, b.flame.pose))
        flame = FlameCode(*(torch.cat(pair) for pair in pairs))
    return MotionCode(torch.cat([a.motion, b.motion]), flame)


def _between(keys: MotionCode, before: Tensor, after: Tensor, share: Tensor) -> MotionCode:
    def mixed(values: Tensor) -> Tensor:
        return torch.lerp(values[before], values[after], share.to(values)[:, None])

    return keys.map(mixed)
