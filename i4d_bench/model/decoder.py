"""Φ: feature → Gaussian attributes (PAPER §1: 48 → 96 softplus → 14, with the paper's activations).

Declared departure: the sampling adds a prior per Gaussian before the activations (where it was sampled, how large, how
opaque), so that training starts from a head-shaped cloud; Φ then knows the texel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

import kernels
from i4d_bench.types import FEATURE_DIM, Gaussians
from kernels.layout import RAW, Layers, Phi, Psi

HIDDEN = 96


class Decoder(nn.Module):
    """Φ. `output_scale` shrinks the last layer at the start so that the priors rule."""

    def __init__(self, output_scale: float = 0.3):
        super().__init__()
        self.layer1 = nn.Linear(FEATURE_DIM, HIDDEN)
        self.layer2 = nn.Linear(HIDDEN, RAW)
        with torch.no_grad():
            self.layer2.weight.mul_(output_scale)
            self.layer2.bias.zero_()

    @property
    def phi(self) -> Phi:
        return Phi(self.layer1.weight, self.layer1.bias, self.layer2.weight, self.layer2.bias)

    def forward(self, f: Float[Tensor, "B N 48"], prior: Float[Tensor, "*B N 14"]) -> Gaussians:
        return Gaussians(*kernels.decode(f, self.phi, prior))


@dataclass
class Decode:
    """Φ with the features and priors of a batch of identities. Frames of an identity stand next to each other."""

    phi: Phi
    prior: Float[Tensor, "*B N 14"]
    f: Float[Tensor, "B N 48"]

    def __call__(self, features: Float[Tensor, "F N 48"]) -> Gaussians:
        """Gaussians of changed features; where gradients are recorded, with what was changed."""
        delta = None
        if torch.is_grad_enabled():
            delta = features - self.f.repeat_interleave(len(features) // len(self.f), 0)
        return Gaussians(*kernels.decode(features, self.phi, self.prior), delta)

    def after(
        self, f: Float[Tensor, "B N 48"], basis: Float[Tensor, "B N M"], psi: Psi
    ) -> Callable[[Tensor, Tensor], Gaussians]:
        """Ψ on these features, then Φ, in one pass: a function of gain [F,M] and bias [F,H] (`kernels.local_fusion`)."""

        def fused(gain: Float[Tensor, "F M"], bias: Float[Tensor, "F H"]) -> Gaussians:
            attributes, delta = kernels.local_fusion(basis, gain, bias, f, psi, self.phi, self.prior)
            return Gaussians(*attributes, delta)

        return fused

    def attended(
        self, x0: Float[Tensor, "B N 48"], f: Float[Tensor, "B N 48"], layers: Layers
    ) -> Callable[[Tensor, Tensor, Tensor], Gaussians]:
        """Attention from these states to a frame's tokens, then Φ, in one pass: a function of keys [F,L,A,T,48], score [F,L,A,T]
        and values [F,L,A,T,48] (`kernels.cross_attention`)."""

        def fused(keys: Float[Tensor, "F L A T 48"], score: Float[Tensor, "F L A T"], values: Tensor) -> Gaussians:
            attributes, delta = kernels.cross_attention(x0, keys, score, values, f, layers, self.phi, self.prior)
            return Gaussians(*attributes, delta)

        return fused
