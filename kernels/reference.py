"""Plain torch twins of the kernels: what each of them computes, in as few operations as torch allows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.layout import (
    COLOR_HEIGHT,
    COLOR_OFFSET,
    JOINTS,
    LAYOUT,
    MAX_SCALE,
    RAW,
    Attributes,
    Binding,
    Bound,
    Flame,
    Layers,
    Moved,
    Parts,
    Phi,
    Psi,
    Skinned,
)


def activate(raw: Float[Tensor, "B N 14"]) -> Attributes:
    """The paper's activations. Opacity is 1 − exp(−softplus(raw − 1)) = sigmoid(raw − 1), written so."""
    position, scale, quaternion, opacity, color = raw.split(list(LAYOUT.values()), -1)
    return Attributes(
        means=torch.tanh(position),
        quats=quaternion,
        scales=MAX_SCALE * torch.sigmoid(scale),
        opacities=torch.sigmoid(opacity[..., 0] - 1),
        colors=COLOR_HEIGHT * torch.sigmoid(color) + COLOR_OFFSET,
    )


def decode(f: Float[Tensor, "B N D"], phi: Phi, prior: Float[Tensor, "*B N 14"]) -> Attributes:
    """Φ (PAPER §1): features → Gaussians, computed in the features' type. `prior` is added before the activations, in its own."""
    w1, b1, w2, b2 = (t.to(f.dtype) for t in phi)
    return activate(F.linear(F.softplus(F.linear(f, w1, b1)), w2, b2) + _per_frame(prior, len(f)))


def local_fusion(
    basis: Float[Tensor, "B N M"],
    gain: Float[Tensor, "F M"],
    bias: Float[Tensor, "F H"],
    f: Float[Tensor, "B N D"],
    psi: Psi,
    phi: Phi,
    prior: Float[Tensor, "*B N 14"],
) -> tuple[Attributes, Float[Tensor, "F N D"]]:
    """Ψ and Φ over all Gaussians of F = B·k frames, identity-major (PAPER §1, "Local fusion"):

        δf_i = w2 softplus(w1 (basis_i ⊙ gain) + bias) + b2,   attributes of i = Φ(f_i + δf_i).

    basis and f belong to the identity and say in which type all is computed, gain and bias belong to the frame.
    Returns the Gaussians and δf.
    """
    frames = len(gain)
    w1, w2, b2, gain, bias = (t.to(f.dtype) for t in (*psi, gain, bias))
    folded = w1 * gain[:, None]  # [F,H,M]: keeps [F,N,M] out of memory
    hidden = torch.baddbmm(bias[:, None], _per_frame(basis, frames), folded.transpose(1, 2))
    delta = F.linear(F.softplus(hidden), w2, b2)
    return decode(_per_frame(f, frames) + delta, phi, prior), delta


def cross_attention(
    x0: Float[Tensor, "B N D"],
    keys: Float[Tensor, "F L A T D"],
    score: Float[Tensor, "F L A T"],
    values: Float[Tensor, "F L A T D"],
    f: Float[Tensor, "B N D"],
    layers: Layers,
    phi: Phi,
    prior: Float[Tensor, "*B N 14"],
) -> tuple[Attributes, Float[Tensor, "F N D"]]:
    """Each Gaussian attends to T tokens in L pre-norm layers of A heads, then Φ (PAPER §4), over F = B·k frames, identity-major:

        x ← x + Σ_a softmax_t(LN(x)·keys_at + score_at) values_at + o     LN without affine, here and below
        x ← x + w2 softplus(w1 LN(x) + b1) + b2                           in each layer, from x = x0_i
        δf_i = out x + c,   attributes of i = Φ(f_i + δf_i).

    What is linear is folded: keys hold LN's gain, W_q W_k and 1/√d, score what is left of LN's and W_q's bias, values W_o W_v
    (W_k's bias is the same for all tokens, which a softmax does not see). x0 and f belong to the identity and say in which type
    all is computed, keys, score and values belong to the frame. Returns the Gaussians and δf.
    """
    frames, D, (heads, tokens) = len(keys), x0.shape[-1], keys.shape[2:4]
    keys, score, values = (t.to(f.dtype) for t in (keys, score, values))
    o, w1, b1, w2, b2, out, c = (t.to(f.dtype) for t in layers)
    x = _per_frame(x0, frames)
    for l in range(len(o)):  # noqa: E741
        logits = torch.baddbmm(score[:, l].reshape(frames, 1, -1), F.layer_norm(x, (D,)), keys[:, l].flatten(1, 2).mT)
        weights = logits.unflatten(-1, (heads, tokens)).softmax(-1).flatten(-2)
        x = x + torch.baddbmm(o[l], weights, values[:, l].flatten(1, 2))
        x = x + F.linear(F.softplus(F.linear(F.layer_norm(x, (D,)), w1[l], b1[l])), w2[l], b2[l])
    delta = F.linear(x, out, c)
    return decode(_per_frame(f, frames) + delta, phi, prior), delta


