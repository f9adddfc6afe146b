"""FLAME's kinematic chain and back (twin: `reference.joint_transforms`): affine maps as twelve numbers, row by row."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def turn(x, y, z):
    """sin φ/φ and (1 − cos φ)/φ² of the axis-angle vector's length φ. Both are invariant under φ/2 → φ/2 + π, so that φ/2 is
    brought within ±π/2, where Taylor's polynomials of degree 13 and 14 are exact in fp32."""
    square = x * x + y * y + z * z + 1e-16
    inverse = tl.rsqrt(square)
    angle = square * inverse
    angle += 0.5 * inverse * (square - angle * angle)  # Newton's step: the instruction alone is good to 22 bits
    inverse += inverse * (1 - angle * inverse)
    half = 0.5 * angle
    turns = tl.floor(half * 0.3183098861837907 + 0.5)
    r = half - turns * 3.140625
    r = r - turns * 9.676535897932795e-4
    q = r * r
    s = 1.6059043836821613e-10
    s = s * q - 2.505210838544172e-08
    s = s * q + 2.7557319223985893e-06
    s = s * q - 1.984126984126984e-04
    s = s * q + 8.333333333333333e-03
    s = s * q - 1.6666666666666666e-01
    s = r + r * (q * s)
    c = -1.1470745597729725e-11
    c = c * q + 2.08767569878681e-09
    c = c * q - 2.755731922398589e-07
    c = c * q + 2.48015873015873e-05
    c = c * q - 1.388888888888889e-03
    c = c * q + 4.1666666666666664e-02
    c = 1 + q * (c * q - 0.5)
    u = s * inverse
    return 2 * u * c, 2 * u * u


@triton.jit
def local(pose, frame, ok, jx, jy, jz, j: tl.constexpr):
    """Joint j's rotation about its rest position: nine entries and the shift."""
    at = pose + frame * 15 + 3 * j
    x, y, z = tl.load(at, mask=ok, other=0.0), tl.load(at + 1, mask=ok, other=0.0), tl.load(at + 2, mask=ok, other=0.0)
    s, h = turn(x, y, z)
    a, b, c = 1 - h * (y * y + z * z), h * x * y - s * z, h * x * z + s * y
    d, e, f = h * x * y + s * z, 1 - h * (x * x + z * z), h * y * z - s * x
    g, i, k = h * x * z - s * y, h * y * z + s * x, 1 - h * (x * x + y * y)
    return (
        a, b, c, jx - (a * jx + b * jy + c * jz),
        d, e, f, jy - (d * jx + e * jy + f * jz),
        g, i, k, jz - (g * jx + i * jy + k * jz),
    )  # fmt: skip


@triton.jit
def compose(p, q):
    """Affine maps of twelve entries, row by row: first q, then p."""
    return (
        p[0] * q[0] + p[1] * q[4] + p[2] * q[8], p[0] * q[1] + p[1] * q[5] + p[2] * q[9],
        p[0] * q[2] + p[1] * q[6] + p[2] * q[10], p[0] * q[3] + p[1] * q[7] + p[2] * q[11] + p[3],
        p[4] * q[0] + p[5] * q[4] + p[6] * q[8], p[4] * q[1] + p[5] * q[5] + p[6] * q[9],
        p[4] * q[2] + p[5] * q[6] + p[6] * q[10], p[4] * q[3] + p[5] * q[7] + p[6] * q[11] + p[7],
        p[8] * q[0] + p[9] * q[4] + p[10] * q[8], p[8] * q[1] + p[9] * q[5] + p[10] * q[9],
        p[8] * q[2] + p[9] * q[6] + p[10] * q[10], p[8] * q[3] + p[9] * q[7] + p[10] * q[11] + p[11],
    )  # fmt: skip


@triton.jit
def _slopes(square, s, h):
    """s′/φ = (cos φ − s)/φ² and h′/φ = (s − 2h)/φ² by φ², s = sin φ/φ and h = (1 − cos φ)/φ². Below φ = 2, where the numerators
    cancel, by their series: eight terms are exact in fp32."""
    a = 4.498331606952833e-14
    a = a * square - 1.0706029224547743e-11
    a = a * square + 1.9270852604185937e-09
    a = a * square - 2.505210838544172e-07
    a = a * square + 2.2045855379188714e-05
    a = a * square - 0.0011904761904761906
    a = a * square + 0.03333333333333333
    a = a * square - 0.3333333333333333
    b = 2.499073114973796e-15
    b = b * square - 6.691268265342339e-13
    b = b * square + 1.376489471727567e-10
    b = b * square - 2.08767569878681e-08
    b = b * square + 2.204585537918871e-06
    b = b * square - 0.00014880952380952382
    b = b * square + 0.005555555555555556
    b = b * square - 0.08333333333333333
    small = square < 4
    over = 1 / square
    return tl.where(small, a, (1 - h * square - s) * over), tl.where(small, b, (s - 2 * h) * over)


