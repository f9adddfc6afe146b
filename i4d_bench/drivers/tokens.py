"""Fixed random networks from expression coefficients to motion codes: no design meets named sliders, as with a learned encoder."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from i4d_bench.types import MOTION_DIM, MOTION_TOKENS

HIDDEN = 256
GAIN = 0.4
"""Of the first layer: a full expression bends it without saturating, so that the code tells strong ones apart."""
DEEP_LAYERS, DEEP_WIDTH, DEEP_FIRST, DEEP_GAIN = 4, 64, 2.0, 3.0
"""Folded so often that a linear map reads about half of the coefficients' variance off all 512 numbers (R² 0.51) and less than a
third off any token's 16 (0.28 at most); a network of three layers reads 0.85 (expressions of the procedural world)."""


class RandomTokens(nn.Module):
    """Two layers, coefficients [B,K] → 512 numbers of unit scale. Zero maps to zero. A linear map undoes them nearly."""

    w1: Float[Tensor, "K 256"]
    w2: Float[Tensor, "256 512"]

    def __init__(self, coefficients: int, seed: int = 0):
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        self.register_buffer("w1", GAIN * torch.randn(coefficients, HIDDEN, generator=g))
        self.register_buffer("w2", torch.randn(HIDDEN, MOTION_TOKENS * MOTION_DIM, generator=g) * HIDDEN**-0.5 * 2.2)

    def forward(self, coefficients: Float[Tensor, "B K"]) -> Float[Tensor, "B 512"]:
        return torch.tanh(coefficients @ self.w1) @ self.w2


class DeepTokens(nn.Module):
    """Five layers, coefficients [B,K] → 512 numbers of unit scale. Zero maps to zero. No linear map undoes them."""

    first: Float[Tensor, "K 64"]
    hidden: Float[Tensor, "3 64 64"]
    last: Float[Tensor, "64 512"]

    def __init__(self, coefficients: int, seed: int = 0):
        super().__init__()
        g, width = torch.Generator().manual_seed(seed), DEEP_WIDTH
        self.register_buffer("first", DEEP_FIRST * torch.randn(coefficients, width, generator=g))
        hidden = torch.randn(DEEP_LAYERS - 1, width, width, generator=g)
        self.register_buffer("hidden", DEEP_GAIN * width**-0.5 * hidden)
        self.register_buffer("last", torch.randn(width, MOTION_TOKENS * MOTION_DIM, generator=g) * width**-0.5 * 1.2)

    def forward(self, coefficients: Float[Tensor, "B K"]) -> Float[Tensor, "B 512"]:
        x = torch.tanh(coefficients @ self.first)
        for weight in self.hidden:
            x = torch.tanh(x @ weight)
        return x @ self.last
