"""A design prepared for one person, by chosen kernels and in a chosen type: what is drawn and what is timed."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch

import kernels
from i4d_bench.types import Gaussians, Identity, MotionCode
from variants import Fusion


def prepared(
    fusion: Fusion,
    identity: Identity,
    source: MotionCode,
    ops: kernels.Mode = "auto",
    storage: torch.dtype = torch.float32,
    compiled: bool = False,
) -> Callable[[MotionCode], Gaussians]:
    """Motion code → Gaussians of one person, by those ops. storage: of what a copy of the design keeps per Gaussian. compiled: by
    torch.compile."""
    own = copy.deepcopy(fusion)
    own.storage = storage
    with torch.no_grad(), kernels.using(ops):
        ready = own.prepare(identity, source)
    animate = torch.compile(own.animate) if compiled else own.animate

    def call(code: MotionCode) -> Gaussians:
        with kernels.using(ops):
            return animate(ready, code)

    return call
