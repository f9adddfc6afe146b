"""Lists by tile without a sort of all pairs: every tile's Gaussians are put into its own room in any order, then sorted there.

A tile's list is short, so that one program sorts it in registers, by depth and then by index, which is the order that a stable
sort by depth gives. Rooms are of one size where nothing may wait for the host (a CUDA graph): what does not fit is left out and
counted. Or they are counted first, and as large as they must be. Lists longer than LONGEST are left to a sort of all pairs.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from kernels.fused.launch import INTERPRETED, run_kernel
from kernels.raster.project import DEPTH, REACH
from kernels.raster.tiles import TileLists, box, ellipse, meets

MOST = (1 << 31) - 1
"""Places that lists have in all: kernels count them in 32 bits."""
LONGEST = 1024
"""Gaussians that one program sorts. Twice as many take Triton minutes to compile."""
TOGETHER = 4
"""Tiles of a Gaussian whose places are asked for at once: most have no more."""
BLOCK = 64
"""Gaussians of a program: all wait for the one that meets the most tiles."""
PROGRAMS = 3 if INTERPRETED else 8192
"""There should be, to fill a GPU: where Gaussians are few, several share the tiles of a block."""
SHORTEST = 64
"""A list is sorted as if it were as long as the next of this times 1, 2, 4, … that holds it."""


@triton.jit
def _fill(
    rows, cursors, begins, ends, keys, TOTAL, N, ACROSS, DOWN, TALL: tl.constexpr, WIDE: tl.constexpr,
    ROW: tl.constexpr, COUNT: tl.constexpr, BLOCK: tl.constexpr, TOGETHER: tl.constexpr,
):  # fmt: skip
    """Counts (COUNT), or puts into rooms, what tiles the Gaussians meet. cursors: how many each tile has met. Programs: blocks of
    Gaussians × parts of their tiles, TOGETHER in turn."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = i < TOTAL
    x0, y0, nx, ny = box(rows, rows + 10, i, there, ACROSS, DOWN, TALL, WIDE, ROW, ROW)
    n, across = nx * ny, tl.maximum(nx, 1)
    e = ellipse(rows, i, there, ROW)
    image = (i // N).to(tl.int32) * (DOWN * ACROSS)
    depth = tl.load(rows + ROW * i + 9, mask=there, other=0.0).to(tl.int32, bitcast=True)
    key = (depth.to(tl.int64) << 32) | i
    for first in range(tl.program_id(1) * TOGETHER, tl.max(n, 0), tl.num_programs(1) * TOGETHER):
        for k in tl.static_range(TOGETHER):
            column, row = x0 + (first + k) % across, y0 + (first + k) // across
            here = (first + k < n) & meets(e, column, row, TALL, WIDE)
            tile = image + row * ACROSS + column
            slot = tl.atomic_add(cursors + tile, 1, mask=here, sem="relaxed")
            if not COUNT:
                at = tl.load(begins + tile, mask=here, other=0) + slot
                fits = here & (at < tl.load(ends + tile, mask=here, other=0))
                tl.store(keys + at, key, mask=fits)


@triton.jit
def _ordered(keys, owners, begin, n, SIZE: tl.constexpr):
    k = tl.arange(0, SIZE)
    sorted_ = tl.sort(tl.load(keys + begin + k, mask=k < n, other=0x7FFFFFFFFFFFFFFF))
    tl.store(owners + begin + k, (sorted_ & 0xFFFFFFFF).to(tl.int32), mask=k < n)


@triton.jit
def _ordered_within(keys, owners, begin, n, FIRST: tl.constexpr, SIZE: tl.constexpr):
    """In the least of FIRST, 2 FIRST, … SIZE places that hold n."""
    if FIRST >= SIZE:
        _ordered(keys, owners, begin, n, SIZE)
    elif n <= FIRST:
        _ordered(keys, owners, begin, n, FIRST)
    else:
        _ordered_within(keys, owners, begin, n, 2 * FIRST, SIZE)


@triton.jit
def _sort(keys, owners, cursors, begins, ends, lasts, FIRST: tl.constexpr, SIZE: tl.constexpr):
    """A program per tile. Behind the cursors, the largest of them. lasts: where each tile's list ends. SIZE: the most that a list
    may hold."""
    tile, needed = tl.program_id(0), cursors + tl.num_programs(0)
    begin, met = tl.load(begins + tile), tl.load(cursors + tile)
    if met > tl.load(needed):  # seldom, but for the first
        tl.atomic_max(needed, met, sem="relaxed")
    n = tl.minimum(met, tl.load(ends + tile) - begin)
    tl.store(lasts + tile, begin + n)
    if n > 0:
        _ordered_within(keys, owners, begin, n, FIRST, SIZE)


class Lists(NamedTuple):
    """Of Gaussians by tile, front to back."""

    owners: Int[Tensor, " C"]
    """Indices into I·N."""
    begins: Int[Tensor, " T"]
    """Where in `owners` each tile's list begins, images' tiles row by row."""
    lasts: Int[Tensor, " T"]
    needed: Int[Tensor, ""]
    """The room that there should be, as the lists' `room` counts it: of more than that the rest is missing."""


class Rooms:
    """Lists for images of one size. room: Gaussians of each tile."""

    def __init__(self, images: int, width: int, height: int, room: int, device, tile: tuple[int, int]):
        """Raises ValueError for a room that no program can sort."""
        if not 0 < room <= LONGEST:
            raise ValueError(f"a tile's room is 1 to {LONGEST}, got {room}")
        self.room, self.tile = room, tile
        self.across, self.down = -(-width // tile[1]), -(-height // tile[0])
        self.tiles = images * self.across * self.down
        self.begins = torch.arange(self.tiles, dtype=torch.int32, device=device) * room
        self.ends = self.begins + room

    def __call__(self, rows: Float[Tensor, "I N R"]) -> Lists:
        pairs, longest = self.tiles * self.room, self.room
        return _filled(rows, self.begins, self.ends, pairs, longest, self.across, self.down, self.tile)


def counted(rows: Float[Tensor, "I N R"], width: int, height: int, tile: tuple[int, int]) -> Lists | None:
    """Lists with as much room as there must be, which the host waits to be told. None where a tile has too many to be sorted
    here."""
    across, down = -(-width // tile[1]), -(-height // tile[0])
    cursors = torch.zeros(len(rows) * across * down, dtype=torch.int32, device=rows.device)
    _launch(rows, cursors, None, None, None, across, down, tile, count=True)
    ends = cursors.cumsum(0, dtype=torch.int32)
    longest, pairs = torch.stack([cursors.max(), ends[-1]]).tolist()
    if longest > LONGEST:
        return None
    return _filled(rows, ends - cursors, ends, pairs, longest, across, down, tile)


def _filled(
    rows: Tensor, begins: Tensor, ends: Tensor, pairs: int, longest: int, across: int, down: int, tile: tuple[int, int]
) -> Lists:
    size = max(SHORTEST, triton.next_power_of_2(longest))
    cursors = torch.zeros(len(begins) + 1, dtype=torch.int32, device=rows.device)
    keys = torch.empty(pairs, dtype=torch.int64, device=rows.device)
    owners = torch.empty(pairs, dtype=torch.int32, device=rows.device)
    lasts = torch.empty_like(begins)
    _launch(rows, cursors, begins, ends, keys, across, down, tile, count=False)
    how = {"FIRST": SHORTEST, "SIZE": size, "num_warps": max(1, size // 256)}
    run_kernel(_sort, (len(begins),), keys, owners, cursors, begins, ends, lasts, **how)
    return Lists(owners, begins, lasts, cursors[-1])


def _launch(rows, cursors, begins, ends, keys, across: int, down: int, tile: tuple[int, int], count: bool) -> None:
    total = rows.shape[0] * rows.shape[1]
    blocks = triton.cdiv(total, BLOCK)
    run_kernel(
        _fill, (blocks, max(1, PROGRAMS // blocks)), rows, cursors, begins, ends, keys, total, rows.shape[1], across, down,
        TALL=tile[0], WIDE=tile[1], ROW=rows.shape[2], COUNT=count, BLOCK=BLOCK, TOGETHER=TOGETHER, num_warps=1,
    )  # fmt: skip


class Sorted:
    """Lists of any length, by one sort of all pairs. room: pairs in all; None: as many as there are."""

    def __init__(self, images: int, width: int, height: int, room: int | None, device, tile: tuple[int, int]):
        self.room, self.tile = room, tile
        self.lists = TileLists(images, width, height, room, device, tile)

    def __call__(self, rows: Float[Tensor, "I N R"]) -> Lists:
        owners, offsets, pairs = self.lists(rows[..., :2], rows[..., REACH:], rows[..., DEPTH], rows)
        flat = offsets.flatten(1)
        tiles = flat.shape[1] - offsets.shape[2]  # below the last row begins what is unused
        return Lists(owners, flat[:, :tiles].flatten(), flat[:, 1 : tiles + 1].flatten(), pairs)


def sorted_apart(rows: Float[Tensor, "I N R"], width: int, height: int, tile: tuple[int, int]) -> Lists:
    """Lists of any length, image by image, so that a sort takes the memory of one image's pairs. The host waits for each. Raises
    ValueError where 32 bits do not count the pairs of all."""
    one, n, parts, pairs = Sorted(1, width, height, None, rows.device, tile), rows.shape[1], [], 0
    for i in range(len(rows)):
        found = one(rows[i : i + 1])
        parts.append((found.owners + i * n, found.begins + pairs, found.lasts + pairs))
        pairs += len(found.owners)
        if pairs > MOST:
            raise ValueError(f"the images' Gaussians meet more than {MOST:,} tiles")
    return Lists(*map(torch.cat, zip(*parts, strict=True)), rows.new_tensor(pairs, dtype=torch.int32))
