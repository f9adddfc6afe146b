"""Which Gaussians: where in canonical space the planes are read, one Gaussian per place (PAPER §1, "Which Gaussians").

`plane`: the mean of the three planes, bilinearly resampled, one Gaussian per texel of a grid × grid sheet in front (ours:
on the mean head's surface, and denser in the face if wanted), and (ours) a coarser sheet behind, read from the second
plane alone: a frontal sheet leaves holes beyond 40° of yaw.
`ray`: grid × grid frontal rays, stratified and importance samples each, read from the triplane.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from i4d_bench.model.decoder import Decoder
from i4d_bench.model.surface import HALF, HeadSurface
from i4d_bench.types import FEATURE_DIM, Triplane
from kernels.layout import MAX_SCALE

EXTENT = 0.47
"""Half side of the cube (canonical units) that the planes cover in ray mode."""
INSIDE, OUTSIDE = 1.5, -3.0
SHELL = 0.1
"""Canonical units below the mean head's surface that start opaque in ray mode."""
FACE = 0.1
"""Height (share of half an image) around which a focused sheet is dense: between eyes and mouth."""


def sheet(grid: int, focus: float, device) -> tuple[Tensor, Tensor, Tensor]:
    """A grid × grid sheet over ±1, row by row from the top left of the image: u, v [N] and the local spacing [N,3].

    focus: spacing in the middle of the face over that of an even sheet (1: even, the paper's); the rim is sparser for it.
    """
    t = (torch.arange(grid, device=device) + 0.5) / grid * 2 - 1
    bend = 1 - focus
    u, step = focus * t + bend * t**3, (focus + 3 * bend * t**2) * 2 / grid
    lift = FACE * bend * 2  # an even sheet stays centred
    v, step_v = u + lift * (1 - t**2), step - lift * 2 * t * 2 / grid
    v, step_v = v.flip(0), step_v.flip(0)
    vv, uu = torch.meshgrid(v, u, indexing="ij")
    sv, su = torch.meshgrid(step_v, step, indexing="ij")
    return uu.reshape(-1), vv.reshape(-1), torch.stack([su, sv, (su + sv) / 2], -1).view(-1, 3)


def prior(anchors: Tensor, inside: Tensor, spacing: Tensor | float, weight: float = 0.6) -> Float[Tensor, "*B N 14"]:
    """What is added to Φ's raw output at anchors [*B,N,3]: there, `weight` spacings large, upright, opaque inside the head."""
    size = (weight * torch.as_tensor(spacing, device=anchors.device)).clamp_max(
        0.9 * MAX_SCALE
    )  # the activation ends there
    raw = anchors.new_zeros(*anchors.shape[:-1], 14)
    raw[..., :3] = torch.atanh(anchors)
    raw[..., 3:6] = torch.logit(size / MAX_SCALE)
    raw[..., 6] = 1.0
    raw[..., 10] = torch.where(inside, INSIDE, OUTSIDE)
    return raw


def _look_up(planes: Float[Tensor, "B K P P"], x: Tensor, y: Tensor) -> Float[Tensor, "B N K"]:
    """Bilinear look-up at coordinates ([N] or [B,N], ±1, up is +1)."""
    coords = torch.stack([x, -y], -1).expand(len(planes), -1, -1)
    looked = F.grid_sample(planes, coords[:, None], align_corners=False, padding_mode="border")
    return looked[:, :, 0].transpose(1, 2)


@dataclass
class Look:
    """Where a mixture of the three planes is read: coordinates [N] or [B,N], ±1."""

    mix: tuple[float, float, float]
    x: Tensor
    y: Tensor


class Places:
    """Where planes are read for the Gaussians: groups of them side by side, each the sum of its looks."""

    def __init__(self, *groups: tuple[Look, ...]):
        self.groups = groups

    def read(self, planes: Float[Tensor, "B 3 K P P"]) -> Float[Tensor, "B N K"]:
        each = planes.unbind(1)

        def one(look: Look) -> Tensor:
            mixed = _sum(w * each[k] for k, w in enumerate(look.mix) if w)
            return _look_up(mixed, look.x, look.y)

        return torch.cat([_sum(map(one, group)) for group in self.groups], 1)

    def features(self, planes: Triplane, first: slice, *more: slice) -> list[Float[Tensor, "B N C"]]:
        """What `read` gives for parts of the full planes' channels: the trunk is read first, its map applied there alone."""

        def one(look: Look) -> list[Tensor]:
            looked = _look_up(planes.trunk, look.x, look.y)
            weight, bias = (
                _sum(w * t[k] for k, w in enumerate(look.mix) if w) for t in (planes.weight, planes.bias)
            )  # not F.linear, which would copy what `_look_up` turned over
            return [
                torch.baddbmm(bias[part], looked, weight[part].mT.expand(len(looked), -1, -1))
                for part in (first, *more)
            ]

        groups = [[_sum(each) for each in zip(*map(one, group), strict=True)] for group in self.groups]
        return [torch.cat(part, 1) for part in zip(*groups, strict=True)]


def _sum(tensors: Iterable[Tensor]) -> Tensor:
    return functools.reduce(torch.add, tensors)


