"""Sums over the Gaussians that hang on a vertex, the same bits in every run: by atomic additions of integers, whose order does
not matter.

A number becomes an integer in units of at most 2^(b − 61) of its frame's largest magnitude m, b the bits of the number of entries:
no sum can overflow, and that of n entries is wrong by less than n units. Below 2^20 entries (N = 196,608 with up to five each)
these are n m 2^−41, less than fp32's rounding of m itself, m 2^−25, up to n = 2^16. A frame whose gradients are not finite gives
NaN everywhere.

Cost, of any owners (a new identity in every step costs what an old one does): per entry one reduction of 32 bytes in L2, and two
small launches. Sorting the owners first costs a dozen launches and several passes over them, which only a cache would save, and
that only where identities come back.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from kernels.fused.launch import run_kernel

BLOCK, WARPS = 128, 4


@triton.jit
def _bits(x):
    return tl.abs(x).to(tl.int32, bitcast=True)


@triton.jit
def largest(x, y, z):
    """Bits of the magnitudes' maximum: those of floats ≥ 0 are in the floats' order, NaN above all."""
    return tl.maximum(tl.maximum(_bits(x), _bits(y)), _bits(z))


@triton.jit
def raise_to(most, bits):
    """Raises a frame's largest magnitude to that of a tile."""
    tl.atomic_max(most, tl.max(bits, 0).to(tl.int64), sem="relaxed")


@triton.jit
def _unit(most, BITS: tl.constexpr):
    """The power of two 2^BITS of which are more than the largest magnitude, and its inverse. In fp64, which has them for all."""
    exponent = (tl.load(most) >> 23) - 126 - BITS
    unit, per_unit = (1023 + exponent) << 52, (1023 - exponent) << 52
    return unit.to(tl.float64, bitcast=True), per_unit.to(tl.float64, bitcast=True)


@triton.jit
def _add(
    rows, owners, weights, sums, most, N, COUNT, PER, ENTRIES: tl.constexpr, OWN: tl.constexpr, BITS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """OWN: every entry of a Gaussian has a row of its own."""
    n, entry, frame = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.program_id(1), tl.program_id(2).to(tl.int64)
    column = tl.arange(0, 4)[None, :]
    there = n < N
    of = (frame // PER * ENTRIES + entry) * N + n
    row = ((frame * ENTRIES + entry) * N if OWN else frame * N) + n
    both = there[:, None] & (column < 3)
    x = tl.load(rows + 3 * row[:, None] + column, mask=both, other=0.0)
    if weights is not None:
        x *= tl.load(weights + of, mask=there, other=0.0)[:, None]
    _, per_unit = _unit(most + frame, BITS)
    owner = frame * COUNT + tl.load(owners + of, mask=there, other=0)
    units = (x.to(tl.float64) * per_unit).to(tl.int64)
    tl.atomic_add(sums + 4 * owner[:, None] + column, units, mask=both, sem="relaxed")


@triton.jit
def _finish(sums, most, out, COUNT, BITS: tl.constexpr, BLOCK: tl.constexpr):
    frame = tl.program_id(1).to(tl.int64)
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = i < 3 * COUNT
    unit, _ = _unit(most + frame, BITS)
    sum = tl.load(sums + 4 * (frame * COUNT + i // 3) + i % 3, mask=there, other=0).to(tl.float64) * unit
    finite = tl.load(most + frame) < 0x7F800000
    tl.store(out + 3 * frame * COUNT + i, tl.where(finite, sum.to(tl.float32), float("nan")), mask=there)


def zeros(frames: int, count: int, device: torch.device) -> tuple[Int[Tensor, "F count 4"], Int[Tensor, " F"]]:
    """What `segment_sums` adds to, and every frame's largest magnitude, to be raised by the kernel that writes the rows."""
    both = torch.zeros(frames * (4 * count + 1), dtype=torch.int64, device=device)
    return both[frames:].view(frames, count, 4), both[:frames]


def segment_sums(
    rows: Float[Tensor, "F own N 3"],
    owners: Int[Tensor, "B k N"],
    weights: Float[Tensor, "B k N"] | None,
    sums: Int[Tensor, "F count 4"],
    most: Int[Tensor, " F"],
) -> Float[Tensor, "F count 3"]:
    """Σ of weights · rows over the entries that each of `count` owners owns, of F = B·k frames, identity-major.

    rows: of every entry, or [F,1,N,3], the same for a Gaussian's entries. most: bits of the largest magnitude of weights · rows.
    """
    (frames, own, n, _), k, count = rows.shape, owners.shape[1], sums.shape[1]
    bits = 62 - (k * n).bit_length()
    run_kernel(
        _add, (triton.cdiv(n, BLOCK), k, frames),
        rows, owners, weights, sums, most, n, count, frames // len(owners), k, own == k, bits, BLOCK, num_warps=WARPS
    )  # fmt: skip
    out = torch.empty(frames, count, 3, device=rows.device)
    run_kernel(_finish, (triton.cdiv(3 * count, BLOCK), frames), sums, most, out, count, bits, BLOCK, num_warps=WARPS)
    return out
