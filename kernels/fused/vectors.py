"""Rows of three and four floats (positions, quaternions, vertices) as vectors in registers, and quaternions' product."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def rows(base, index):
    """Rows of four floats as four vectors: one aligned 16-byte read each."""
    four = tl.load(base + index[:, None] * 4 + tl.arange(0, 4)[None, :])
    even, odd = tl.split(tl.reshape(four, (index.shape[0], 2, 2)))
    x, z = tl.split(even)
    y, w = tl.split(odd)
    return x, y, z, w


@triton.jit
def put(base, index, there, x, y, z, w, WIDTH: tl.constexpr):
    """The first WIDTH of four vectors as rows of WIDTH floats. Rows across a warp, for full sectors."""
    column = tl.arange(0, 4)[None, :]
    four = tl.reshape(tl.join(tl.join(x, z), tl.join(y, w)), (index.shape[0], 4))
    mask = there[:, None] & (column < WIDTH) if WIDTH < 4 else there[:, None]
    tl.store(base + index[:, None] * WIDTH + column, four, mask=mask)


@triton.jit
def multiply(a, b, c, d, w, x, y, z):
    """Quaternions' product: (a b c d) (w x y z)."""
    return (
        a * w - b * x - c * y - d * z,
        a * x + b * w + c * z - d * y,
        a * y - b * z + c * w + d * x,
        a * z + b * y - c * x + d * w,
    )


def in_fours(vertices: Tensor) -> Tensor:
    """The same vertices in rows of four floats: as `flame_skinning` gives them, or copied."""
    frames, count, _ = vertices.shape
    enough = vertices.untyped_storage().nbytes() >= 4 * (vertices.storage_offset() + 4 * frames * count)
    if vertices.stride() == (4 * count, 4, 1) and enough and vertices.data_ptr() % 16 == 0:
        return vertices
    return torch.nn.functional.pad(vertices, (0, 1))[..., :3]


@triton.jit
def dot(u, v):
    return u[0] * v[0] + u[1] * v[1] + u[2] * v[2]