@triton.jit
def _turn_back(x, y, z, M):
    """Gradient of v by that of R = 1 + s [v] + h [v]² (nine entries): with ⟨M,[v]⟩ = a·v and ⟨M,[v]²⟩ = vᵀMv − v² tr M,
    s a + h ((M + Mᵀ) v − 2 v tr M) + v (a·v s′/φ + ⟨M,[v]²⟩ h′/φ)."""
    s, h = turn(x, y, z)
    square = x * x + y * y + z * z
    s1, h1 = _slopes(square + 1e-16, s, h)
    a, b, c = M[7] - M[5], M[2] - M[6], M[3] - M[1]
    # (M + Mᵀ) v − 2 v tr M, without the diagonal's cancelling terms
    u = (M[1] + M[3]) * y + (M[2] + M[6]) * z - 2 * (M[4] + M[8]) * x
    v = (M[1] + M[3]) * x + (M[5] + M[7]) * z - 2 * (M[0] + M[8]) * y
    w = (M[2] + M[6]) * x + (M[5] + M[7]) * y - 2 * (M[0] + M[4]) * z
    along = s1 * (a * x + b * y + c * z) + h1 * 0.5 * (u * x + v * y + w * z)
    return s * a + h * u + along * x, s * b + h * v + along * y, s * c + h * w + along * z


@triton.jit
def _compose_back(p, q, g):
    """Gradients of p and of q by that of `compose(p, q)`."""
    return (
        g[0] * q[0] + g[1] * q[1] + g[2] * q[2] + g[3] * q[3], g[0] * q[4] + g[1] * q[5] + g[2] * q[6] + g[3] * q[7],
        g[0] * q[8] + g[1] * q[9] + g[2] * q[10] + g[3] * q[11], g[3],
        g[4] * q[0] + g[5] * q[1] + g[6] * q[2] + g[7] * q[3], g[4] * q[4] + g[5] * q[5] + g[6] * q[6] + g[7] * q[7],
        g[4] * q[8] + g[5] * q[9] + g[6] * q[10] + g[7] * q[11], g[7],
        g[8] * q[0] + g[9] * q[1] + g[10] * q[2] + g[11] * q[3], g[8] * q[4] + g[9] * q[5] + g[10] * q[6] + g[11] * q[7],
        g[8] * q[8] + g[9] * q[9] + g[10] * q[10] + g[11] * q[11], g[11],
    ), (
        p[0] * g[0] + p[4] * g[4] + p[8] * g[8], p[0] * g[1] + p[4] * g[5] + p[8] * g[9],
        p[0] * g[2] + p[4] * g[6] + p[8] * g[10], p[0] * g[3] + p[4] * g[7] + p[8] * g[11],
        p[1] * g[0] + p[5] * g[4] + p[9] * g[8], p[1] * g[1] + p[5] * g[5] + p[9] * g[9],
        p[1] * g[2] + p[5] * g[6] + p[9] * g[10], p[1] * g[3] + p[5] * g[7] + p[9] * g[11],
        p[2] * g[0] + p[6] * g[4] + p[10] * g[8], p[2] * g[1] + p[6] * g[5] + p[10] * g[9],
        p[2] * g[2] + p[6] * g[6] + p[10] * g[10], p[2] * g[3] + p[6] * g[7] + p[10] * g[11],
    )  # fmt: skip


@triton.jit
def _sum(p, q):
    return (
        p[0] + q[0], p[1] + q[1], p[2] + q[2], p[3] + q[3], p[4] + q[4], p[5] + q[5],
        p[6] + q[6], p[7] + q[7], p[8] + q[8], p[9] + q[9], p[10] + q[10], p[11] + q[11],
    )  # fmt: skip


