"""Designs made for tests, and how their Gaussians are compared."""

from __future__ import annotations

import torch

import variants
from variants.base import Fusion

FIELDS = ("means", "quats", "scales", "opacities", "colors")


def make(name: str, seed: int = 0, **settings) -> Fusion:
    torch.manual_seed(seed)
    return variants.create(name, **settings)


def awake(name: str, **settings) -> Fusion:
    """A design whose zero-initialised parts have left zero, so that every path carries signal."""
    fusion = make(name, **settings)
    with torch.no_grad():
        for p in fusion.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return fusion


def close(a, b, tolerance=1e-5):
    for f in FIELDS:
        torch.testing.assert_close(getattr(a, f), getattr(b, f), rtol=tolerance, atol=tolerance)


def differ(a, b) -> bool:
    return any(not torch.allclose(getattr(a, f), getattr(b, f), atol=1e-6) for f in FIELDS)
