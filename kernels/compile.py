"""Compiles every kernel for GPUs that are not there, and says whether it fits them: `python -m kernels.compile sm_86 sm_89 fp32`.

Triton compiles without a card. Here the ops themselves run, on CPU tensors, with a card on paper in place of Triton's driver, and
their launches end where the kernel is compiled: so what is compiled is what they would launch there, chosen as they choose it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import groupby
from multiprocessing import get_context
from types import SimpleNamespace
from typing import NamedTuple
from unittest.mock import patch

import kernels
from kernels.check import KINDS, PROBLEMS, Problem, convolutions, nearest, precision, splat, tile_lists

SHARED = {"sm_80": 163, "sm_86": 99, "sm_89": 99, "sm_90": 227, "sm_120": 99}
"""KB of shared memory that a program may ask for (CUDA C++ Programming Guide, technical specifications per compute capability)."""
N = 4096


class OnPaper:
    """A card in place of Triton's driver: what Triton and `kernels.fused.launch` ask of it before a kernel is launched."""

    def __init__(self, arch: str):
        from triton.backends.compiler import GPUTarget

        self.capability = int(arch.removeprefix("sm_"))
        self.target = GPUTarget("cuda", self.capability, 32)
        properties = {"max_shared_mem": SHARED[arch] * 1024, "multiprocessor_count": 4}
        self.utils = SimpleNamespace(get_device_properties=lambda device: properties)

    def get_current_target(self):
        return self.target

    def get_current_device(self) -> int:
        return self.capability

    def get_current_stream(self, device: int) -> int:
        return 0


class Launch(NamedTuple):
    kernel: str
    shared: int
    """Bytes of shared memory that a program has."""


def launches(arch: str, kind: str, problem: Problem | None) -> list[Launch]:
    """What an op launches on that card, in inference, forward and backward; or where there is no problem, the rasteriser, what
    finds the nearest, and a driver's layers. Raises `kernels.Unsupported` where nothing fits."""
    from triton.runtime import JITFunction, driver

    made: list[Launch] = []
    run = JITFunction.run

    def compiled(kernel, *args, grid, warmup, **meta):
        done = run(kernel, *args, grid=grid, warmup=True, **meta)
        assert done is not None, "Triton compiles without a card"
        if not warmup:
            made.append(Launch(f"{kernel.fn.__module__}.{kernel.fn.__name__}", done.metadata.shared))
        return done

    driver.set_active(OnPaper(arch))  # pyright: ignore[reportArgumentType]  (a driver as far as compiling asks one)
    with (
        patch.object(JITFunction, "run", compiled),
        patch.object(kernels, "triton_wanted", return_value=True),
        precision(kind),
    ):
        if problem is None:
            tile_lists("cpu")
            splat("cpu")
            nearest("cpu")
            convolutions("cpu")
        elif x := problem.inputs(N, kind, "cpu"):
            problem.case.run(x, "triton")
            problem.case.run(x, "triton", backward=True)
    for one in made:
        if one.shared > SHARED[arch] * 1024:
            raise kernels.Unsupported(f"{one.kernel} has {one.shared / 1024:.0f} KB of shared memory")
    return made


class Task(NamedTuple):
    arch: str
    kind: str
    number: int
    """Of the problem; that past the last is the rasteriser."""


class Done(NamedTuple):
    task: Task
    made: list[Launch]
    fault: str
    seconds: float


def tasks(archs: Iterable[str], kinds: Iterable[str]) -> Iterator[Task]:
    for arch in archs:
        for kind in kinds:
            yield from (Task(arch, kind, k) for k in range(len(PROBLEMS) + (kind == next(iter(KINDS)))))


def do(task: Task) -> Done:
    start, made, fault = time.process_time(), [], ""
    problem = PROBLEMS[task.number] if task.number < len(PROBLEMS) else None
    try:
        made = launches(task.arch, task.kind, problem)
    except kernels.Unsupported as e:
        fault = f"{problem.case.name if problem else 'the rasteriser'}: {e}"
    return Done(task, made, fault, time.process_time() - start)


def main(words: list[str]) -> int:
    """Prints a line per card and kind, by default of all, as they are done. Returns 1 where something does not fit, 2 for a word
    that is neither."""
    archs, kinds = ([w for w in words if w in known] or list(known) for known in (SHARED, KINDS))
    if unknown := [w for w in words if w not in (*SHARED, *KINDS)]:
        print(f"{unknown[0]} is neither a card ({', '.join(SHARED)}) nor a kind ({', '.join(KINDS)})", file=sys.stderr)
        return 2
    failed = False
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        for (arch, kind), group in groupby(pool.map(do, tasks(archs, kinds)), lambda done: done.task[:2]):
            done = list(group)
            made, faults = [m for d in done for m in d.made], [d.fault for d in done if d.fault]
            most = max(made, key=lambda m: m.shared)
            print(
                f"  {'FAILED' if faults else 'ok':8} {arch} {kind}: {len(made)} launches, at most {most.shared / 1024:.0f} KB of "
                f"{SHARED[arch]} ({most.kernel}), {sum(d.seconds for d in done):.0f} s of a core {'; '.join(faults)}".rstrip(),
                flush=True,
            )
            failed |= bool(faults)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
