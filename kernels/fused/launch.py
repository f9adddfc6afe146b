"""How the kernels are launched: with settings that fit the card, types, widths in pieces, programs per frame, inputs as they read
them.

What a card is short of is a program's shared memory: 227 KB on an H100 (sm_90), 163 on an A100 (sm_80), 99 on RTX 30 and 40, L4
and L40 (sm_86, sm_89) and RTX 50 (sm_120). So a kernel comes with the ways there are to run it, the fastest on an H100 first, and
runs in the first that fits. `kernels.compile` shows that every kernel has one on every card.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.compiler import CompiledKernel
from triton.runtime import driver

from kernels.layout import Unsupported

Settings = dict[str, int | bool | None]
"""Constants of a launch: the kernel's, such as TILE, and Triton's, such as num_warps."""
Way = Sequence[Settings]
"""Launches of one kernel, one after another."""
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Triton's interpreter runs the kernels: there is no card, and everything fits."""
OLDEST = 80
"""Triton has no tensor cores below, and ptxas no arithmetic on pairs of fp16 such as the softplus'."""
EPS = tl.constexpr(1e-5)


class Card(NamedTuple):
    """What a launch must know of a GPU."""

    arch: int
    """Compute capability: 89 is 8.9."""
    processors: int
    shared: int
    """Bytes of shared memory that a program may ask for."""


def card() -> Card:
    """The GPU in use. Raises Unsupported where it is older than Ampere."""
    return _card(driver.active, driver.active.get_current_device())


@functools.cache
def _card(active, device: int) -> Card:
    arch, has = active.get_current_target().arch, active.utils.get_device_properties(device)
    if arch < OLDEST:
        raise Unsupported(
            f"the Triton kernels need a GPU of compute capability 8.0 (Ampere) or newer, and this one has {arch / 10}: "
            "without a GPU (CUDA_VISIBLE_DEVICES=-1) everything runs on the CPU"
        )
    return Card(arch, has["multiprocessor_count"], has["max_shared_mem"])


_chosen: dict[tuple, Way | None] = {}


def fitting(kernel, grid, ways: Sequence[Way], *args, **meta) -> Way | None:
    """The first of the ways that fits, or None; what it asks about is compiled, once. ways: the same for the same constants."""
    stored = next(t.dtype for t in args if t is not None)
    key = (None if INTERPRETED else card(), kernel.fn, stored, *meta.values())
    if key not in _chosen:
        _chosen[key] = next((way for way in ways if fits(kernel, grid, way, *args, **meta)), None)
    return _chosen[key]


def fits(kernel, grid, way: Way, *args, **meta) -> bool:
    """Whether the card has the shared memory for all launches of a way."""
    return INTERPRETED or all(_shared(kernel, grid, how, args, meta) <= card().shared for how in way)


def _shared(kernel, grid, settings: Settings, args, meta) -> int:
    """Bytes of shared memory that Triton gives a program, which compiling the kernel tells."""
    return kernel.warmup(*args, grid=grid, **meta, **settings).metadata.shared


def launch(kernel, grid, ways: Sequence[Way], *args, **meta) -> None:
    """Runs a kernel in the first of the ways that fits. Raises Unsupported where none does."""
    way = fitting(kernel, grid, ways, *args, **meta)
    if way is None:
        least, here = min(max(_shared(kernel, grid, how, args, meta) for how in way) for way in ways), card()
        raise Unsupported(
            f"{kernel.fn.__module__}.{kernel.fn.__name__} needs {least / 1024:.0f} KB of shared memory at these widths, and this "
            f"GPU (sm_{here.arch}) has {here.shared / 1024:.0f}: narrower layers fit"
        )
    for how in way:
        run_kernel(kernel, grid, *args, **meta, **how)


_compiled: dict[tuple, tuple[CompiledKernel, tuple]] = {}
"""Kernels and the constants that follow their arguments, by all that Triton compiles for."""
KEPT = 4096


def run_kernel(kernel, grid, *args, **constants) -> None:
    """`kernel[grid](*args, **constants)`, from the second time on without Triton's dispatch, which takes the host as long as many a
    kernel takes a GPU. It compiles for types, for whether addresses are multiples of 16, for some numbers, and for constants; here
    for every number."""
    if not next(a for a in args if isinstance(a, Tensor)).is_cuda:
        kernel[grid](*args, **constants)
        return
    grid = grid(constants) if callable(grid) else grid
    key = (kernel.fn, torch.cuda.current_device(), *constants.items(), *map(_compiled_for, args))
    if at := _compiled.get(key):
        ready, others = at
        ready[(*grid, 1, 1)[:3]](*args, *others)
    elif (done := kernel[grid](*args, **constants)) is not None:  # None in Triton's interpreter
        if len(_compiled) >= KEPT:
            _compiled.clear()
        _compiled[key] = done, tuple(constants[name] for name in kernel.arg_names[len(args) :])


def _compiled_for(arg: object) -> object:
    return (arg.dtype, arg.data_ptr() % 16) if isinstance(arg, Tensor) else arg


def pieces(width: int) -> tuple[int, int]:
    """A width as two powers of two of at least 16 that hold it: 48 → 32, 16."""
    wide = max(16, triton.next_power_of_2(width + 1) // 2)
    if wide == width:
        wide = max(16, width // 2)
    return wide, max(16, triton.next_power_of_2(max(width - wide, 1)))


@functools.cache
def widths(**sizes: int) -> dict[str, int]:
    """M=48 → M=48, M1=32, M2=16: what the kernels call widths and their pieces."""
    return {k + i: n for k, size in sizes.items() for i, n in zip(("", "1", "2"), (size, *pieces(size)), strict=True)}


def precision(stored: torch.dtype) -> dict:
    """How features stored so are computed with."""
    half = stored != torch.float32
    single = "tf32x3" if torch.get_float32_matmul_precision() == "highest" else "tf32"
    return {"HALF": half, "ASM": not INTERPRETED, "P": "ieee" if half or INTERPRETED else single}


def parts(n: int, frames: int, tile: int, resident: int) -> int:
    """Programs per frame: as many as the processors hold at once, if there are tiles for them."""
    every = 3 if INTERPRETED else resident * card().processors
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
