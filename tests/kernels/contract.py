"""Random FLAME-format heads and the accuracy contract: at most twice the error of the twin in the same precision."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.reference import Flame

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FLOOR = {torch.float32: 3e-7, torch.float16: 2e-4, torch.bfloat16: 1e-3}
"""Relative to a tensor's norm: below it, errors are not compared."""


class Rand:
    """Seeded normal numbers in fp64 on the device."""

    def __init__(self, seed: int = 0):
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, *shape: int, std: float = 1.0) -> Tensor:
        return (std * torch.randn(*shape, generator=self.generator, dtype=torch.float64)).to(DEVICE)

    def below(self, limit: int, *shape: int) -> Tensor:
        return torch.randint(0, limit, shape, generator=self.generator).to(DEVICE)


def flame(
    vertices: int, n_shape: int, n_expression: int, people: int = 1, aligned: bool = True, seed: int = 0
) -> Flame:
    """fp64. aligned: rows of the directions padded to a multiple of 32, as `FlameModel` stores them."""
    rand, count = Rand(seed), n_shape + n_expression + 36
    directions = rand(count, 3, vertices, std=0.01)
    if aligned:
        directions = torch.nn.functional.pad(directions, (0, -vertices % 32))
    return Flame(
        rand(people, vertices, 3, std=0.15), directions, (2 * rand(vertices, 5)).softmax(-1), rand(people, 5, 3, std=0.1),
        rand(n_shape, 5, 3, std=0.01), (-1, 0, 1, 1, 1),
    )  # fmt: skip


def in_type(structure, dtype: torch.dtype):
    """A NamedTuple with its floating tensors in `dtype`."""
    cast = lambda t: t.to(dtype) if isinstance(t, Tensor) and t.is_floating_point() else t  # noqa: E731
    return type(structure)(*(cast(t) for t in structure))


def outputs_and_gradients(
    op, leaves: dict[str, Tensor], dtypes: dict[str, torch.dtype] | torch.dtype
) -> dict[str, Tensor]:
    """What `op` (leaves → NamedTuple) gives, and the gradients of a random weighting of it to every leaf."""
    of = dtypes.get if isinstance(dtypes, dict) else lambda _: dtypes
    x = {k: v.detach().to(of(k)).requires_grad_() for k, v in leaves.items()}
    out = op(x)
    rand = Rand(99)
    sum((rand(*t.shape).to(t) * t).sum() for t in out).backward()
    missing = [k for k, v in x.items() if v.grad is None]
    assert not missing, f"no gradient reaches {missing}"
    return {**{k: v.detach() for k, v in out._asdict().items()}, **{f"d_{k}": v.grad for k, v in x.items()}}


def check(exact: dict[str, Tensor], twin: dict[str, Tensor], got: dict[str, Tensor], dtype=torch.float32) -> None:
    assert exact.keys() == twin.keys() == got.keys()
    for key, true in exact.items():
        assert got[key].shape == true.shape, key
        assert got[key].isfinite().all(), f"{key} has numbers that were never written"
        error = lambda t, true=true: float((t.double() - true).norm() / true.norm().clamp_min(1e-30))  # noqa: E731
        limit = 2 * error(twin[key]) + FLOOR[dtype]
        assert error(got[key]) <= limit, f"{key}: {error(got[key]):.2e}, the twin has {error(twin[key]):.2e}"
