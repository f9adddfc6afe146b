"""What a kernel must keep to be called right: its error to the twin in fp64, with outputs poisoned. And what it must move."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

import kernels

ROUNDING = {torch.float32: 2e-6, torch.float16: 2e-4, torch.bfloat16: 1e-3}
"""Relative errors that do not count. In 16 bits what one rounding to nearest leaves in the mean (fp16: 2⁻¹¹/√3, times 0.7 because
significands lie in 1..2); in fp32 what three tf32 products and a 22-bit logarithm leave where the twin is luckier."""
WEIGHTINGS, ENOUGH = 8, 100
"""Random weightings of the outputs whose gradients `Case.check` takes an error from, at most; numbers that are enough for it."""


@dataclass(frozen=True)
class Draw:
    """Random tensors on a device, fp32 and int32, the same for the same seed."""

    generator: torch.Generator

    @classmethod
    def seeded(cls, seed: int, device: str | torch.device = "cpu") -> Draw:
        return cls(torch.Generator(device).manual_seed(seed))

    def __call__(self, *shape: int, std: float = 1.0) -> Tensor:
        return std * torch.randn(shape, generator=self.generator, device=self.generator.device)

    def below(self, limit: int, *shape: int) -> Tensor:
        return torch.randint(0, limit, shape, generator=self.generator, device=self.generator.device, dtype=torch.int32)


def bytes_moved(x: Any, out: Any) -> int:
    """The least a kernel can move: every input read once and every output written once."""
    return sum(t.numel() * t.element_size() for t in (*tensors(x), *tensors(out)))


@dataclass(frozen=True)
class Case:
    """make(n, people, frames, storage, draw, **sizes) → inputs by name; call(inputs) → outputs, by the mode that `kernels.using`
    set, the first of them [F,N,…] of N Gaussians or vertices.

    leaves: inputs that gradients reach. flops: floating-point operations per Gaussian or vertex and frame, two per multiply-add,
    at the sizes that `make` has by default. bytes: what (inputs, outputs) cost, at least. rounding: of fp32, in ROUNDING's place.
    per_gaussian: whether n matters. batches: numbers of frames that the speed report times besides its own. others: calls that
    compute the same by other libraries' kernels, by name.
    """

    name: str
    make: Callable[..., dict[str, Any]]
    call: Callable[[dict[str, Any]], tuple[Tensor, ...]]
    leaves: tuple[str, ...]
    flops: int
    bytes: Callable[[dict[str, Any], tuple[Tensor, ...]], int] = bytes_moved
    rounding: float = ROUNDING[torch.float32]
    per_gaussian: bool = True
    batches: tuple[int, ...] = ()
    others: dict[str, Callable[[dict[str, Any]], tuple[Tensor, ...]]] = field(default_factory=dict)

    def inputs(
        self,
        n: int,
        people: int = 1,
        frames: int = 1,
        storage: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        seed: int = 0,
        **sizes: int,
    ) -> dict[str, Any]:
        """Random inputs of `frames` frames for each of `people`; what may be stored in 16 bits per Gaussian in `storage`."""
        return self.make(n, people, frames, storage, Draw.seeded(seed, device), **sizes)

    def cost(self, x: dict[str, Any]) -> dict[str, int]:
        """The bytes and flops that these inputs cost forward, at least."""
        with torch.no_grad(), kernels.using("eager"):
            out = self.call(x)
        frames, items = out[0].shape[:2]
        return {"bytes": self.bytes(x, out), "flops": self.flops * frames * items}

    def check(
        self, x: dict[str, Any], mode: kernels.Mode = "triton", backward: bool = False, call: Callable | None = None
    ) -> dict[str, float]:
        """By output (and gradient): the error of `mode` over what it may be, twice that of the twin in the same types and the
        rounding of the coarsest of them; errors are to the twin in fp64, as norms relative to the truth. Above 1 it is wrong.
        call: in this case's place (compiled, say). What a kernel leaves unwritten is NaN here, and wrong.

        In 16 bits gradients with few numbers are of several random weightings of the outputs together: from k numbers of even
        size an error is known to a part 1/√(2k) of it, and the 14 of d c2 are ruled by three or four. From one weighting in
        fp16 a kernel as exact as its twin (0.4 of the limit in the mean) is found wrong one time in 30 to 60, where the twin's
        error is small by luck; from eight never in 1,500. In fp32 it is above the usual errors.
        """
        stored = {t.dtype for t in tensors(x) if t.is_floating_point()}
        rounding = max(self.rounding if dtype == torch.float32 else ROUNDING[dtype] for dtype in stored)
        fewest = min(x[k].numel() for k in self.leaves)
        several = min(WEIGHTINGS, -(-ENOUGH // fewest)) if stored != {torch.float32} else 1
        exact = self.run(cast(x, torch.float64), "eager", backward, several)
        plain = self.run(x, "eager", backward, several)
        with poisoned() if mode == "triton" else nullcontext():
            fast = self.run(x, mode, backward, several, call)
        out = {}
        for key, true in exact.items():
            if fast[key].shape != true.shape:
                raise ValueError(f"{self.name}: {key} is {list(fast[key].shape)}, not {list(true.shape)}")
            error = lambda y, true=true: float((y.double() - true).norm() / true.norm().clamp_min(1e-30))  # noqa: E731
            ratio = error(fast[key]) / (2 * error(plain[key]) + rounding)
            out[key] = ratio if ratio == ratio else float("inf")
        return out

    def run(
        self,
        x: dict[str, Any],
        mode: kernels.Mode,
        backward: bool = False,
        weightings: int = 1,
        call: Callable | None = None,
    ) -> dict[str, Tensor]:
        """Outputs by place; and gradients of `weightings` random weightings of them, stacked, as "d " and the leaf's name."""
        call = call or self.call
        with kernels.using(mode), torch.set_grad_enabled(backward):
            if not backward:
                return {str(k): v for k, v in enumerate(call(x))}
            x = {k: v.detach().requires_grad_() if k in self.leaves else v for k, v in x.items()}
            out, leaves = call(x), [x[k] for k in self.leaves]
            draw = Draw.seeded(99, out[0].device)
            grads = [
                torch.autograd.grad(out, leaves, [draw(*o.shape).to(o) for o in out], retain_graph=k + 1 < weightings)
                for k in range(weightings)
            ]
        return {str(k): v.detach() for k, v in enumerate(out)} | {
            f"d {k}": torch.stack(g) for k, g in zip(self.leaves, zip(*grads, strict=True), strict=True)
        }


@contextmanager
def poisoned() -> Iterator[None]:
    """Inside, what torch.empty and torch.empty_like return is NaN until it is written."""

    def filled(make):
        def made(*args, **options):
            t = make(*args, **options)
            return t.fill_(float("nan")) if t.is_floating_point() else t

        return made

    with patch.object(torch, "empty", filled(torch.empty)), patch.object(torch, "empty_like", filled(torch.empty_like)):
        yield


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
