"""A picture of Gaussians by Triton alone, forward and backward: projection, lists by tile, pixels."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Hashable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.raster.draw import Drawn, draw, draw_backward
from kernels.raster.project import project, project_backward
from kernels.raster.rooms import LONGEST, Lists, Rooms, Sorted, counted, sorted_apart

TILE = (4, 8)
"""Rows and columns of pixels."""
SPARE, MOST = 1.25, 1 << 24
"""Room for lists, over what the last picture of the same size needed; and places in all, of twelve bytes, that are taken so."""
_needed: dict[Hashable, int] = {}
_unused: dict[torch.device, list[tuple[Tensor, torch.cuda.Event]]] = defaultdict(list)
"""What numbers arrive in, and when: making both anew takes as long as a launch. None is in use twice, whatever the threads."""


class _Splat(torch.autograd.Function):
    @staticmethod
    def forward(ctx, means, quats, scales, opacities, colors, background, views, Ks, width, height, depth, lists):
        given = [t.float().contiguous() for t in (means, quats, scales, opacities, colors)]
        views, Ks, background = (t.float().contiguous() for t in (views, Ks, background))
        rows = project(*given, views, Ks, width, height)
        tile = TILE if lists is None else lists.tile
        pixels = lambda found: draw(rows, found, background, width, height, tile, depth)  # noqa: E731
        if lists is None:
            found, drawn = _whole(rows, width, height, pixels)
        else:
            found = lists(rows)
            drawn = pixels(found)
        rgb, alpha, z, light, last = drawn
        ctx.save_for_backward(*given[:4], views, Ks, background, rows, *found[:2], light, last)
        ctx.size, ctx.tile = (width, height), tile
        ctx.mark_non_differentiable(found.needed)
        ctx.set_materialize_grads(False)  # most have no use of coverage and depth
        return rgb, alpha, z, found.needed

    @staticmethod
    @once_differentiable
    def backward(ctx, drgb, dalpha, dz, _):
        *shape, views, Ks, background, rows, owners, begins, light, last = ctx.saved_tensors
        if drgb is None:
            drgb = light.new_zeros(*light.shape, 3)
        drows = draw_backward(rows, owners, begins, background, light, last, drgb, dalpha, dz, ctx.tile)
        grads = project_backward(*shape, views, Ks, rows, drows, *ctx.size)
        dbackground = (drgb * light[..., None]).sum((1, 2)) if ctx.needs_input_grad[5] else None
        return *grads, dbackground, *[None] * 6


def _whole(rows: Tensor, width: int, height: int, pixels: Callable[[Lists], Drawn]) -> tuple[Lists, Drawn]:
    """Lists that lack nothing, and what is drawn by them. There is room for what the last picture of this size needed, and some
    more, so that the host waits once, for the lists, while pixels are drawn; where that was too little, all is done again with what
    is needed."""
    size = (len(rows), width, height, rows.device, TILE)
    room = min(LONGEST, -(-int(SPARE * _needed.get(size, 0)) // 32) * 32)
    if room and (lists := _rooms(*size, room)).tiles * room <= MOST:
        found = lists(rows)
        needed = _told(found.needed)
        drawn = pixels(found)
        _needed[size] = needed()
        if _needed[size] <= room:
            return found, drawn
    found = counted(rows, width, height, TILE)
    if found is None:
        _needed.pop(size, None)
        found = sorted_apart(rows, width, height, TILE)
    else:
        _needed[size] = int(found.needed)
    return found, pixels(found)


def _told(number: Tensor) -> Callable[[], int]:
    """Asks for a number now; called, waits until it is here, though not for what was launched since."""
    if not number.is_cuda:
        return lambda: int(number)
    unused = _unused[number.device]
    try:
        here, done = unused.pop()
    except IndexError:
        here, done = torch.empty((), dtype=number.dtype, pin_memory=True), torch.cuda.Event()
    here.copy_(number, non_blocking=True)
    done.record()

    def told() -> int:
        done.synchronize()
        value = int(here)
        unused.append((here, done))
        return value

    return told


@functools.lru_cache(maxsize=8)
def _rooms(images: int, width: int, height: int, device: torch.device, tile: tuple[int, int], room: int) -> Rooms:
    return Rooms(images, width, height, room, device, tile)


def rows_of(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor, views: Tensor, Ks: Tensor, width: int,
    height: int,
) -> Float[Tensor, "I N R"]:  # fmt: skip
    """What `splat` makes lists of."""
    given = (t.detach().float().contiguous() for t in (means, quats, scales, opacities, colors, views, Ks))
    return project(*given, width, height)


def lists_for(rows: Float[Tensor, "I N R"], width: int, height: int, spare: float) -> Rooms | Sorted:
    """Lists of fixed room, so many times as much as these rows need, for a CUDA graph. Waits for the GPU."""
    images, device = len(rows), rows.device
    found = counted(rows, width, height, TILE)
    if found is not None and spare * int(found.needed) <= LONGEST:
        return Rooms(images, width, height, max(1, int(spare * int(found.needed))), device, TILE)
    pairs = int(sorted_apart(rows, width, height, TILE).needed)
    return Sorted(images, width, height, max(1, int(spare * pairs)), device, TILE)


def splat(
    means: Float[Tensor, "I N 3"], quats: Float[Tensor, "I N 4"], scales: Float[Tensor, "I N 3"], opacities: Float[Tensor, "I N"],
    colors: Float[Tensor, "I N 3"], background: Float[Tensor, "I 3"], views: Float[Tensor, "I 4 4"], Ks: Float[Tensor, "I 3 3"],
    width: int, height: int, depth: bool = True, lists: Rooms | Sorted | None = None,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:  # fmt: skip
    """→ rgb [I,H,W,3], alpha [I,H,W,1], depth [I,H,W,1] (None without), and how much room the lists needed.

    wxyz quaternions of any length; world-to-camera matrices; pixels' centres at half integers. Computes in fp32. lists: of fixed
    room, for a CUDA graph (`lists_for`); by default as long as is needed, for which the host waits. Cameras get no gradient."""
    if not means.shape[1]:
        rgb = background.float()[:, None, None].expand(-1, height, width, -1)
        nothing = rgb[..., :1] * 0
        return rgb, nothing, nothing if depth else None, nothing.new_zeros((), dtype=torch.int32)
    rgb, alpha, z, needed = _Splat.apply(
        means, quats, scales, opacities, colors, background, views, Ks, width, height, depth, lists
    )
    return rgb, alpha[..., None], z[..., None] if depth else None, needed
