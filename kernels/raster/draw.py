"""Pixels from rows of projected Gaussians and lists of them by tile, forward and backward (specification:
`i4d_bench.render.reference`).

A program is a tile of TALL × WIDE pixels, of one warp, and walks its list front to back, UNROLL Gaussians between looks at
whether any pixel still lets light through. Backward it walks the other way from the last Gaussian that any pixel saw, and adds a
Gaussian's gradients, summed over the tile, by atomics: sums of several tiles are rounded in any order.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from kernels.layout import ALPHA_MAX, ALPHA_MIN, STOP
from kernels.raster.rooms import Lists

LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def _place(program, WIDTH, HEIGHT, ACROSS, DOWN, TALL: tl.constexpr, WIDE: tl.constexpr):
    """Image and pixels of a program: centres, index within all images, whether they are there."""
    image, tile = program // (ACROSS * DOWN), program % (ACROSS * DOWN)
    k = tl.arange(0, TALL * WIDE)
    x, y = tile % ACROSS * WIDE + k % WIDE, tile // ACROSS * TALL + k // WIDE
    there = (x < WIDTH) & (y < HEIGHT)
    return (
        image,
        x + 0.5,
        y + 0.5,
        (image.to(tl.int64) * HEIGHT + y) * WIDTH + x,
        there,
    )


@triton.jit
def _alpha(at, here, x, y):
    """α of a Gaussian at pixels before it is capped, and how far they are from its centre. Nothing where it is not `here`."""
    dx, dy = x - tl.load(at), y - tl.load(at + 1)
    a, b, c = tl.load(at + 2), tl.load(at + 3), tl.load(at + 4)
    alpha = tl.exp2(tl.load(at + 5) - (a * dx * dx + b * dx * dy + c * dy * dy))
    return tl.where(here, alpha, 0.0), dx, dy, a, b, c


@triton.jit
def _draw(
    rows, owners, begins, lasts, background, rgb, alpha, depth, left, last, WIDTH, HEIGHT, ACROSS, DOWN,
    ROW: tl.constexpr, TALL: tl.constexpr, WIDE: tl.constexpr, UNROLL: tl.constexpr, DEPTH: tl.constexpr,
    MOST: tl.constexpr, LEAST: tl.constexpr, STOP: tl.constexpr,
):  # fmt: skip
    """left: the light that comes through. last: where in `owners` each pixel stopped, the end of its tile's list if it did not."""
    image, x, y, pixel, there = _place(tl.program_id(0), WIDTH, HEIGHT, ACROSS, DOWN, TALL, WIDE)
    start, end = tl.load(begins + tl.program_id(0)), tl.load(lasts + tl.program_id(0))
    light, live = tl.full([TALL * WIDE], 1.0, tl.float32), there
    r, g, b, z = light * 0, light * 0, light * 0, light * 0
    ends = tl.full([TALL * WIDE], 0, tl.int32) + end
    j = start
    going = start < end
    while going:
        for u in tl.static_range(UNROLL):
            here = j + u < end
            at = rows + tl.load(owners + j + u, mask=here, other=0).to(tl.int64) * ROW
            a, _, _, _, _, _ = _alpha(at, here, x, y)
            a = tl.minimum(a, MOST)
            after = light - light * a
            seen = live & (a >= LEAST)
            stops = seen & (after <= STOP)
            ends = tl.where(stops, j + u, ends)
            live, seen = live & ~stops, seen & ~stops
            w = tl.where(seen, light * a, 0.0)
            r += w * tl.load(at + 6)
            g += w * tl.load(at + 7)
            b += w * tl.load(at + 8)
            if DEPTH:
                z += w * tl.load(at + 9)
            light = tl.where(seen, after, light)
        j += UNROLL
        going = (j < end) & (tl.max(live.to(tl.int32), 0) > 0)
    for c in tl.static_range(3):
        value = r if c == 0 else (g if c == 1 else b)
        tl.store(rgb + 3 * pixel + c, value + light * tl.load(background + 3 * image + c), mask=there)
    tl.store(alpha + pixel, 1 - light, mask=there)
    tl.store(left + pixel, light, mask=there)
    tl.store(last + pixel, ends, mask=there)
    if DEPTH:
        tl.store(depth + pixel, z, mask=there)


