"""Sums over the Gaussians that hang on one triangle or vertex: gathers sorted by owner, so that the order of the additions, and
with it the gradient's last bit, is the same in every run."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor


@triton.jit
def _sums(
    three, four, weights, order, starts, out, N, ENTRIES, OWNERS, PER,
    FOUR: tl.constexpr, WEIGHTED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    owner, frame = tl.program_id(0), tl.program_id(1)
    person = frame // PER
    at = starts + person * (OWNERS + 1) + owner
    lo, hi = tl.load(at), tl.load(at + 1)
    a = tl.zeros((BLOCK,), tl.float32)
    b, c, d, e, f, g = a, a, a, a, a, a
    for start in range(lo, hi, BLOCK):
        i = start + tl.arange(0, BLOCK)
        there = i < hi
        entry = tl.load(order + person.to(tl.int64) * ENTRIES + i, mask=there, other=0)
        row = frame.to(tl.int64) * N + entry % N
        w = tl.load(weights + person.to(tl.int64) * ENTRIES + entry, mask=there, other=0.0) if WEIGHTED else 1.0
        a += w * tl.load(three + 3 * row, mask=there, other=0.0)
        b += w * tl.load(three + 3 * row + 1, mask=there, other=0.0)
        c += w * tl.load(three + 3 * row + 2, mask=there, other=0.0)
        if FOUR:
            d += w * tl.load(four + 4 * row, mask=there, other=0.0)
            e += w * tl.load(four + 4 * row + 1, mask=there, other=0.0)
            f += w * tl.load(four + 4 * row + 2, mask=there, other=0.0)
            g += w * tl.load(four + 4 * row + 3, mask=there, other=0.0)
    WIDTH: tl.constexpr = 7 if FOUR else 3
    to = out + (frame.to(tl.int64) * OWNERS + owner) * WIDTH
    tl.store(to, tl.sum(a, 0))
    tl.store(to + 1, tl.sum(b, 0))
    tl.store(to + 2, tl.sum(c, 0))
    if FOUR:
        tl.store(to + 3, tl.sum(d, 0))
        tl.store(to + 4, tl.sum(e, 0))
        tl.store(to + 5, tl.sum(f, 0))
        tl.store(to + 6, tl.sum(g, 0))


def segment_sums(
    owners: Int[Tensor, "B E"],
    count: int,
    three: Float[Tensor, "F N 3"],
    four: Float[Tensor, "F N 4"] | None = None,
    weights: Float[Tensor, "B E"] | None = None,
) -> Float[Tensor, "F count C"]:
    """Σ over the entries e that `count` owners own of weights_e · [three | four] of Gaussian e mod N, C = 3 or 7.

    F = B·k frames, identity-major. Sums are float32.
    """
    sorted_owners, order = owners.sort(dim=1, stable=True)
    every = torch.arange(count + 1, device=owners.device, dtype=owners.dtype).expand(len(owners), -1).contiguous()
    starts = torch.searchsorted(sorted_owners, every).int()
    frames, n, _ = three.shape
    out = torch.empty(frames, count, 3 if four is None else 7, device=three.device)
    _sums[count, frames](
        three, four, weights, order.int(), starts, out, n, owners.shape[1], count, frames // len(owners),
        four is not None, weights is not None, 32, num_warps=1,
    )  # fmt: skip
    return out
