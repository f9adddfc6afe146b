"""What the backward passes of softplus networks share: the hidden layer with its slope, and gradients of weights, which every
program sums over its own tiles; a last launch sums the programs, always in one order."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.fused.launch import INTERPRETED, Way, fitting, launch, parts, precision, run_kernel
from kernels.fused.softplus_net import LN2, LOG2E, softplus_slope, vector

LAUNCH = {
    torch.float32: {"TILE": 32, "num_warps": 8, "num_stages": 1},
    torch.float16: {"TILE": 64, "num_warps": 8, "num_stages": 3},
}
"""By what features are stored in; 16 bits are all the same."""
PIECES = (2, 4)
"""In how many launches a hidden layer passes where its weights are too much for the card."""
ONE = tl.constexpr(64.0)
"""log2(1 + 2^64), exact in every type here."""


@triton.jit
def units(FIRST, UNITS: tl.constexpr):
    """The hidden units of a launch, of those that `in_pieces` makes."""
    h = tl.arange(0, UNITS)
    return h if FIRST is None else FIRST + h


@triton.jit
def strided(w, h, i, H: tl.constexpr, I: tl.constexpr, step_h: tl.constexpr, step_i: tl.constexpr):  # noqa: E741
    """Weights as [len(h), len(i)], by their strides; zeros outside."""
    there = (h < H)[:, None] & (i < I)[None, :]
    return tl.load(w + h[:, None] * step_h + i[None, :] * step_i, mask=there, other=0.0).to(tl.float32)


@triton.jit
def first_layer(w, bias, h, i, H: tl.constexpr, I: tl.constexpr, DOT: tl.constexpr):  # noqa: E741
    """A first layer [H0, I0] in the order of `strided`, log2 e larger, with its bias as the column that meets the input's ones.
    The unit past the last is held at h = ONE."""
    bias = tl.where(h == H, ONE, vector(bias, h, H, LOG2E))
    return tl.where((i == I)[None, :], bias[:, None], w * LOG2E).to(DOT)


@triton.jit
def hidden_layer(w, x, HALF: tl.constexpr, ASM: tl.constexpr, P: tl.constexpr):
    """The hidden layer [H, TILE], log2(1 + 2^y), and its slope, both in x's type."""
    h, r = softplus_slope(tl.dot(w, tl.trans(x), input_precision=P), HALF, ASM)
    return h.to(x.dtype), r.to(x.dtype)


@triton.jit
def store_sums(sums, h, i, o, a, b, H: tl.constexpr, I: tl.constexpr, O: tl.constexpr):  # noqa: E741
    """What `unpack` takes apart. Rows are whole fours of floats: nothing is written in less."""
    IW: tl.constexpr = (I + 4) // 4 * 4
    OW: tl.constexpr = (O + 3) // 4 * 4
    h, i, o = h[:, None], i[None, :], o[None, :]
    tl.store(sums + h * IW + i, a * LOG2E, mask=(h < H) & (i < IW))
    tl.store(sums + H * IW + h * OW + o, b * tl.where(h == H, 1 / ONE, LN2), mask=(h <= H) & (o < OW))


@triton.jit
def add(base, row, there, cols, x, WIDTH: tl.constexpr, MORE: tl.constexpr):
    """Stores rows of a matrix [·, WIDTH]. MORE: adds to them."""
    to, mask = base + row[:, None] * WIDTH + cols[None, :], there[:, None] & (cols < WIDTH)[None, :]
    if MORE:
        x += tl.load(to, mask=mask, other=0.0)
    tl.store(to, x, mask=mask)


