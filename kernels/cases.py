"""Problems for the kernels, as tests, benchmarks and the speed report share them: one set-up for correctness and for time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import kernels
from kernels.reference import RAW, Phi, Psi

FEATURES, HIDDEN = 48, 96


@dataclass(frozen=True)
class Case:
    """make(n, people, frames, storage, draw) → inputs by name; call(inputs) → outputs, by the mode that `kernels.using` set.

    leaves: inputs that gradients reach. flops: floating-point operations per Gaussian and frame, two per multiply-add.
    """

    name: str
    make: Callable[..., dict[str, Any]]
    call: Callable[[dict[str, Any]], tuple[Tensor, ...]]
    leaves: tuple[str, ...]
    flops: int

    def inputs(
        self, n: int, people: int = 1, frames: int = 1, storage=torch.float32, device="cpu", seed: int = 0
    ) -> dict[str, Any]:
        """Random inputs of `frames` frames for each of `people`; what there is per Gaussian in `storage`."""
        generator = torch.Generator(device).manual_seed(seed)

        def draw(*shape: int, std: float = 1.0) -> Tensor:
            return std * torch.randn(*shape, generator=generator, device=device)

        return self.make(n, people, frames, storage, draw)

    def check(
        self, x: dict[str, Any], mode: kernels.Mode = "triton", backward: bool = False, floor: float = 0.0
    ) -> dict[str, float]:
        """By output (and gradient): the error of `mode` over twice that of the twin in the same types, both against the twin in
        fp64, as norms relative to the truth. Above 1 the kernel is wrong. floor: errors below it do not count."""
        exact = self._run(cast(x, torch.float64), "eager", backward)
        plain, fast = self._run(x, "eager", backward), self._run(x, mode, backward)
        out = {}
        for key, true in exact.items():
            error = lambda y, true=true: float((y.double() - true).norm() / true.norm().clamp_min(1e-30))  # noqa: E731
            ratio = error(fast[key]) / (2 * error(plain[key]) + floor)
            out[key] = ratio if ratio == ratio else float("inf")
        return out

    def _run(self, x: dict[str, Any], mode: kernels.Mode, backward: bool) -> dict[str, Tensor]:
        with kernels.using(mode), torch.set_grad_enabled(backward):
            if not backward:
                return {str(k): v for k, v in enumerate(self.call(x))}
            x = {k: v.detach().requires_grad_() if k in self.leaves else v for k, v in x.items()}
            out = self.call(x)
            weights = [
                torch.randn(o.shape, generator=torch.Generator().manual_seed(k)).to(o) for k, o in enumerate(out)
            ]
            grads = torch.autograd.grad(out, [x[k] for k in self.leaves], weights)
        return {str(k): v.detach() for k, v in enumerate(out)} | {
            f"d {k}": g for k, g in zip(self.leaves, grads, strict=True)
        }


def cast(x: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """All floating-point tensors, in tuples too, in `dtype`."""

    def one(v):
        if isinstance(v, Tensor):
            return v.to(dtype) if v.is_floating_point() else v
        if isinstance(v, tuple):
            parts = [one(t) for t in v]
            return type(v)(*parts) if hasattr(v, "_fields") else tuple(parts)
        return v

    return {k: one(v) for k, v in x.items()}


def tensors(x: Any) -> Iterator[Tensor]:
    """Every tensor in dicts, tuples and dataclasses."""
    if isinstance(x, Tensor):
        yield x
    elif isinstance(x, dict):
        yield from tensors(tuple(x.values()))
    elif isinstance(x, (tuple, list)):
        for v in x:
            yield from tensors(v)
    elif dataclasses.is_dataclass(x):
        yield from tensors(tuple(getattr(x, f.name) for f in dataclasses.fields(x)))


def bytes_moved(x: Any, out: Any) -> int:
    """The least a kernel can move: every input read once and every output written once."""
    return sum(t.numel() * t.element_size() for t in (*tensors(x), *tensors(out)))


def _decode(n, people, frames, storage, draw):
    return {
        "f": draw(people * frames, n, FEATURES).to(storage), "prior": draw(1, n, RAW),
        "u1": draw(HIDDEN, FEATURES, std=0.2), "c1": draw(HIDDEN, std=0.2), "u2": draw(RAW, HIDDEN, std=0.2), "c2": draw(RAW),
    }  # fmt: skip


def _local_fusion(n, people, frames, storage, draw):
    rows = people * frames
    return _decode(n, people, 1, storage, draw) | {
        "basis": draw(people, n, FEATURES).to(storage), "gain": draw(rows, FEATURES), "bias": draw(rows, HIDDEN),
        "w1": draw(HIDDEN, FEATURES, std=0.2), "w2": draw(FEATURES, HIDDEN, std=0.1), "b2": draw(FEATURES, std=0.1),
    }  # fmt: skip


def _phi(x) -> Phi:
    return Phi(x["u1"], x["c1"], x["u2"], x["c2"])


def _call_local_fusion(x) -> tuple[Tensor, ...]:
    psi = Psi(x["w1"], x["w2"], x["b2"])
    attributes, delta = kernels.local_fusion(x["basis"], x["gain"], x["bias"], x["f"], psi, _phi(x), x["prior"])
    return (*attributes, delta) if torch.is_grad_enabled() else attributes


_PHI_FLOPS = 2 * (FEATURES * HIDDEN + HIDDEN * RAW)
CASES = [
    Case("decode", _decode, lambda x: kernels.decode(x["f"], _phi(x), x["prior"]), ("f", "u1", "c1", "u2", "c2", "prior"),
         _PHI_FLOPS),
    Case("local_fusion", _local_fusion, _call_local_fusion,
         ("basis", "gain", "bias", "f", "w1", "w2", "b2", "u1", "c1", "u2", "c2", "prior"),
         _PHI_FLOPS + 4 * FEATURES * HIDDEN),
]  # fmt: skip
