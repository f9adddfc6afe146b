"""A network per Gaussian that reads the driving code beside the Gaussian's own features (FastGHA, PAPER §4).

    δf_i = s · [W2 softplus(W1 [LN(m_i); c] + b1) + b2],   c = [M(source); M(driving)],   avatar = Φ(f_i + δf_i)

Changed to fit the shared pipeline: FastGHA reads encoded position, colour and a 32-d feature, here the motion basis stands for
all three; it gives Δposition and Δcolour, here the network gives δf; one hidden layer, as in Ψ. W1's part on c is the same for
all Gaussians, a bias per frame, so that this is Ψ's second half with gain 1: the code shifts the hidden units and
scales nothing.

Matched to `local_adaln` in parameters: 107,664. `init_scale=0` starts at the canonical avatar; `source=False` hides M(source).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from i4d_bench.types import FEATURE_DIM, Gaussians, Identity, MotionCode
from kernels.layout import Psi
from variants.base import Fusion, normed, register, scaled
from variants.local_adaln import CODE, OfCode


@dataclass
class Prepared:
    fused: Callable[[Tensor, Tensor], Gaussians]  # the network from its hidden layer's bias on, and Φ
    bias: OfCode  # W1's part on c, and b1


@register("local_mlp")
class LocalMLP(Fusion):
    """[m_i; c] ─MLP→ + f_i ─Φ→ Gaussian i"""

    family = "local"
    needs = "motion"

    def __init__(
        self,
        motion_basis: int = 48,
        hidden: int = 96,
        delta_scale: float = 1.0,
        init_scale: float = 1.0,
        source: bool = True,
    ):
        super().__init__()
        self.basis, self.delta_scale = motion_basis, delta_scale
        self.W1 = nn.Linear(motion_basis + (1 + source) * CODE, hidden)
        self.W2 = nn.Linear(hidden, FEATURE_DIM)
        scaled(self.W2, init_scale)

    def prepare(self, identity: Identity, source: MotionCode) -> Prepared:
        on_basis, on_code = self.W1.weight.tensor_split([self.basis], 1)
        psi = Psi(on_basis, self.delta_scale * self.W2.weight, self.delta_scale * self.W2.bias)
        basis = normed(identity.m, self.basis)
        return Prepared(
            identity.decode.after(identity.f.to(self.storage), basis.to(self.storage), psi),
            OfCode.prepare(on_code, self.W1.bias, source),
        )

    def animate(self, prepared: Prepared, driving: MotionCode) -> Gaussians:
        bias = prepared.bias(driving)
        return prepared.fused(bias.new_ones(len(bias), self.basis), bias)
