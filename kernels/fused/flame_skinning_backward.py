"""Back through FLAME's skinning: vertices in Triton, the few numbers per frame (chain, coefficients) in torch."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.reference import JOINTS, Flame, joint_transforms

BLOCK = 256


@triton.jit
def _backward(
    d_posed, d_unposed, unposed, transforms, weights, d_rest, d_transforms, V, W, P, BLOCK: tl.constexpr
):  # fmt: skip
    """Per frame and vertex: gradient before skinning, [F,3,W], and this program's part of the transforms', [F,P,5,12]."""
    v, frame = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.program_id(1).to(tl.int64)
    seen = v < V
    at = 3 * (frame * V + v)
    gx, gy, gz = (
        tl.load(d_posed + at, mask=seen, other=0.0),
        tl.load(d_posed + at + 1, mask=seen, other=0.0),
        tl.load(d_posed + at + 2, mask=seen, other=0.0),
    )
    rx, ry, rz = (
        tl.load(d_unposed + at, mask=seen, other=0.0),
        tl.load(d_unposed + at + 1, mask=seen, other=0.0),
        tl.load(d_unposed + at + 2, mask=seen, other=0.0),
    )
    own = 4 * (frame * V + v)
    x, y, z = (
        tl.load(unposed + own, mask=seen, other=0.0),
        tl.load(unposed + own + 1, mask=seen, other=0.0),
        tl.load(unposed + own + 2, mask=seen, other=0.0),
    )
    for j in tl.static_range(5):
        w = tl.load(weights + v * 5 + j, mask=seen, other=0.0)
        A, to = transforms + (frame * 5 + j) * 16, d_transforms + ((frame * P + tl.program_id(0)) * 5 + j) * 12
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
    saved: tuple[Tensor | None, ...], flame: Flame, d_posed: Tensor, d_unposed: Tensor, d_transforms: Tensor
) -> tuple[Tensor | None, ...]:
    """Gradients of expression, pose, shape, template and joints, by what the forward pass saved of them, of the unposed vertices
    and of the transforms."""
    expression, pose, shape, template, joints, unposed, transforms = saved
    F, V = unposed.shape[:2]
    W, S, E = flame.directions.shape[2], 0 if shape is None else shape.shape[1], expression.shape[1]
    P = triton.cdiv(W, BLOCK)
    d_rest = torch.empty(F, 3, W, device=pose.device)
    parts = torch.empty(F, P, JOINTS, 3, 4, device=pose.device)
    _backward[P, F](
        d_posed.contiguous(), d_unposed.contiguous(), unposed, transforms, flame.weights, d_rest, parts,
        V, W, P, BLOCK,
    )  # fmt: skip
    d_coefficients = d_rest.flatten(1) @ flame.directions.flatten(1).T.float()
    d_template = d_rest[:, :, :V].unflatten(0, (len(template), -1)).sum(1).mT
    d_transforms = torch.nn.functional.pad(parts.sum(1), (0, 0, 0, 1)) + d_transforms
    with torch.enable_grad():  # the chain again: a few numbers per frame
        small = [t if t is None else t.detach().requires_grad_() for t in (pose, joints, shape)]
        at = small[1].repeat_interleave(F // len(joints), 0)
        if shape is not None:
            at = at + torch.einsum("fk,kjc->fjc", small[2], flame.joint_shapes[:S])
        out = joint_transforms(small[0], at, flame.parents)
        d_pose, d_joints, *d_shape = torch.autograd.grad(
            out, [t for t in small if t is not None], (d_transforms, d_coefficients[:, -36:])
        )
    d_expression = d_coefficients[:, flame.n_shape : flame.n_shape + E]
    d_shape = d_shape[0] + d_coefficients[:, :S] if shape is not None else None
    return d_expression, d_pose, d_shape, d_template, d_joints
