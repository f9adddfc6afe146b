"""Pixels from rows of projected Gaussians and lists of them by tile, forward and backward (specification:
`i4d_bench.render.reference`).

A program is a tile of TALL × WIDE pixels, of one warp, and walks its list front to back, UNROLL Gaussians between looks at
whether any pixel still lets light through. Backward it walks the other way from the last Gaussian that any pixel saw, CHUNK at a
time, whose sums over the tile are products: of the weights w with the picture's gradients, and of g = ∂L/∂(log2 α) with what a
pixel's place is in the tile, 1, px, py, px², px·py, py², from which sums of g·dx, g·dx² and the others follow. (Sums in registers
would be 50 exchanges between threads for each Gaussian.) A tile adds its sums to a Gaussian's by atomics, so in any order.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from kernels.fused.launch import precision, run_kernel
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
def _pair(at):
    """Two numbers of a row, read as one: a processor does a load in the time of four other instructions."""
    both = tl.load(at)
    return (both & 0xFFFFFFFF).to(tl.int32).to(tl.float32, bitcast=True), (both >> 32).to(tl.int32).to(
        tl.float32, bitcast=True
    )


@triton.jit
def _alpha(at, here, x, y):
    """α of a Gaussian at pixels before it is capped. Nothing where it is not `here`."""
    gx, gy = _pair(at)
    a, b = _pair(at + 1)
    c, level = _pair(at + 2)
    dx, dy = x - gx, y - gy
    return tl.where(here, tl.exp2(level - (dx * (a * dx + b * dy) + c * dy * dy)), 0.0)


@triton.jit
def _draw(
    rows, owners, begins, lasts, background, rgb, alpha, depth, left, last, WIDTH, HEIGHT, ACROSS, DOWN,
    ROW: tl.constexpr, TALL: tl.constexpr, WIDE: tl.constexpr, UNROLL: tl.constexpr, DEPTH: tl.constexpr,
    MOST: tl.constexpr, LEAST: tl.constexpr, STOP: tl.constexpr,
):  # fmt: skip
    """rows: in pairs, ROW of them. left: the light that comes through. last: where in `owners` each pixel stopped, the end of its
    tile's list if it did not."""
    image, x, y, pixel, there = _place(tl.program_id(0), WIDTH, HEIGHT, ACROSS, DOWN, TALL, WIDE)
    start, end = tl.load(begins + tl.program_id(0)), tl.load(lasts + tl.program_id(0))
    through = tl.where(there, 1.0, 0.0)  # and 0 from where a pixel stops
    light, r, g, b, z = through, through * 0, through * 0, through * 0, through * 0
    ends = tl.full([TALL * WIDE], 0, tl.int32) + start
    j = start
    going = start < end
    while going:
        for u in tl.static_range(UNROLL):
            here = j + u < end
            at = rows + tl.load(owners + j + u, mask=here, other=0).to(tl.int64) * ROW
            a = tl.minimum(_alpha(at, here, x, y), MOST)
            a = tl.where(a >= LEAST, a, 0.0)
            after = through - through * a
            stops = after <= STOP
            w = tl.where(stops, 0.0, through * a)
            through = tl.where(stops, 0.0, after)
            light = tl.where(stops, light, after)
            ends += tl.where(stops, 0, 1)
            red, green = _pair(at + 3)
            blue, far = _pair(at + 4)
            r += w * red
            g += w * green
            b += w * blue
            if DEPTH:
                z += w * far
        j += UNROLL
        going = (j < end) & (tl.max((through > 0).to(tl.int32), 0) > 0)
    ends = tl.minimum(ends, end)
    for c in tl.static_range(3):
        value = r if c == 0 else (g if c == 1 else b)
        tl.store(rgb + 3 * pixel + c, value + light * tl.load(background + 3 * image + c), mask=there)
    tl.store(alpha + pixel, 1 - light, mask=there)
    tl.store(left + pixel, light, mask=there)
    tl.store(last + pixel, ends, mask=there)
    if DEPTH:
        tl.store(depth + pixel, z, mask=there)


