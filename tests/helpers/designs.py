"""Designs made for tests, and how their Gaussians are compared."""

from __future__ import annotations

import dataclasses

import torch

import variants
from helpers import ROOT
from helpers.heads import TinyHead
from i4d_bench.types import MotionCode
from variants.base import Fusion

CHOSEN: list[str] = []
"""What `pytest --designs` names, in place of every registered design."""
FIELDS = ("means", "quats", "scales", "opacities", "colors")


def under_test() -> list[str]:
    """The designs that the contract's tests and the benchmarks run over."""
    return CHOSEN or variants.names()


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


def shown_example() -> str:
    """The file that docs/your-design.md shows as a design of one's own, `local_gain`."""
    return (ROOT / "docs" / "your-design.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]


def with_flame(code: MotionCode, **parts) -> MotionCode:
    """The code with parts of its FLAME coefficients replaced."""
    assert code.flame is not None
    return dataclasses.replace(code, flame=dataclasses.replace(code.flame, **parts))


class Rigid(TinyHead):
    """Every vertex hangs on the root."""

    def __init__(self):
        super().__init__()
        self.weights = torch.eye(5)[torch.zeros(60, dtype=torch.long)]
