"""Φ: feature → Gaussian attributes (PAPER §1: 48 → 96 softplus → 14, with the paper's activations).

Declared departure: the sampling adds a prior per Gaussian before the activations (where it was sampled, how large, how
opaque), so that training starts from a head-shaped cloud; Φ then knows the texel.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from i4d_bench.types import FEATURE_DIM, Gaussians

MAX_SCALE = 0.05
HIDDEN = 96
LAYOUT = {"position": 3, "scale": 3, "quaternion": 4, "opacity": 1, "color": 3}
RAW = sum(LAYOUT.values())


def activate(raw: Float[Tensor, "B N 14"]) -> Gaussians:
    """The paper's activations. Opacity is 1 − exp(−softplus(raw − 1)) = sigmoid(raw − 1), written so."""
    position, scale, quaternion, opacity, color = raw.split(list(LAYOUT.values()), -1)
    return Gaussians(
        means=torch.tanh(position),
        quats=quaternion,
        scales=MAX_SCALE * torch.sigmoid(scale),
        opacities=torch.sigmoid(opacity[..., 0] - 1),
        colors=1.002 * torch.sigmoid(color) - 0.001,
    )


class Decoder(nn.Module):
    """Φ. `output_scale` shrinks the last layer at the start so that the priors rule."""

    def __init__(self, output_scale: float = 0.3):
        super().__init__()
        self.layer1 = nn.Linear(FEATURE_DIM, HIDDEN)
        self.layer2 = nn.Linear(HIDDEN, RAW)
        with torch.no_grad():
            self.layer2.weight.mul_(output_scale)
            self.layer2.bias.zero_()

    def forward(self, f: Float[Tensor, "B N 48"], prior: Float[Tensor, "*B N 14"]) -> Gaussians:
        return activate(self.layer2(F.softplus(self.layer1(f))) + prior)