@triton.jit
def _draw_backward(
    rows, owners, begins, background, left, last, drgb, dalpha, ddepth, drows, WIDTH, HEIGHT, ACROSS, DOWN,
    ROW: tl.constexpr, TALL: tl.constexpr, WIDE: tl.constexpr, DEPTH: tl.constexpr, MOST: tl.constexpr, LEAST: tl.constexpr,
):  # fmt: skip
    image, x, y, pixel, there = _place(tl.program_id(0), WIDTH, HEIGHT, ACROSS, DOWN, TALL, WIDE)
    start = tl.load(begins + tl.program_id(0))
    ends = tl.load(last + pixel, mask=there, other=0)
    light = tl.load(left + pixel, mask=there, other=0.0)
    dr = tl.load(drgb + 3 * pixel, mask=there, other=0.0)
    dg = tl.load(drgb + 3 * pixel + 1, mask=there, other=0.0)
    db = tl.load(drgb + 3 * pixel + 2, mask=there, other=0.0)
    dz = light * 0
    if DEPTH:
        dz = tl.load(ddepth + pixel, mask=there, other=0.0)
    over = (
        dr * tl.load(background + 3 * image)
        + dg * tl.load(background + 3 * image + 1)
        + db * tl.load(background + 3 * image + 2)
    )
    # Σ over what lies behind of w·(∂L/∂w), background and coverage included.
    behind = light * (over - tl.load(dalpha + pixel, mask=there, other=0.0))
    j = tl.max(ends, 0) - 1
    while j >= start:
        owner = tl.load(owners + j).to(tl.int64)
        at, d = rows + owner * ROW, drows + owner * ROW
        raw, dx, dy, a, b, c = _alpha(at, j < ends, x, y)
        al = tl.minimum(raw, MOST)
        seen = al >= LEAST
        al = tl.where(seen, al, 0.0)
        keep = 1 / (1 - al)
        light = light * keep
        w = al * light
        value = dr * tl.load(at + 6) + dg * tl.load(at + 7) + db * tl.load(at + 8)
        if DEPTH:
            value += dz * tl.load(at + 9)
            tl.atomic_add(d + 9, tl.sum(w * dz, 0))
        gl = tl.where(seen & (raw <= MOST), (light * value - keep * behind) * al, 0.0)  # ∂L/∂α · α
        behind += w * value
        tl.atomic_add(d + 6, tl.sum(w * dr, 0))
        tl.atomic_add(d + 7, tl.sum(w * dg, 0))
        tl.atomic_add(d + 8, tl.sum(w * db, 0))
        gl = gl * LN2
        tl.atomic_add(d + 5, tl.sum(gl, 0))
        tl.atomic_add(d, tl.sum(gl * (2 * a * dx + b * dy), 0))
        tl.atomic_add(d + 1, tl.sum(gl * (b * dx + 2 * c * dy), 0))
        tl.atomic_add(d + 2, -tl.sum(gl * dx * dx, 0))
        tl.atomic_add(d + 3, -tl.sum(gl * dx * dy, 0))
        tl.atomic_add(d + 4, -tl.sum(gl * dy * dy, 0))
        j -= 1


UNROLL = 8
LIMITS = {"MOST": ALPHA_MAX, "LEAST": ALPHA_MIN}


def _sizes(width: int, height: int, tile: tuple[int, int]) -> tuple[int, int, int, int]:
    return width, height, -(-width // tile[1]), -(-height // tile[0])


def draw(
    rows: Float[Tensor, "I N R"], lists: Lists, background: Float[Tensor, "I 3"], width: int, height: int, tile: tuple[int, int],
    depth: bool,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor]:  # fmt: skip
    """→ rgb, alpha, depth, what light comes through, and where in `lists.owners` each pixel stopped."""
    images, sizes = len(rows), _sizes(width, height, tile)
    rgb = rows.new_empty(images, height, width, 3)
    alpha, light = rows.new_empty(2, images, height, width)
    z = rows.new_empty(images, height, width) if depth else None
    last = torch.empty(images, height, width, dtype=torch.int32, device=rows.device)
    _draw[(images * sizes[2] * sizes[3],)](
        rows, *lists[:3], background, rgb, alpha, z, light, last, *sizes, ROW=rows.shape[2], TALL=tile[0], WIDE=tile[1],
        UNROLL=UNROLL, DEPTH=depth, **LIMITS, STOP=STOP, num_warps=1,
    )  # fmt: skip
    return rgb, alpha, z, light, last


def draw_backward(
    rows: Tensor, owners: Tensor, begins: Tensor, background: Tensor, light: Tensor, last: Tensor, drgb: Tensor, dalpha: Tensor,
    dz: Tensor | None, tile: tuple[int, int],
) -> Float[Tensor, "I N R"]:  # fmt: skip
    """→ gradients of rows."""
    images, height, width = light.shape
    sizes, drows = _sizes(width, height, tile), torch.zeros_like(rows)
    drgb, dalpha, dz = drgb.contiguous(), dalpha.contiguous(), None if dz is None else dz.contiguous()
    _draw_backward[(images * sizes[2] * sizes[3],)](
        rows, owners, begins, background, light, last, drgb, dalpha, dz, drows, *sizes, ROW=rows.shape[2], TALL=tile[0],
        WIDE=tile[1], DEPTH=dz is not None, **LIMITS, num_warps=1,
    )  # fmt: skip
    return drows
