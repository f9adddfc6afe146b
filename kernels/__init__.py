"""Fused kernels, each with a plain torch twin in `kernels.reference` that is its specification.

`kernels.<op>(…)` runs the Triton kernel on CUDA tensors and the twin on CPU tensors. `with using("eager")` or
`using("triton")` asks for one of them by name; where that one cannot run, the op raises: nothing falls back silently.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from torch import Tensor

from kernels import reference

Mode = Literal["auto", "eager", "triton"]
_mode: Mode = "auto"


@contextmanager
def using(mode: Mode) -> Iterator[None]:
    """Inside, every op runs as named: "auto" (Triton on CUDA), "eager" (the twin) or "triton". Raises ValueError."""
    global _mode
    if mode not in ("auto", "eager", "triton"):
        raise ValueError(f"there is no kernel mode {mode!r}; there are auto, eager, triton")
    before, _mode = _mode, mode
    try:
        yield
    finally:
        _mode = before


def triton_wanted(tensor: Tensor) -> bool:
    """Whether ops on `tensor` go to Triton. Raises RuntimeError where Triton is asked for by name and cannot run."""
    if _mode == "triton":
        from triton.runtime import interpreter  # noqa: F401
    return _mode == "triton" or (_mode == "auto" and tensor.is_cuda)
