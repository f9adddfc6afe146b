"""How the kernels are launched: types, widths in pieces, programs per frame, and inputs as kernels read them."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

EPS = tl.constexpr(1e-5)


def pieces(width: int) -> tuple[int, int]:
    """A width as two powers of two of at least 16 that hold it: 48 → 32, 16."""
    wide = max(16, triton.next_power_of_2(width + 1) // 2)
    if wide == width:
        wide = max(16, width // 2)
    return wide, max(16, triton.next_power_of_2(max(width - wide, 1)))


def widths(**sizes: int) -> dict[str, int]:
    """M=48 → M=48, M1=32, M2=16: what the kernels call widths and their pieces."""
    return {k + i: n for k, size in sizes.items() for i, n in zip(("", "1", "2"), (size, *pieces(size)), strict=True)}


def precision(stored: torch.dtype, device: torch.device) -> dict:
    """How features stored so are computed with."""
    half, cuda = stored != torch.float32, device.type == "cuda"
    single = "tf32x3" if torch.get_float32_matmul_precision() == "highest" else "tf32"
    return {"HALF": half, "ASM": cuda, "P": single if cuda and not half else "ieee"}


def parts(n: int, frames: int, tile: int, resident: int, device: torch.device) -> int:
    """Programs per frame: as many as the processors hold at once, if there are tiles for them."""
    cuda = device.type == "cuda"
    every = resident * torch.cuda.get_device_properties(device).multi_processor_count if cuda else 3
    return max(1, min(triton.cdiv(n, tile), -(-every // frames)))


def shared(prior: Tensor) -> Tensor:
    """The prior as the kernels read it: one for all people where it is the same memory."""
    return prior.contiguous() if prior.stride(0) else prior[:1].contiguous()


def per_identity(d: Tensor, people: int) -> Tensor:
    """Gradients per frame, summed over the frames of each person."""
    return d if len(d) == people else d.unflatten(0, (people, -1)).sum(1)


def per_person(frames: int, people: int) -> int:
    """Frames of each person. Raises ValueError where they do not come out even."""
    if frames % people:
        raise ValueError(f"{frames} frames cannot be divided among {people} people")
    return frames // people


def in_fp32(*tensors: Tensor) -> None:
    """Raises ValueError for other types: the head's kernels compute in fp32."""
    for t in tensors:
        if t.dtype != torch.float32:
            raise ValueError(
                f"the head's kernels compute in float32, not in {t.dtype}; kernels.reference takes any type"
            )


def aligned(keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Both with the same strides and whole rows."""
    same = keys.stride() == values.stride() and keys.stride(-1) == 1
    return (keys, values) if same else (keys.contiguous(), values.contiguous())
