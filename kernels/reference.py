"""Plain torch twins of the kernels: what each of them computes, in as few operations as torch allows."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

MAX_SCALE = 0.05
LAYOUT = {"position": 3, "scale": 3, "quaternion": 4, "opacity": 1, "color": 3}
RAW = sum(LAYOUT.values())


class Phi(NamedTuple):
    """Weights of the Gaussian decoder Φ: 48 → H softplus → 14."""

    w1: Float[Tensor, "H D"]
    b1: Float[Tensor, "H"]
    w2: Float[Tensor, "14 H"]
    b2: Float[Tensor, "14"]


class Psi(NamedTuple):
    """Weights of a local fusion network Ψ: M → H softplus → D. The first layer's bias comes per frame."""

    w1: Float[Tensor, "H M"]
    w2: Float[Tensor, "D H"]
    b2: Float[Tensor, "D"]


class Attributes(NamedTuple):
    """Gaussians after their activations, as gsplat wants them."""

    means: Float[Tensor, "B N 3"]
    quats: Float[Tensor, "B N 4"]
    scales: Float[Tensor, "B N 3"]
    opacities: Float[Tensor, "B N"]
    colors: Float[Tensor, "B N 3"]


def activate(raw: Float[Tensor, "B N 14"]) -> Attributes:
    """The paper's activations. Opacity is 1 − exp(−softplus(raw − 1)) = sigmoid(raw − 1), written so."""
    position, scale, quaternion, opacity, color = raw.split(list(LAYOUT.values()), -1)
    return Attributes(
        means=torch.tanh(position),
        quats=quaternion,
        scales=MAX_SCALE * torch.sigmoid(scale),
        opacities=torch.sigmoid(opacity[..., 0] - 1),
        colors=1.002 * torch.sigmoid(color) - 0.001,
    )


def decode(f: Float[Tensor, "B N D"], phi: Phi, prior: Float[Tensor, "*B N 14"]) -> Attributes:
    """Φ (PAPER §1): features → Gaussians. `prior` is added before the activations, in its own precision."""
    return activate(F.linear(F.softplus(F.linear(f, phi.w1, phi.b1)), phi.w2, phi.b2) + _per_frame(prior, len(f)))


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

    basis and f belong to the identity, gain and bias to the frame. Returns the Gaussians and δf.
    """
    frames = len(gain)
    folded = psi.w1 * gain[:, None]  # [F,H,M]: keeps [F,N,M] out of memory
    hidden = torch.baddbmm(bias[:, None], _per_frame(basis, frames), folded.transpose(1, 2))
    delta = F.linear(F.softplus(hidden), psi.w2, psi.b2)
    return decode(_per_frame(f, frames) + delta, phi, prior), delta


def _per_frame(x: Tensor, frames: int) -> Tensor:
    """[B,…] → [F,…], each identity's rows repeated for its frames."""
    return x.repeat_interleave(frames // len(x), 0) if 1 < len(x) < frames else x.expand(frames, *x.shape[1:])