@triton.jit
def _follow(moves, joint_directions, given, out, COUNT: tl.constexpr, CHUNK: tl.constexpr):
    """COUNT coefficients' gradients: what is `given` of the vertices, and that of the joints, which follow them."""
    for start in tl.static_range(0, COUNT, CHUNK):
        k = start + tl.arange(0, CHUNK)
        d = tl.load(given + k, mask=k < COUNT, other=0.0)
        for i in tl.static_range(5):
            for c in tl.static_range(3):
                d += moves[4 - i][c] * tl.load(joint_directions + k * 15 + 3 * i + c, mask=k < COUNT, other=0.0)
        tl.store(out + k, d, mask=k < COUNT)


@triton.jit
def chain_back(
    pose, rest, transforms, parts, d_transforms, d_coefficients, joint_shapes, joint_expressions,
    d_pose, d_rest, d_shape, d_expression, P, K, AFTER,
    PARENTS: tl.constexpr, MOST: tl.constexpr, S: tl.constexpr, E: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """A frame's gradients of pose, rest joints, shape and expression, by `parts` [F,P,5,12] and d_transforms (or None) of its
    transforms and by d_coefficients [F,K] of the unposed vertices: shape's S first, expression's E from AFTER on, and, last of
    all, the 36 correctives. MOST ≥ P, a power of two.

    A_j = A_parent L_j, L_j = [R_j | t_j − R_j t_j]: from the last joint, children before their parents."""
    frame = tl.program_id(0).to(tl.int64)
    part = tl.arange(0, MOST)
    ups, moves = (), ()  # of joints 4 … 0: what goes to the parent's transform; the rest position's gradient
    for i in tl.static_range(5):
        own = ()
        for e in tl.static_range(12):
            at = parts + ((frame * P + part) * 5 + 4 - i) * 12 + e
            g = tl.sum(tl.load(at, mask=part < P, other=0.0), 0)
            if d_transforms is not None:
                g += tl.load(d_transforms + (frame * 5 + 4 - i) * 16 + e)
            own = own + (g,)  # noqa: RUF005
        for c in tl.static_range(i):
            if PARENTS[4 - c] == 4 - i:
                own = _sum(own, ups[c])
        joint = rest + frame * 15 + 3 * (4 - i)
        tx, ty, tz = tl.load(joint), tl.load(joint + 1), tl.load(joint + 2)
        L = local(pose, frame, True, tx, ty, tz, 4 - i)
        g, up = own, own
        if PARENTS[4 - i] >= 0:
            A = ()
            for e in tl.static_range(12):
                A = A + (tl.load(transforms + (frame * 5 + PARENTS[4 - i]) * 16 + e),)  # noqa: RUF005
            up, g = _compose_back(A, L, own)
        ups = ups + (up,)  # noqa: RUF005
        move = (
            g[3] - (L[0] * g[3] + L[4] * g[7] + L[8] * g[11]),
            g[7] - (L[1] * g[3] + L[5] * g[7] + L[9] * g[11]),
            g[11] - (L[2] * g[3] + L[6] * g[7] + L[10] * g[11]),
        )
        M = (
            g[0] - g[3] * tx, g[1] - g[3] * ty, g[2] - g[3] * tz, g[4] - g[7] * tx, g[5] - g[7] * ty, g[6] - g[7] * tz,
            g[8] - g[11] * tx, g[9] - g[11] * ty, g[10] - g[11] * tz,
        )  # fmt: skip
        if i < 4:
            d = d_coefficients + frame * K + K - 36 + 9 * (3 - i)
            M = (
                M[0] + tl.load(d), M[1] + tl.load(d + 1), M[2] + tl.load(d + 2), M[3] + tl.load(d + 3), M[4] + tl.load(d + 4),
                M[5] + tl.load(d + 5), M[6] + tl.load(d + 6), M[7] + tl.load(d + 7), M[8] + tl.load(d + 8),
            )  # fmt: skip
        v = pose + frame * 15 + 3 * (4 - i)
        dx, dy, dz = _turn_back(tl.load(v), tl.load(v + 1), tl.load(v + 2), M)
        to = frame * 15 + 3 * (4 - i)
        tl.store(d_pose + to, dx)
        tl.store(d_pose + to + 1, dy)
        tl.store(d_pose + to + 2, dz)
        for c in tl.static_range(3):
            tl.store(d_rest + to + c, move[c])
        moves = moves + (move,)  # noqa: RUF005
    if S > 0:
        _follow(moves, joint_shapes, d_coefficients + frame * K, d_shape + frame * S, S, CHUNK)
    _follow(moves, joint_expressions, d_coefficients + frame * K + AFTER, d_expression + frame * E, E, CHUNK)