@triton.jit
def _total(sums, out, PARTS, SIZE: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Per frame, the sum over the programs."""
    i, frame, row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.program_id(1).to(tl.int64), tl.arange(0, ROWS)
    total = tl.zeros([ROWS, BLOCK], tl.float32)
    for first in range(0, PARTS, ROWS):
        at = sums + (frame * PARTS + first + row)[:, None] * SIZE + i[None, :]
        total += tl.load(at, mask=(first + row < PARTS)[:, None] & (i < SIZE)[None, :], other=0.0)
    tl.store(out + frame * SIZE + i, tl.sum(total, 0), mask=i < SIZE)


@triton.jit
def read_rows(x, first, rows, cols, N, WIDTH: tl.constexpr, ONES: tl.constexpr = False):
    """Rows of a matrix [·, WIDTH] from `first` on; zeros outside. ONES: past the last column one of ones."""
    there = (rows < N)[:, None] & (cols < WIDTH)[None, :]
    other = tl.where(cols == WIDTH, 1.0 if ONES else 0.0, 0.0).to(x.dtype.element_ty)[None, :]
    return tl.load(
        x + (first + rows)[:, None] * WIDTH + cols[None, :], mask=there, other=tl.broadcast_to(other, there.shape)
    )


@triton.jit
def with_ones(x, cols, WIDTH: tl.constexpr):
    return tl.where((cols == WIDTH)[None, :], 1.0, x.to(tl.float32))


class Sums:
    """Buffers in which programs leave their sums, [frames, parts, size] for each of `sizes`: one for all launches."""

    def __init__(self, like: Tensor, frames: int, n: int, *sizes: int):
        self.stored = torch.float32 if like.dtype == torch.float32 else torch.float16
        self.like, self.n = like, n
        self.grid = frames, parts(n, frames, LAUNCH[self.stored]["TILE"], 1)
        self.sizes = [-(-size // 16) * 16 for size in sizes]
        self.buffers = torch.empty(*self.grid, self.size, device=like.device)

    @property
    def size(self) -> int:
        return sum(self.sizes)

    def buffer(self, k: int) -> Tensor:
        return self.buffers.split(self.sizes, 2)[k]

    def run(self, kernel, k: int, *args, ways: Sequence[Way] | None = None, **widths) -> None:
        """ways: `in_pieces` of a hidden layer; else all is one launch."""
        launch(kernel, self.grid, *self._given(k, args, ways), **widths, SUMS=self.size, **precision(self.like.dtype))

    def fitting(self, kernel, k: int, *args, ways: Sequence[Way] | None = None, **widths) -> Way | None:
        """The way in which `run` runs, if there is one."""
        return fitting(
            kernel, self.grid, *self._given(k, args, ways), **widths, SUMS=self.size, **precision(self.like.dtype)
        )

    def _given(self, k: int, args, ways):
        return ways or [[LAUNCH[self.stored]]], *args, self.buffer(k), self.n

    def totals(self) -> list[Tensor]:
        """Per frame, [frames, size] each."""
        (frames, parts), size = self.grid, self.size
        out = torch.empty(frames, size, device=self.like.device)
        block = 1024 if INTERPRETED else 16  # the interpreter takes programs one by one
        run_kernel(
            _total, (triton.cdiv(size, block), frames), self.buffers, out, parts, SIZE=size, ROWS=128, BLOCK=block
        )
        return list(out.split(self.sizes, 1))


def packed(H: int, I: int, O: int) -> int:  # noqa: E741
    """Floats that `store_sums` writes."""
    return H * ((I + 4) // 4 * 4) + (H + 1) * ((O + 3) // 4 * 4)


def unpack(total: Tensor, H: int, I: int, O: int) -> tuple[Tensor, ...]:  # noqa: E741
    """Gradients of the first weights [·,H,I] and their bias [·,H], of the second weights [·,O,H] and their bias [·,O]."""
    first, second = total[..., : packed(H, I, O)].split([H * ((I + 4) // 4 * 4), (H + 1) * ((O + 3) // 4 * 4)], -1)
    first, second = first.unflatten(-1, (H, -1)), second.unflatten(-1, (H + 1, -1))[..., :O]
    return first[..., :I], first[..., I], second[..., :H, :].mT, second[..., H, :]


def over_frames(total: Tensor) -> Tensor:
    return total[0] if len(total) == 1 else total.sum(0)


def padded(width: int, room: int = 0) -> int:
    return max(16, triton.next_power_of_2(width + room))


@functools.cache
def in_pieces(hidden: int, stored: torch.dtype) -> list[Way]:
    """Ways to go through a layer of hidden units and the one past the last: all at once, or UNITS from the FIRST on. All pieces but
    the first ADD to the input's gradient."""
    whole = padded(hidden, 1)
    ways: list[Way] = [[{"UNITS": whole, "FIRST": None, "ADD": False, **LAUNCH[stored]}]]
    for some in (whole // pieces for pieces in PIECES):
        how = {**LAUNCH[stored], "UNITS": some, "num_warps": 4}
        ways.append([{**how, "FIRST": k, "ADD": k > 0} for k in range(0, hidden + 1, some)])
    return ways