@triton.jit
def _back(
    j, COUNT: tl.constexpr, ends, start, light, behind, x, y, dr, dg, db, dz, pairs, owners, ROW: tl.constexpr,
    DEPTH: tl.constexpr, MOST: tl.constexpr, LEAST: tl.constexpr,
):  # fmt: skip
    """Back past the Gaussians at j to j + COUNT − 1, the last first: the light before them, what is behind and they themselves,
    their weights, and their ∂L/∂(log2 α): of one [pixels], of more [pixels, 2, 2, …], j's bits from the lowest on."""
    if COUNT == 1:
        at = pairs + tl.load(owners + j, mask=j >= start, other=0).to(tl.int64) * (ROW // 2)
        raw = _alpha(at, (j >= start) & (j < ends), x, y)
        a = tl.minimum(raw, MOST)
        a = tl.where(a >= LEAST, a, 0.0)
        root = tl.math.rsqrt(1 - a)
        keep = root * root  # 1 / (1 − α) in two instructions: a division is eight
        light *= keep
        w = a * light
        red, green = _pair(at + 3)
        blue, far = _pair(at + 4)
        value = dr * red + dg * green + db * blue
        if DEPTH:
            value += dz * far
        g = tl.where(raw <= MOST, (light * value - keep * behind) * (a * LN2), 0.0)
        return light, behind + w * value, w, g
    else:
        HALF: tl.constexpr = COUNT // 2
        light, behind, w1, g1 = _back(
            j + HALF, HALF, ends, start, light, behind, x, y, dr, dg, db, dz, pairs, owners, ROW, DEPTH, MOST, LEAST
        )
        light, behind, w0, g0 = _back(
            j, HALF, ends, start, light, behind, x, y, dr, dg, db, dz, pairs, owners, ROW, DEPTH, MOST, LEAST
        )
        return light, behind, tl.join(w0, w1), tl.join(g0, g1)


@triton.jit
def _column(sums, k, column: tl.constexpr):
    return tl.sum(tl.where(k[None, :] == column, sums, 0.0), 1)


@triton.jit
def _draw_backward(
    rows, pairs, owners, begins, background, left, last, drgb, dalpha, ddepth, drows, WIDTH, HEIGHT, ACROSS, DOWN,
    ROW: tl.constexpr, TALL: tl.constexpr, WIDE: tl.constexpr, CHUNK: tl.constexpr, ALPHA: tl.constexpr, DEPTH: tl.constexpr,
    MOST: tl.constexpr, LEAST: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """pairs: the rows as `_draw` reads them. CHUNK is 16, the least that a product has. P: its precision."""
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
    if ALPHA:
        over -= tl.load(dalpha + pixel, mask=there, other=0.0)
    behind = light * over  # Σ over what lies behind of w·(∂L/∂w), background and coverage included

    k, tile = tl.arange(0, 8), tl.program_id(0) % (ACROSS * DOWN)
    mx, my = tile % ACROSS * WIDE + WIDE * 0.5, tile // ACROSS * TALL + TALL * 0.5
    px, py, column = (x - mx)[:, None], (y - my)[:, None], k[None, :]
    place = tl.where(column == 0, 1.0, 0.0) + tl.where(column == 1, px, 0.0) + tl.where(column == 2, py, 0.0)
    place += (
        tl.where(column == 3, px * px, 0.0) + tl.where(column == 4, px * py, 0.0) + tl.where(column == 5, py * py, 0.0)
    )
    picture = tl.where(column == 0, dr[:, None], 0.0) + tl.where(column == 1, dg[:, None], 0.0)
    picture += tl.where(column == 2, db[:, None], 0.0) + tl.where(column == 3, dz[:, None], 0.0)
    i = tl.arange(0, CHUNK)
    turned = ((i & 1) << 3) | ((i & 2) << 1) | ((i & 4) >> 1) | ((i & 8) >> 3)  # where joining pairs of pairs puts them

    end = tl.max(ends, 0)
    while end > start:
        first = end - CHUNK
        light, behind, w, g = _back(
            first, CHUNK, ends, start, light, behind, x, y, dr, dg, db, dz, pairs, owners, ROW, DEPTH, MOST, LEAST
        )
        w, g = tl.reshape(w, [TALL * WIDE, CHUNK]), tl.reshape(g, [TALL * WIDE, CHUNK])
        seen = tl.dot(tl.trans(w), picture, input_precision=P)
        sums = tl.dot(tl.trans(g), place, input_precision=P)

        j = first + turned
        known = j >= start
        owner = tl.load(owners + j, mask=known, other=0).to(tl.int64)
        at, d = rows + owner * ROW, drows + owner * ROW
        gx, gy = tl.load(at, mask=known, other=0.0) - mx, tl.load(at + 1, mask=known, other=0.0) - my
        a, b = tl.load(at + 2, mask=known, other=0.0), tl.load(at + 3, mask=known, other=0.0)
        c = tl.load(at + 4, mask=known, other=0.0)
        m, m1, m2 = _column(sums, k, 0), _column(sums, k, 1), _column(sums, k, 2)
        sx, sy = m1 - gx * m, m2 - gy * m  # Σ g·dx, Σ g·dy
        tl.atomic_add(d, 2 * a * sx + b * sy, mask=known, sem="relaxed")
        tl.atomic_add(d + 1, b * sx + 2 * c * sy, mask=known, sem="relaxed")
        tl.atomic_add(d + 2, gx * (m1 + sx) - _column(sums, k, 3), mask=known, sem="relaxed")
        tl.atomic_add(d + 3, gx * m2 + gy * sx - _column(sums, k, 4), mask=known, sem="relaxed")
        tl.atomic_add(d + 4, gy * (m2 + sy) - _column(sums, k, 5), mask=known, sem="relaxed")
        tl.atomic_add(d + 5, m, mask=known, sem="relaxed")
        if DEPTH:
            tl.atomic_add(d + 9, _column(seen, k, 3), mask=known, sem="relaxed")
        for channel in tl.static_range(3):
            tl.atomic_add(d + 6 + channel, _column(seen, k, channel), mask=known, sem="relaxed")
        end = first


UNROLL, CHUNK = 4, 16
Drawn = tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor]
LIMITS = {"MOST": ALPHA_MAX, "LEAST": ALPHA_MIN}


def _sizes(width: int, height: int, tile: tuple[int, int]) -> tuple[int, int, int, int]:
    return width, height, -(-width // tile[1]), -(-height // tile[0])


def draw(
    rows: Float[Tensor, "I N R"], lists: Lists, background: Float[Tensor, "I 3"], width: int, height: int, tile: tuple[int, int],
    depth: bool,
) -> Drawn:  # fmt: skip
    """→ rgb, alpha, depth, what light comes through, and where in `lists.owners` each pixel stopped."""
    images, sizes = len(rows), _sizes(width, height, tile)
    rgb = rows.new_empty(images, height, width, 3)
    alpha, light = rows.new_empty(2, images, height, width)
    z = rows.new_empty(images, height, width) if depth else None
    last = torch.empty(images, height, width, dtype=torch.int32, device=rows.device)
    run_kernel(
        _draw, (images * sizes[2] * sizes[3],), rows.view(torch.int64), *lists[:3], background, rgb, alpha, z, light, last, *sizes,
        ROW=rows.shape[2] // 2, TALL=tile[0], WIDE=tile[1], UNROLL=UNROLL, DEPTH=depth, **LIMITS, STOP=STOP, num_warps=1,
    )  # fmt: skip
    return rgb, alpha, z, light, last


def draw_backward(
    rows: Tensor, owners: Tensor, begins: Tensor, background: Tensor, light: Tensor, last: Tensor, drgb: Tensor,
    dalpha: Tensor | None, dz: Tensor | None, tile: tuple[int, int],
) -> Float[Tensor, "I N R"]:  # fmt: skip
    """→ gradients of rows."""
    images, height, width = light.shape
    sizes, drows = _sizes(width, height, tile), torch.zeros_like(rows)
    drgb, dalpha, dz = (None if d is None else d.contiguous() for d in (drgb, dalpha, dz))
    run_kernel(
        _draw_backward, (images * sizes[2] * sizes[3],), rows, rows.view(torch.int64), owners, begins, background, light, last,
        drgb, dalpha, dz, drows, *sizes, ROW=rows.shape[2], TALL=tile[0], WIDE=tile[1], CHUNK=CHUNK, ALPHA=dalpha is not None,
        DEPTH=dz is not None, **LIMITS, P=precision(rows.dtype)["P"], num_warps=1,
    )  # fmt: skip
    return drows
