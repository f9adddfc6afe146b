"""FLAME's blendshapes, pose correctives, kinematic chain and skinning (twin: `reference.flame_skinning`, PAPER §5): one launch for
one frame; of several frames the joints come first, in a launch of their own.

Floor: the directions, read once. 100 expression components and 36 correctives of 5,023 vertices in fp32 are 8.2 MB (2.7 µs
at 3 TB/s), with 300 shape components 26 MB (8.8 µs). A program owns BLOCK vertices and every program walks the chain of five
joints again, which is cheaper than a launch of its own. One frame: the loads are the kernel. Several frames: a matrix product
over the components, so that 32 frames read the directions once.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.fused.flame_skinning_backward import flame_gradients
from kernels.fused.kinematic_chain import compose, local, turn
from kernels.fused.launch import in_fp32, per_person, run_kernel
from kernels.layout import JOINTS, Flame, Skinned
from kernels.reference import check_coefficients

CORRECTIVES = 9 * (JOINTS - 1)
BLOCK, WARPS = {False: 16, True: 32}, 4
"""Vertices of a program, by whether it has several frames."""
CHUNK, AT_ONCE = 32, 64
"""Components read at a time, of vertices and of the joints of several frames."""


@triton.jit
def _correctives(pose, row, there, column):
    """Entries `column` (joint major, from the neck on) of R(θ) − I, for frames `row`."""
    joint, r, c = 1 + column // 9, column % 9 // 3, column % 3
    at = pose + row * 15 + 3 * joint
    x, y, z = (
        tl.load(at, mask=there, other=0.0),
        tl.load(at + 1, mask=there, other=0.0),
        tl.load(at + 2, mask=there, other=0.0),
    )
    s, h = turn(x, y, z)
    v_r, v_c = tl.where(r == 0, x, tl.where(r == 1, y, z)), tl.where(c == 0, x, tl.where(c == 1, y, z))
    d = 3 - r - c
    v_d = tl.where(d == 0, x, tl.where(d == 1, y, z))
    across = h * v_r * v_c + tl.where((c - r + 3) % 3 == 2, s, -s) * v_d
    return tl.where(r == c, h * (v_r * v_r - (x * x + y * y + z * z)), across)


@triton.jit
def _add(ax, ay, az, coefficients, directions, k, v, inside, W: tl.constexpr, MANY: tl.constexpr):
    """Components k of the blendshapes. MANY frames: [frames, v] += [frames, k] @ [k, v]; one: [k, v] += [k, 1] ⊙ [k, v]."""
    at = directions + k[:, None] * (3 * W) + v[None, :]
    x = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    y = tl.load(at + W, mask=inside, other=0.0).to(tl.float32)
    z = tl.load(at + 2 * W, mask=inside, other=0.0).to(tl.float32)
    if MANY:
        ax = tl.dot(coefficients, x, ax, input_precision="ieee")
        ay = tl.dot(coefficients, y, ay, input_precision="ieee")
        az = tl.dot(coefficients, z, az, input_precision="ieee")
    else:
        ax, ay, az = ax + coefficients * x, ay + coefficients * y, az + coefficients * z
    return ax, ay, az


@triton.jit
def _components(
    ax, ay, az, moved, coefficients, directions, joint_directions, frame, ok, v, W: tl.constexpr,
    COUNT: tl.constexpr, CHUNK: tl.constexpr, MANY: tl.constexpr,
):  # fmt: skip
    """The first COUNT components. Unrolled as far as it keeps enough loads in flight. One frame's `moved` [CHUNK,16], the joints,
    follows them, too."""
    UNROLL: tl.constexpr = 1 if MANY else 4
    column = tl.arange(0, 16)
    for start in range(0, COUNT, CHUNK * UNROLL):
        for i in tl.static_range(UNROLL):
            k = start + i * CHUNK + tl.arange(0, CHUNK)
            if MANY:
                at, inside = frame[:, None] * COUNT + k[None, :], ok[:, None] & (k < COUNT)[None, :]
            else:
                at, inside = k[:, None], (k < COUNT)[:, None]
            c = tl.load(coefficients + at, mask=inside, other=0.0)
            inside = (k < COUNT)[:, None]
            ax, ay, az = _add(ax, ay, az, c, directions, k, v, inside & (v < W)[None, :], W, MANY)
            if not MANY:
                at = joint_directions + k[:, None] * 15 + column[None, :]
                moved += c * tl.load(at, mask=inside & (column < 15)[None, :], other=0.0)
    return ax, ay, az, moved


@triton.jit
def _sum_of(moved, coefficients, joint_directions, COUNT: tl.constexpr, CHUNK: tl.constexpr):
    """moved [CHUNK,16] and what COUNT coefficients move the joints by, still to be summed."""
    column = tl.arange(0, 16)
    for start in tl.static_range(0, COUNT, CHUNK):
        k = start + tl.arange(0, CHUNK)
        c = tl.load(coefficients + k, mask=k < COUNT, other=0.0)[:, None]
        at, inside = joint_directions + k[:, None] * 15 + column[None, :], (k < COUNT)[:, None] & (column < 15)[None, :]
        moved += c * tl.load(at, mask=inside, other=0.0)
    return moved


@triton.jit
def _rest(
    expression, shape, joints, joint_shapes, joint_expressions, rest, PER, joints_step,
    S: tl.constexpr, E: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """A frame's joints at rest, which follow shape and expression."""
    frame, column = tl.program_id(0), tl.arange(0, 16)
    moved = tl.zeros((CHUNK, 16), tl.float32)
    if S > 0:
        moved = _sum_of(moved, shape + frame * S, joint_shapes, S, CHUNK)
    moved = _sum_of(moved, expression + frame * E, joint_expressions, E, CHUNK)
    own = tl.load(joints + frame // PER * joints_step + column, mask=column < 15, other=0.0)
    tl.store(rest + frame * 15 + column, own + tl.sum(moved, 0), mask=column < 15)


@triton.jit
def _four(x, y, z, w):
    """[F, V] each → [F, V, 4]."""
    both = tl.join(tl.join(x, z), tl.join(y, w))
    return tl.reshape(both, (x.shape[0], x.shape[1], 4))


@triton.jit
def _forward(
    expression, pose, shape, template, directions, weights, joints, joint_shapes, joint_expressions,
    posed, unposed, transforms, rest,
    F, PER, V, template_step, joints_step, W: tl.constexpr, N_SHAPE: tl.constexpr, N_CORRECTIVE: tl.constexpr,
    S: tl.constexpr, E: tl.constexpr, PARENTS: tl.constexpr, FRAMES: tl.constexpr, BLOCK: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """S, E: coefficients given. FRAMES: per program. Directions: N_SHAPE of shape, then expression's, correctives last. The joints
    at rest are read from `rest` where there are several frames, and written to it where there is one."""
    MANY: tl.constexpr = FRAMES > 1
    v = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    frame = tl.program_id(1) * FRAMES + tl.arange(0, FRAMES)
    seen, ok = v < V, frame < F
    ROWS: tl.constexpr = FRAMES if MANY else CHUNK
    ax, moved = tl.zeros((ROWS, BLOCK), tl.float32), tl.zeros((CHUNK, 16), tl.float32)
    ay, az = ax, ax
    if S > 0:
        ax, ay, az, moved = _components(
            ax, ay, az, moved, shape, directions, joint_shapes, frame, ok, v, W, S, CHUNK, MANY
        )
    if E > 0:
        after = directions + N_SHAPE * 3 * W
        ax, ay, az, moved = _components(
            ax, ay, az, moved, expression, after, joint_expressions, frame, ok, v, W, E, CHUNK, MANY
        )
    for k0 in tl.static_range(0, 36, CHUNK):
        k = k0 + tl.arange(0, CHUNK)
        inside = (k < 36)[:, None] & (v < W)[None, :]
        if MANY:
            c = _correctives(pose, frame[:, None], ok[:, None] & (k < 36)[None, :], k[None, :])
        else:
            c = _correctives(pose, frame, (k < 36)[:, None], k[:, None])
        ax, ay, az = _add(ax, ay, az, c, directions + N_CORRECTIVE * 3 * W, k, v, inside, W, MANY)
    if not MANY:
        ax, ay, az = tl.sum(ax, 0)[None, :], tl.sum(ay, 0)[None, :], tl.sum(az, 0)[None, :]
    person = frame // PER
    own = template + person[:, None] * template_step + 3 * v[None, :]
    both = ok[:, None] & seen[None, :]
    ax += tl.load(own, mask=both, other=0.0)
    ay += tl.load(own + 1, mask=both, other=0.0)
    az += tl.load(own + 2, mask=both, other=0.0)
    out = 4 * (frame[:, None].to(tl.int64) * V + v[None, :])
    four, where = out[:, :, None] + tl.arange(0, 4)[None, None, :], both[:, :, None]
    tl.store(unposed + four, _four(ax, ay, az, tl.zeros_like(ax)), mask=where)

    moved, columns = tl.sum(moved, 0)[None, :], tl.arange(0, 16)
    px, py, pz = tl.zeros_like(ax), tl.zeros_like(ax), tl.zeros_like(ax)
    chain = ()
    for j in tl.static_range(5):
        own = rest + frame * 15 + 3 * j if MANY else joints + person * joints_step + 3 * j
        jx, jy, jz = (
            tl.load(own, mask=ok, other=0.0),
            tl.load(own + 1, mask=ok, other=0.0),
            tl.load(own + 2, mask=ok, other=0.0),
        )
        if not MANY:
            jx += tl.sum(tl.where(columns[None, :] == 3 * j, moved, 0.0), 1)
            jy += tl.sum(tl.where(columns[None, :] == 3 * j + 1, moved, 0.0), 1)
            jz += tl.sum(tl.where(columns[None, :] == 3 * j + 2, moved, 0.0), 1)
        A = local(pose, frame, ok, jx, jy, jz, j)
        if PARENTS[j] >= 0:
            A = compose(chain[PARENTS[j]], A)
        chain = chain + (A,)  # noqa: RUF005
        w = tl.load(weights + v * 5 + j, mask=seen, other=0.0)[None, :]
        px += w * (A[0][:, None] * ax + A[1][:, None] * ay + A[2][:, None] * az + A[3][:, None])
        py += w * (A[4][:, None] * ax + A[5][:, None] * ay + A[6][:, None] * az + A[7][:, None])
        pz += w * (A[8][:, None] * ax + A[9][:, None] * ay + A[10][:, None] * az + A[11][:, None])
        if tl.program_id(0) == 0:
            to = transforms + (frame * 5 + j) * 16
            for e in tl.static_range(12):
                tl.store(to + e, A[e], mask=ok)
            for e in tl.static_range(4):
                tl.store(to + 12 + e, tl.zeros_like(jx) + (e == 3), mask=ok)
            if not MANY:
                to = rest + (frame * 5 + j) * 3
                tl.store(to, jx, mask=ok)
                tl.store(to + 1, jy, mask=ok)
                tl.store(to + 2, jz, mask=ok)
    tl.store(posed + four, _four(px, py, pz, tl.zeros_like(px)), mask=where)


def _skin(expression, pose, shape, flame: Flame) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Posed and unposed vertices, transforms, and the joints at rest, which the way back wants."""
    template, joints, directions = flame.template, flame.joints, flame.directions
    F, V = len(pose), template.shape[1]
    people, S, E = max(len(template), len(joints)), 0 if shape is None else shape.shape[1], expression.shape[1]
    posed, unposed = (torch.empty(F, V, 4, device=pose.device) for _ in range(2))
    transforms, rest = (torch.empty(F, JOINTS, *shape, device=pose.device) for shape in ((4, 4), (3,)))
    frames = 1 if F == 1 else 16 if F <= 16 or not S else 32
    block, per, joints_step = BLOCK[frames > 1], per_person(F, people), 3 * JOINTS if len(joints) > 1 else 0
    if frames > 1:  # in a launch of their own: as a product beside the vertices', 32 frames take half as long again
        run_kernel(
            _rest, (F,),
            expression, shape, joints, flame.joint_shapes, flame.joint_expressions, rest, per, joints_step, S, E, AT_ONCE,
            num_warps=1,
        )  # fmt: skip
    run_kernel(
        _forward, (triton.cdiv(V, block), triton.cdiv(F, frames)),
        expression, pose, shape, template, directions, flame.weights, joints, flame.joint_shapes,
        flame.joint_expressions, posed, unposed, transforms, rest, F, per, V,
        3 * V if len(template) > 1 else 0, joints_step, directions.shape[2],
        flame.n_shape, len(directions) - CORRECTIVES, S, E, flame.parents,
        frames, block, CHUNK, num_warps=WARPS, num_stages=3,
    )  # fmt: skip
    return posed, unposed, transforms, rest


class _Skinning(torch.autograd.Function):
    @staticmethod
    def forward(ctx, expression, pose, shape, template, joints, flame: Flame):
        posed, unposed, transforms, rest = _skin(expression, pose, shape, flame)
        ctx.save_for_backward(pose, unposed, transforms, rest)
        ctx.flame, ctx.given = flame, (expression.shape[1], 0 if shape is None else shape.shape[1])
        ctx.set_materialize_grads(False)
        return posed[..., :3], unposed[..., :3], transforms

    @staticmethod
    def backward(ctx, *d_out):
        return *flame_gradients(ctx.saved_tensors, ctx.flame, ctx.given, ctx.needs_input_grad[3:5], *d_out), None


def flame_skinning(expression: Tensor, pose: Tensor, flame: Flame, shape: Tensor | None = None) -> Skinned:
    """`reference.flame_skinning`, fused. Vertices come in rows of four floats, [F,V,4][..., :3], for aligned reads.

    Gradients reach coefficients, pose, template and joints. The model's own tensors are constants: ValueError if one of them
    wants a gradient.
    """
    check_coefficients(expression, flame, shape)
    in_fp32(expression, pose, flame.template, flame.joints)
    if any(t.requires_grad for t in (flame.directions, flame.weights, flame.joint_shapes, flame.joint_expressions)):
        raise ValueError(
            "the kernel takes a head's directions and weights as constants; use kernels.reference to fit them"
        )
    flame = flame._replace(**{k: getattr(flame, k).contiguous() for k in flame._fields if k != "parents"})
    given = [t if t is None else t.contiguous() for t in (expression, pose, shape)]
    if torch.is_grad_enabled():
        return Skinned(*_Skinning.apply(*given, flame.template, flame.joints, flame))
    posed, unposed, transforms, _ = _skin(*given, flame)
    return Skinned(posed[..., :3], unposed[..., :3], transforms)
