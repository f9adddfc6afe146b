"""What a speed run measures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

import variants
from i4d_bench.speed import rig
from i4d_bench.types import Gaussians

IN_FULL = ("local_adaln", "global_cross_attention")
"""The paper's operator, and the attention of Gaussians to tokens beside it."""


@dataclass(frozen=True)
class Plan:
    """What is measured: the base point and, from there, one axis at a time."""

    gaussians: int = 196_608
    resolution: int = 512
    batch: int = 1
    counts: tuple[int, ...] = (16_384, 65_536, 524_288, 1_048_576)
    resolutions: tuple[int, ...] = (256, 1024)
    batches: tuple[int, ...] = (8,)
    tokens: tuple[int, ...] = (4, 16, 64, 256)
    trained: tuple[tuple[int, int, int], ...] = ((16, 18_000, 128), (4, 196_608, 512))
    """Batch, Gaussians and resolution of pictures with gradients: the preset gpu's, and the paper's."""
    avatars: Mapping[str, Gaussians] = field(default_factory=dict)
    """Trained ones by name, in canonical space, a batch of 1 on the CPU: rasterisers draw them beside the untrained one."""
    modes: tuple[str, ...] = rig.MODES
    designs: tuple[str, ...] = field(default_factory=lambda: everything())
    sources: tuple[str, ...] = ()  # of designs from elsewhere, which other processes must `variants.load`
    frames: int = 200
    storage: torch.dtype = torch.float16


def in_every_mode(families: Mapping[str, str]) -> list[str]:
    """Of designs with their families, those on the axes in every mode: IN_FULL, or where none of them is timed the first that is no
    control. The others run there in eager and in the last mode, which is the fastest."""
    return [d for d in IN_FULL if d in families] or [d for d, family in families.items() if family != "control"][:1]


def everything() -> tuple[str, ...]:
    """Every design, and with its published sizes where it has some."""
    return tuple(
        n for name in variants.names() for n in (name, f"{name}@native") if "@" not in n or variants.design(name).native
    )


def plan(device: torch.device) -> Plan:
    """A GPU's, or a small one for a CPU."""
    if device.type == "cuda":
        return Plan()
    return Plan(
        4096, 128, 1, (1024, 16_384), (64, 256), (4,), (4, 64), (), {}, ("eager",), tuple(variants.names()), frames=20
    )
