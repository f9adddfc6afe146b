"""Fused kernels of i4d_bench, each with a plain torch twin in `kernels.reference` that is its specification.

`kernels.<op>(…)` runs the Triton kernel on CUDA tensors and the twin on CPU tensors. `with using("eager")` or
`using("triton")` asks for one of them by name; where that one cannot run, the op raises: nothing falls back silently.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor

from kernels import reference
from kernels.layout import Attributes, Binding, Bound, Flame, Layers, Moved, Parts, Phi, Psi, Skinned
from kernels.layout import Unsupported as Unsupported

Mode = Literal["auto", "eager", "triton"]
_mode: Mode = "auto"


@contextmanager
def using(mode: Mode) -> Iterator[None]:
    """Inside, every op runs as named: "auto" (Triton on CUDA), "eager" (the twin) or "triton". Raises ValueError."""
    global _mode
    if mode not in ("auto", "eager", "triton"):
        raise ValueError(f"there is no kernel mode {mode!r}; there are auto, eager, triton")
    before, _mode = _mode, mode
    try:
        yield
    finally:
        _mode = before


def triton_wanted(tensor: Tensor) -> bool:
    """Whether ops on `tensor` go to Triton. Raises RuntimeError where Triton is asked for by name and cannot run."""
    if _mode == "triton" and not tensor.is_cuda and os.environ.get("TRITON_INTERPRET") != "1":
        raise RuntimeError(f"Triton kernels cannot run on the {tensor.device.type}: they need a CUDA GPU")
    return _mode == "triton" or (_mode == "auto" and tensor.is_cuda)


def decode(f: Float[Tensor, "B N D"], phi: Phi, prior: Float[Tensor, "*B N 14"]) -> Attributes:
    """Φ: features → Gaussians (`reference.decode`)."""
    if triton_wanted(f):
        from kernels.fused.local_fusion import decode

        return decode(f, phi, prior)
    return reference.decode(f, phi, prior)


def local_fusion(
    basis: Float[Tensor, "B N M"],
    gain: Float[Tensor, "F M"],
    bias: Float[Tensor, "F H"],
    f: Float[Tensor, "B N D"],
    psi: Psi,
    phi: Phi,
    prior: Float[Tensor, "*B N 14"],
) -> tuple[Attributes, Float[Tensor, "F N D"] | None]:
    """Ψ, then Φ (`reference.local_fusion`). The kernel returns δf only where gradients are recorded."""
    if triton_wanted(f):
        from kernels.fused.local_fusion import local_fusion

        return local_fusion(basis, gain, bias, f, psi, phi, prior)
    return reference.local_fusion(basis, gain, bias, f, psi, phi, prior)


def spatial_fusion(
    basis: Float[Tensor, "B N M"],
    gain: Float[Tensor, "F M"],
    bias: Float[Tensor, "F H"],
    psi: Psi,
    still: Moved,
) -> Moved:
    """Ψ that moves, grows and turns Gaussians, or changes all their attributes (`reference.spatial_fusion`)."""
    if triton_wanted(basis):
        from kernels.fused.spatial_fusion import spatial_fusion

        return spatial_fusion(basis, gain, bias, psi, still)
    return reference.spatial_fusion(basis, gain, bias, psi, still)


def cross_attention(
    x0: Float[Tensor, "B N D"],
    keys: Float[Tensor, "F L A T D"],
    score: Float[Tensor, "F L A T"],
    values: Float[Tensor, "F L A T D"],
    f: Float[Tensor, "B N D"],
    layers: Layers,
    phi: Phi,
    prior: Float[Tensor, "*B N 14"],
) -> tuple[Attributes, Float[Tensor, "F N D"] | None]:
    """Attention to few tokens, then Φ (`reference.cross_attention`). The kernel returns δf only where gradients are recorded."""
    if triton_wanted(f):
        from kernels.fused.cross_attention import cross_attention

        return cross_attention(x0, keys, score, values, f, layers, phi, prior)
    return reference.cross_attention(x0, keys, score, values, f, layers, phi, prior)


def flame_skinning(
    expression: Float[Tensor, "F E"],
    pose: Float[Tensor, "F 15"],
    flame: Flame,
    shape: Float[Tensor, "F S"] | None = None,
) -> Skinned:
    """FLAME's vertices from its coefficients (`reference.flame_skinning`)."""
    if triton_wanted(pose):
        from kernels.fused.flame_skinning import flame_skinning

        return flame_skinning(expression, pose, flame, shape)
    return reference.flame_skinning(expression, pose, flame, shape)


