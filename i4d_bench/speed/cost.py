"""What a design costs, by torch's own counters: parameters, FLOPs and activation memory, per identity and per frame."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

import kernels
from i4d_bench.types import Identity, MotionCode
from variants import Fusion

T = TypeVar("T")


@dataclass(frozen=True)
class Cost:
    params: int
    flops_identity: int  # prepare
    flops_frame: int  # animate, one frame; Φ included where the design calls it
    memory: int  # bytes: the most that tensors made while animating one frame hold at once
    gaussians: int  # drawn in a frame: those that were lifted, and what the design adds


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of tensor storages made inside it; `peak` is the most at once, `made` their sum. The same on
    CPUs, GPUs and the meta device."""

    def __init__(self):
        super().__init__()
        self.live = self.peak = self.made = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        before = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        out = func(*args, **(kwargs or {}))
        for t in tree_leaves(out):
            if isinstance(t, torch.Tensor):
                storage = t.untyped_storage()
                key = storage._cdata
                if key not in before and key not in self._seen and storage.nbytes():
                    self._seen.add(key)
                    self.live += storage.nbytes()
                    self.made += storage.nbytes()
                    self.peak = max(self.peak, self.live)
                    weakref.finalize(storage, self._freed, key, storage.nbytes())
        return out

    def _freed(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.live -= size


def count(call: Callable[[], T]) -> tuple[T, int]:
    """The result of `call` and the floating-point operations it did (two per multiply-add)."""
    with (
        FlopCounterMode(display=False) as counter,
        sdpa_kernel(SDPBackend.MATH),
    ):  # a CPU's fused attention is not counted
        result = call()
    return result, counter.get_total_flops()


@torch.no_grad()
def cost(fusion: Fusion, identity: Identity, source: MotionCode, driving: MotionCode) -> Cost:
    """Cost of one identity and one driving frame (every batch of size 1), in eager mode: torch does not see into kernels."""
    with kernels.using("eager"):
        fusion.prepare(identity, source)  # what is made once for all people is nobody's
        prepared, per_identity = count(lambda: fusion.prepare(identity, source))
        drawn, per_frame = count(lambda: fusion.animate(prepared, driving))
        with LiveBytes() as memory:
            fusion.animate(prepared, driving)
    return Cost(sum(p.numel() for p in fusion.parameters()), per_identity, per_frame, memory.peak, drawn.means.shape[1])
