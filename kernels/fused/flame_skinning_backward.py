"""Back through FLAME's skinning in three launches: the vertices, the product with the directions, the chain.

Floor: the directions that have coefficients, read once more."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.fused.kinematic_chain import chain_back
from kernels.fused.launch import run_kernel
from kernels.layout import JOINTS, Flame

BLOCK = 128
"""Vertices of a program, one warp: its 60 sums then need no barrier."""
CHUNK = 128
"""Coefficients at a time."""


@triton.jit
def _three(base, at, seen):
    """Zeros of a gradient that there is none of."""
    x = tl.zeros(at.shape, tl.float32)
    y, z = x, x
    if base is not None:
        x = tl.load(base + at, mask=seen, other=0.0)
        y = tl.load(base + at + 1, mask=seen, other=0.0)
        z = tl.load(base + at + 2, mask=seen, other=0.0)
    return x, y, z


@triton.jit
def _backward(
    d_posed, d_unposed, unposed, transforms, weights, d_rest, parts, V, W, P, BLOCK: tl.constexpr
):  # fmt: skip
    """Per frame and vertex: gradient before skinning, [F,3,W], and this program's part of the transforms', [F,P,5,12]."""
    v, frame = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.program_id(1).to(tl.int64)
    seen = v < V
    at = 3 * (frame * V + v)
    gx, gy, gz = _three(d_posed, at, seen)
    rx, ry, rz = _three(d_unposed, at, seen)
    own = 4 * (frame * V + v)
    x, y, z = (
        tl.load(unposed + own, mask=seen, other=0.0),
        tl.load(unposed + own + 1, mask=seen, other=0.0),
        tl.load(unposed + own + 2, mask=seen, other=0.0),
    )
    for j in tl.static_range(5):
        w = tl.load(weights + v * 5 + j, mask=seen, other=0.0)
        A, to = transforms + (frame * 5 + j) * 16, parts + ((frame * P + tl.program_id(0)) * 5 + j) * 12
        for c in tl.static_range(3):
            g = w * (gx if c == 0 else gy if c == 1 else gz)
            rx += tl.load(A + 4 * c) * g
            ry += tl.load(A + 4 * c + 1) * g
            rz += tl.load(A + 4 * c + 2) * g
            tl.store(to + 4 * c, tl.sum(g * x, 0))
            tl.store(to + 4 * c + 1, tl.sum(g * y, 0))
            tl.store(to + 4 * c + 2, tl.sum(g * z, 0))
            tl.store(to + 4 * c + 3, tl.sum(g, 0))
    to, row = d_rest + 3 * frame * W + v, v < W  # what pads a row is zero
    tl.store(to, rx, mask=row)
    tl.store(to + W, ry, mask=row)
    tl.store(to + 2 * W, rz, mask=row)


def flame_gradients(
    saved: tuple[Tensor, ...], flame: Flame, given: tuple[int, int], wanted: tuple[bool, bool],
    d_posed: Tensor | None, d_unposed: Tensor | None, d_transforms: Tensor | None,
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """Gradients of expression, pose, shape, template and joints (the last two where `wanted`), of `given` coefficients of
    expression and shape, by what the forward pass saved and the gradients of its outputs."""
    pose, unposed, transforms, rest = saved
    (F, V), W, (E, S) = unposed.shape[:2], flame.directions.shape[2], given
    d_posed, d_unposed, d_transforms = (t if t is None else t.contiguous() for t in (d_posed, d_unposed, d_transforms))
    P = triton.cdiv(W, BLOCK)
    d_rest = torch.empty(F, 3, W, device=pose.device)
    parts = torch.empty(F, P, JOINTS, 3, 4, device=pose.device)
    run_kernel(
        _backward, (P, F),
        d_posed, d_unposed, unposed, transforms, flame.weights, d_rest, parts, V, W, P, BLOCK, num_warps=1
    )  # fmt: skip
    first = 0 if S else flame.n_shape  # whole rows from here on: read where they lie, not copied
    d_coefficients = d_rest.flatten(1) @ flame.directions[first:].flatten(1).T.float()
    d_pose, d_joints = torch.empty_like(pose), torch.empty_like(rest)
    d_shape, d_expression = torch.empty(F, S, device=pose.device) if S else None, torch.empty(F, E, device=pose.device)
    run_kernel(
        chain_back, (F,),
        pose, rest, transforms, parts, d_transforms, d_coefficients, flame.joint_shapes, flame.joint_expressions,
        d_pose, d_joints, d_shape, d_expression, P, d_coefficients.shape[1], flame.n_shape - first, flame.parents,
        triton.next_power_of_2(P), S, E, CHUNK, num_warps=1,
    )  # fmt: skip
    d_template = _by_person(d_rest[:, :, :V].mT, len(flame.template)) if wanted[0] else None
    d_joints = _by_person(d_joints, len(flame.joints)) if wanted[1] else None
    return d_expression, d_pose, d_shape, d_template, d_joints


def _by_person(x: Tensor, people: int) -> Tensor:
    """Sums over each person's frames."""
    return x if len(x) == people else x.unflatten(0, (people, -1)).sum(1)