def bind_gaussians(
    vertices: Float[Tensor, "F V 3"], faces: Int[Tensor, "T 3"], triangles: Int[Tensor, "B N"], local: Bound
) -> Bound:
    """Gaussians carried by the triangles of a driven mesh (`reference.bind_gaussians`)."""
    if triton_wanted(vertices):
        from kernels.fused.binding import bind_gaussians

        return bind_gaussians(vertices, faces, triangles, local)
    return reference.bind_gaussians(vertices, faces, triangles, local)


def blend_gaussians(
    base: Attributes,
    binding: Binding,
    hidden: Float[Tensor, "B N H"],
    readout: Float[Tensor, "F 16 H"],
    bias: Float[Tensor, "F 16"],
    unposed: Float[Tensor, "F V 3"],
    transforms: Float[Tensor, "F 5 4 4"],
) -> Attributes:
    """Blendshapes of mesh and Gaussians, then skinning (`reference.blend_gaussians`)."""
    if triton_wanted(hidden):
        from kernels.fused.blendshapes import blend_gaussians

        return blend_gaussians(base, binding, hidden, readout, bias, unposed, transforms)
    return reference.blend_gaussians(base, binding, hidden, readout, bias, unposed, transforms)


def part_blendshapes(
    f: Float[Tensor, "B N D"],
    hidden: Float[Tensor, "B N H"],
    parts: Parts,
    gains: Float[Tensor, "F P H"],
    readout: Float[Tensor, "D H"],
) -> Float[Tensor, "F N D"]:
    """Features plus blendshapes with coefficients of the head's parts (`reference.part_blendshapes`)."""
    if triton_wanted(f):
        from kernels.fused.part_blendshapes import part_blendshapes

        return part_blendshapes(f, hidden, parts, gains, readout)
    return reference.part_blendshapes(f, hidden, parts, gains, readout)


def row_norm(x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
    """Each row less its mean, over its deviation (`reference.row_norm`)."""
    if triton_wanted(x):
        from kernels.fused.norms import row_norm

        return row_norm(x)
    return reference.row_norm(x)


def norm_silu(
    x: Float[Tensor, "B C H W"], weight: Float[Tensor, " C"], bias: Float[Tensor, " C"], groups: int
) -> Float[Tensor, "B C H W"]:
    """GroupNorm, then SiLU (`reference.norm_silu`). The kernel returns x's type and channels-last memory."""
    if triton_wanted(x):
        from kernels.fused.norms import norm_silu

        return norm_silu(x, weight, bias, groups)
    return reference.norm_silu(x, weight, bias, groups)


def mean_norm(rows: Float[Tensor, "*N K"]) -> Tensor:
    """The mean of rows' norms (`reference.mean_norm`)."""
    if triton_wanted(rows):
        from kernels.fused.mean_norm import mean_norm

        return mean_norm(rows)
    return reference.mean_norm(rows)


def ssim(
    pred: Float[Tensor, "B H W C"],
    target: Float[Tensor, "B H W C"],
    rows: Float[Tensor, "H H"],
    columns: Float[Tensor, "W W"],
) -> Tensor:
    """The mean SSIM of pictures (`reference.ssim`). The kernel has no gradient for the target and raises ValueError where one is
    recorded."""
    if triton_wanted(pred):
        from kernels.fused.ssim import ssim

        return ssim(pred, target, rows, columns)
    return reference.ssim(pred, target, rows, columns)