def triplane_places(points: Float[Tensor, "B N 3"]) -> Places:
    """The mean of the xy, xz and zy planes (PAPER §1 [C])."""
    x, y, z = (points / EXTENT).unbind(-1)
    third = 1 / 3
    return Places((Look((third, 0, 0), x, y), Look((0, third, 0), x, z), Look((0, 0, third), z, y)))


class PlaneSampling:
    """grid² Gaussians in front, and those of (grid / 2)² behind that lie on the mean head."""

    def __init__(self, grid: int, focus: float = 1.0):
        self.grid, self.focus = grid, focus

    def resolution(self, size: int) -> int:
        """Texels per side that the planes need, at most `size` and dividing it."""
        wanted = self.grid / self.focus
        return next(size // k for k in (8, 4, 2, 1) if size // k >= wanted or k == 1)

    def __call__(self, planes: Triplane, decoder: Decoder, surface: HeadSurface) -> tuple[Tensor, Tensor, Places]:
        """→ anchors [B,N,3], prior [B,N,14], and the places where planes are read."""
        anchors, raw, places = surface.kept(("plane", self.grid, self.focus), lambda: self._sheets(surface))
        return anchors.expand(len(planes.trunk), -1, -1), raw.expand(len(planes.trunk), -1, -1), places

    def _sheets(self, surface: HeadSurface) -> tuple[Tensor, Tensor, Places]:
        """The same for every image: [N,3], [N,14]."""
        device = surface.depth.device
        u, v, spacing = sheet(self.grid, self.focus, device)
        front, inside = surface.unproject(u, v)
        bu, bv, bspacing = sheet(self.grid // 2, 1.0, device)
        behind, seen = surface.unproject(bu, bv, back=True)
        bu, bv, bspacing, behind = (t[seen] for t in (bu, bv, bspacing, behind))
        raw = torch.cat([prior(front, inside, HALF * spacing), prior(behind, seen[seen], HALF * bspacing)])
        places = Places((Look((1 / 3, 1 / 3, 1 / 3), u, v),), (Look((0, 1, 0), bu, bv),))
        return torch.cat([front, behind]), raw, places


class RaySampling:
    """grid × grid parallel rays from the front; `strata` even samples and as many by importance on Φ's opacity.

    Deterministic: importance samples sit at even quantiles. Anchors differ from person to person, so N is the same
    (grid² · 2 · strata) but pruning is left to the opacity test of the rasteriser (α < 1/255 is skipped).
    """

    def __init__(self, grid: int, focus: float = 1.0, strata: int = 24):
        self.grid, self.focus, self.strata = grid, focus, strata

    def resolution(self, size: int) -> int:
        return size

    def __call__(self, planes: Triplane, decoder: Decoder, surface: HeadSurface) -> tuple[Tensor, Tensor, Places]:
        device, batch, rays, s = planes.trunk.device, len(planes.trunk), self.grid**2, self.strata
        x, y = (EXTENT * t for t in sheet(self.grid, self.focus, device)[:2])
        near = EXTENT * 0.85
        edges = torch.linspace(near, -near, s + 1, device=device)
        z = (edges[:-1] + edges[1:]) / 2
        first = torch.stack([x[:, None].expand(-1, s), y[:, None].expand(-1, s), z.expand(rays, -1)], -1)
        first = first.reshape(1, rays * s, 3).expand(batch, -1, -1)
        with torch.no_grad():
            (features,) = triplane_places(first).features(planes, slice(FEATURE_DIM))
            opacity = decoder(features, self._prior(first, surface)).opacities
            alpha = opacity.unflatten(1, (rays, s))
            seen = torch.cumprod(1 - alpha + 1e-6, -1)
            weight = alpha * torch.cat([torch.ones_like(seen[..., :1]), seen[..., :-1]], -1) + 1e-3
            cdf = F.pad(torch.cumsum(weight, -1) / weight.sum(-1, keepdim=True), (1, 0))
            quantile = ((torch.arange(s, device=device) + 0.5) / s).expand(batch, rays, s).contiguous()
            right = torch.searchsorted(cdf, quantile, right=True).clamp(1, s)
            lo, hi = cdf.gather(-1, right - 1), cdf.gather(-1, right)
            t = (quantile - lo) / (hi - lo).clamp_min(1e-6)
            z2 = edges[right - 1] + t * (edges[right] - edges[right - 1])
        second = torch.stack([x[:, None].expand(z2.shape), y[:, None].expand(z2.shape), z2], -1).flatten(1, 2)
        anchors = torch.cat([first, second], 1)
        return anchors, self._prior(anchors, surface), triplane_places(anchors)

    def _prior(self, anchors: Tensor, surface: HeadSurface) -> Tensor:
        x, y, z = anchors.unbind(-1)
        front, back, inside = surface(x, y)
        on_shell = inside & (z < front) & (z > back) & ((front - z).minimum(z - back) < SHELL)
        return prior(anchors, on_shell, 2 * EXTENT / self.grid)


SAMPLINGS = {"plane": PlaneSampling, "ray": RaySampling}