def _per_frame(x: Tensor, frames: int) -> Tensor:
    """[B,…] → [F,…], each identity's rows repeated for its frames."""
    return x.repeat_interleave(frames // len(x), 0) if 1 < len(x) < frames else x.expand(frames, *x.shape[1:])


def rodrigues(v: Float[Tensor, "*B 3"]) -> Float[Tensor, "*B 3 3"]:
    """Rotation matrices of axis-angle vectors (radians), smooth at zero."""
    angle = torch.sqrt((v * v).sum(-1, keepdim=True) + 1e-16)[..., None]
    x, y, z = v.unbind(-1)
    zero = torch.zeros_like(x)
    K = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    eye = torch.eye(3, dtype=v.dtype, device=v.device)
    half = torch.sin(angle / 2) / angle  # (1 − cos φ)/φ² = 2 (sin(φ/2)/φ)², without the cancellation
    return eye + torch.sin(angle) / angle * K + 2 * half**2 * (K @ K)


def joint_transforms(
    pose: Float[Tensor, "F 15"], joints: Float[Tensor, "F 5 3"], parents: tuple[int, ...]
) -> tuple[Float[Tensor, "F 5 4 4"], Float[Tensor, "F 36"]]:
    """A_j along the kinematic chain, and R(θ) − I of all joints but the root, which drives the pose correctives."""
    R = rodrigues(pose.unflatten(-1, (JOINTS, 3)))
    shift = joints - (R @ joints[..., None])[..., 0]
    last = torch.eye(4, dtype=pose.dtype, device=pose.device)[3].expand(len(pose), JOINTS, 1, 4)
    local = torch.cat([torch.cat([R, shift[..., None]], -1), last], -2)
    chain: list[Tensor] = []
    for j, parent in enumerate(parents):
        chain.append(local[:, j] if parent < 0 else chain[parent] @ local[:, j])
    return torch.stack(chain, 1), (R[:, 1:] - torch.eye(3, dtype=pose.dtype, device=pose.device)).flatten(1)


def flame_skinning(
    expression: Float[Tensor, "F E"],
    pose: Float[Tensor, "F 15"],
    flame: Flame,
    shape: Float[Tensor, "F S"] | None = None,
) -> Skinned:
    """LBS(T + B_s β + B_e ψ + B_p (R(θ) − I), J(T + B_s β + B_e ψ), θ, weights) of F = B·k frames, identity-major.

    Fewer coefficients than the head has leave the rest at zero; shape None leaves all of β at zero.
    """
    check_coefficients(expression, flame, shape)
    frames, count = len(pose), flame.template.shape[1]
    rest, joints = _per_frame(flame.template, frames), _per_frame(flame.joints, frames)
    if shape is not None:
        rest = rest + _blend(shape, flame.directions, count)
        joints = joints + _move(shape, flame.joint_shapes)
    rest = rest + _blend(expression, flame.directions[flame.n_shape :], count)
    joints = joints + _move(expression, flame.joint_expressions)
    transforms, correctives = joint_transforms(pose, joints, flame.parents)
    rest = rest + _blend(correctives, flame.directions[-correctives.shape[1] :], count)
    T = (flame.weights @ transforms[:, :, :3].flatten(2)).unflatten(-1, (3, 4))
    return Skinned((T[..., :3] @ rest[..., None])[..., 0] + T[..., 3], rest, transforms)


def check_coefficients(expression: Tensor, flame: Flame, shape: Tensor | None = None) -> None:
    """Raises ValueError when more coefficients are given than the head has."""
    has = {"shape": flame.n_shape, "expression": len(flame.joint_expressions)}
    for name, given in (("shape", shape), ("expression", expression)):
        if given is not None and given.shape[1] > has[name]:
            raise ValueError(f"{given.shape[1]} {name} coefficients were given to a head that has {has[name]}")


def _blend(coefficients: Float[Tensor, "F k"], directions: Float[Tensor, "K 3 W"], count: int) -> Tensor:
    return torch.einsum("fk,kcv->fvc", coefficients, directions[: coefficients.shape[1], :, :count].to(coefficients))


def _move(coefficients: Float[Tensor, "F k"], directions: Float[Tensor, "K 5 3"]) -> Tensor:
    return torch.einsum("fk,kjc->fjc", coefficients, directions[: coefficients.shape[1]])


def triangle_frames(corners: Float[Tensor, "*B 3 3"]) -> tuple[Tensor, Tensor, Tensor]:
    """Centre T, frame R (columns: first edge, normal, their cross product) and size k, the mean of the first edge's length
    and of the height over it, of triangles given by their corners (GaussianAvatars)."""
    first, other = corners[..., 1, :] - corners[..., 0, :], corners[..., 2, :] - corners[..., 0, :]
    normal = torch.linalg.cross(first, other)
    base, area = (torch.sqrt((v * v).sum(-1) + 1e-20) for v in (first, normal))
    a, b = first / base[..., None], normal / area[..., None]
    R = torch.stack([a, b, torch.linalg.cross(a, b)], -1)
    return corners.mean(-2), R, (base + area / base) / 2


def to_triangles(corners: Float[Tensor, "B N 3 3"], gaussians: Bound) -> Bound:
    """Gaussians as each sees itself from its triangle: what `bind_gaussians` undoes."""
    T, R, k = triangle_frames(corners)
    means = (R.mT @ (gaussians.means - T)[..., None])[..., 0] / k[..., None]
    turned = quaternion(R) * gaussians.quats.new_tensor([1, -1, -1, -1])
    return Bound(means, multiply(turned, gaussians.quats), gaussians.scales / k[..., None])


def bind_gaussians(
    vertices: Float[Tensor, "F V 3"],
    faces: Int[Tensor, "T 3"],
    triangles: Int[Tensor, "B N"],
    local: Bound,
) -> Bound:
    """μ' = k R μ + T, r' = R r, s' = k s with the frames (T, R, k) of the driven triangles (GaussianAvatars, PAPER §4).

    F = B·k frames, identity-major; triangles and local geometry belong to the identity.
    """
    frames = len(vertices)
    corners = _per_frame(faces[triangles.long()].flatten(1), frames).long()  # [F,3N]
    at = vertices[torch.arange(frames, device=vertices.device)[:, None], corners].unflatten(1, (-1, 3))
    T, R, k = triangle_frames(at)
    means, quats, scales = (_per_frame(t, frames) for t in local)
    return Bound(
        k[..., None] * (R @ means[..., None])[..., 0] + T, multiply(quaternion(R), quats), k[..., None] * scales
    )


def multiply(a: Float[Tensor, "*#B 4"], b: Float[Tensor, "*#B 4"]) -> Float[Tensor, "*#B 4"]:
    """Quaternions' product, wxyz: first b, then a."""
    aw, ax, ay, az = a.unbind(-1)
    bw, bx, by, bz = b.unbind(-1)
    return torch.stack([
        aw * bw - ax * bx - ay * by - az * bz,
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
    ], -1)  # fmt: skip


def quaternion(R: Float[Tensor, "*B 3 3"]) -> Float[Tensor, "*B 4"]:
    """Of a rotation, wxyz, by its largest component: well conditioned for every rotation."""
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = (row.unbind(-1) for row in R.unbind(-2))
    w, x, y, z = 1 + xx + yy + zz, 1 + xx - yy - zz, 1 - xx + yy - zz, 1 - xx - yy + zz
    rows = torch.stack([
        torch.stack([w, zy - yz, xz - zx, yx - xy], -1), torch.stack([zy - yz, x, yx + xy, xz + zx], -1),
        torch.stack([xz - zx, yx + xy, y, zy + yz], -1), torch.stack([yx - xy, xz + zx, zy + yz, z], -1),
    ], -2)  # fmt: skip
    four, largest = torch.stack([w, x, y, z], -1).max(-1, keepdim=True)
    row = rows.gather(-2, largest[..., None].expand(*largest.shape, 4))[..., 0, :]
    return 0.5 * row / torch.sqrt(four)


def spatial_fusion(
    basis: Float[Tensor, "B N M"],
    gain: Float[Tensor, "F M"],
    bias: Float[Tensor, "F H"],
    psi: Psi,
    still: Moved,
) -> Moved:
    """Ψ that moves, grows and turns the Gaussians of F = B·k frames, identity-major (PAPER §2, "deforming in space"):

        (Δp, Δs, Δr)_i = w2 softplus(w1 (basis_i ⊙ gain) + bias) + b2
        means_i + Δp_i,   (1, Δr_i / 2) ∗ quats_i,   scales_i · exp(Δs_i).

    Where `still` has opacities and colours, w2 has thirteen rows in place of nine: Δo_i is added to the opacity's logit, at most 15
    either way, and Δc_i to the colour.

    basis and still belong to the identity, gain and bias to the frame. The changes are computed in basis' type with the gain in
    the weights, and applied in that of `still`.
    """
    frames, of = len(gain), basis.dtype
    folded = (psi.w1 * gain[:, None]).to(of)  # [F,H,M]: keeps [F,N,M] out of memory
    hidden = torch.baddbmm(bias.to(of)[:, None], _per_frame(basis, frames), folded.mT)
    change = F.linear(F.softplus(hidden), psi.w2.to(of), psi.b2.to(of)).to(still.means)
    position, scale, turn, rest = change.split([3, 3, 3, change.shape[-1] - 9], -1)
    means, quats, scales, *others = (_per_frame(t, frames) for t in still)
    bound = Bound(means + position, multiply(F.pad(turn / 2, (1, 0), value=1.0), quats), scales * torch.exp(scale))
    if isinstance(still, Bound):
        return bound
    opacities, colors = others
    return Attributes(*bound, _shift(opacities, rest[..., 0]), colors + rest[..., 1:])


def blend_gaussians(
    base: Attributes,
    binding: Binding,
    hidden: Float[Tensor, "B N H"],
    readout: Float[Tensor, "F 16 H"],
    bias: Float[Tensor, "F 16"],
    unposed: Float[Tensor, "F V 3"],
    transforms: Float[Tensor, "F 5 4 4"],
) -> Attributes:
    """Blendshapes of mesh and Gaussians, then skinning (LAM / 3D Gaussian Blendshapes, PAPER §4), F = B·k frames:

        δ_i = readout h_i + bias                             the Gaussian's own blendshapes; two rows of the 16 are idle
        G_i = base_i + Σ_v b_iv unposed_v + δ_i              each attribute in the space where it may be added to
        A_i = Σ_j w_ij transforms_j,  means' = A_i means,  quats' = A_i's rotation · quats

    The blendshapes B_k(m_i) = W_k h_i are linear in h_i, so that Σ_k ψ_k W_k = readout stands for all of them. `hidden` may be
    stored in 16 bits. δ's order is LAYOUT's; `base.means` is less what Σ_v b_iv unposed_v is at rest.
    """
    frames = len(readout)
    delta = torch.bmm(_per_frame(hidden, frames), readout.to(hidden.dtype).mT).to(bias) + bias[:, None]
    position, scale, quaternion, opacity, color, _ = delta.split([*LAYOUT.values(), 16 - RAW], -1)
    near, weights, joints = (_per_frame(t.detach(), frames) for t in binding)
    bound = unposed[torch.arange(frames, device=near.device)[:, None, None], near.long()]  # [F,k,N,3]
    means, quats, scales, opacities, colors = (_per_frame(t, frames) for t in base)
    means = means + (weights[..., None] * bound).sum(1) + position
    A = torch.einsum("fjn,fjkl->fnkl", joints, transforms[..., :3, :])
    return Attributes(
        means=(A[..., :3] * means[..., None, :]).sum(-1) + A[..., 3],
        quats=multiply(_nearest_rotation(A[..., :3]), quats + quaternion),
        scales=scales * torch.exp(scale),
        opacities=_shift(opacities, opacity[..., 0]),
        colors=colors + color,
    )


def part_blendshapes(
    f: Float[Tensor, "B N D"],
    hidden: Float[Tensor, "B N H"],
    parts: Parts,
    gains: Float[Tensor, "F P H"],
    readout: Float[Tensor, "D H"],
) -> Float[Tensor, "F N D"]:
    """Blendshapes whose coefficients belong to parts of the head (PAPER §6, "part-local"), of F = B·k frames, identity-major:

        f_i + readout (h_i ⊙ Σ_p w_ip gains_p)

    The blendshapes are B_k(m_i) = readout diag(a_k) h_i, so that a part's coefficients e_pk make one row of gains, Σ_k e_pk a_k.
    All is computed in f's type, which is that of `hidden`.
    """
    frames = len(gains)
    index, weights = (_per_frame(t, frames) for t in parts)
    gains, frame = gains.to(f.dtype), torch.arange(frames, device=f.device)[:, None]
    gain = sum(
        w[..., None].to(f.dtype) * gains[frame, i.long()]
        for i, w in zip(index.unbind(1), weights.unbind(1), strict=True)
    )
    return _per_frame(f, frames) + F.linear(_per_frame(hidden, frames) * gain, readout.to(f.dtype))


def _shift(probability: Tensor, logit: Tensor) -> Tensor:
    """sigmoid(logit(p) + Δ), exact at Δ = 0."""
    grown = probability * torch.exp(logit.clamp(-15, 15))
    return grown / (grown + 1 - probability)


def _nearest_rotation(matrix: Float[Tensor, "*B 3 3"]) -> Float[Tensor, "*B 4"]:
    """The rotation nearest to a blend of rotations, to first order: its antisymmetric part."""
    w = 0.5 * torch.sqrt((1 + matrix.diagonal(dim1=-2, dim2=-1).sum(-1)).clamp_min(1e-6))
    axis = torch.stack([matrix[..., 2, 1] - matrix[..., 1, 2], matrix[..., 0, 2] - matrix[..., 2, 0],
                        matrix[..., 1, 0] - matrix[..., 0, 1]], -1) / (4 * w[..., None])  # fmt: skip
    return torch.cat([w[..., None], axis], -1)


def row_norm(x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
    """LayerNorm without affine."""
    return F.layer_norm(x, x.shape[-1:])


def norm_silu(
    x: Float[Tensor, "B C H W"], weight: Float[Tensor, " C"], bias: Float[Tensor, " C"], groups: int
) -> Float[Tensor, "B C H W"]:
    """GroupNorm with affine, then SiLU, in the weights' type; returns x's."""
    return F.silu(F.group_norm(x.to(weight.dtype), groups, weight, bias)).to(x.dtype)


def mean_norm(rows: Float[Tensor, "*N K"]) -> Tensor:
    """The mean over all rows of their Euclidean norms."""
    return _MeanNorm.apply(rows)


class _MeanNorm(torch.autograd.Function):
    """With one pass over the rows for the gradient, where torch has three; none where a row is zero."""

    @staticmethod
    def forward(ctx, rows: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(rows, dim=-1)
        ctx.save_for_backward(rows, norm)
        return norm.mean()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> Tensor:
        rows, norm = ctx.saved_tensors
        return rows * torch.where(norm > 0, grad / (norm.numel() * norm), 0)[..., None]


def ssim(
    pred: Float[Tensor, "B H W C"],
    target: Float[Tensor, "B H W C"],
    rows: Float[Tensor, "H H"],
    columns: Float[Tensor, "W W"],
) -> Tensor:
    """The mean SSIM (Wang et al. 2004) of pictures in 0..1, whose window is rows @ picture @ columnsᵀ."""
    a, b = pred.movedim(-1, 1), target.movedim(-1, 1)
    blur = lambda *maps: (rows @ torch.stack(maps) @ columns.T).unbind()  # noqa: E731
    (ma, squares, ab), (mb,) = blur(a, a * a + b * b, a * b), blur(b)  # apart: the target needs no gradient
    c1, c2 = 0.01**2, 0.03**2
    product, both = ma * mb, ma * ma + mb * mb
    return ((2 * product + c1) * (2 * (ab - product) + c2) / ((both + c1) * (squares - both + c2))).mean()
