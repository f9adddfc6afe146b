"""Compiles every kernel for GPUs that are not there, and says whether it fits them: `python -m kernels.compile sm_86 sm_89`.

Triton compiles without a card. Here the ops themselves run, on CPU tensors, with a card on paper in place of Triton's driver, and
their launches stop where the kernel is compiled: so that is compiled which they would launch there, chosen as they choose it.
"""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from types import SimpleNamespace
from typing import NamedTuple
from unittest.mock import patch

import kernels
from kernels.check import KINDS, PROBLEMS, precision, tile_lists

SHARED = {"sm_80": 163, "sm_86": 99, "sm_89": 99, "sm_90": 227, "sm_120": 99}
"""KB of shared memory that a program may ask for (CUDA C++ Programming Guide, technical specifications per compute capability)."""
N = 4096


class Launched(NamedTuple):
    """A kernel as it was compiled: its op, its name, and the bytes of shared memory that a program of it has."""

    op: str
    kernel: str
    shared: int


class OnPaper:
    """A card in place of Triton's driver: what Triton and `kernels.fused.launch` ask of it to compile."""

    def __init__(self, arch: str):
        from triton.backends.compiler import GPUTarget

        self.target = GPUTarget("cuda", int(arch.removeprefix("sm_")), 32)
        properties = {"max_shared_mem": SHARED[arch] * 1024, "multiprocessor_count": 4}
        self.utils = SimpleNamespace(get_device_properties=lambda device: properties)

    def get_current_target(self):
        return self.target

    def get_current_device(self) -> int:
        return self.target.arch

    def get_current_stream(self, device: int) -> int:
        return 0


def launches(arch: str, kind: str, ops: list[str] | None = None) -> list[Launched]:
    """What the ops (or some of them) launch on a card, forward, backward and in inference. Raises `kernels.Unsupported` where an
    op has nothing that fits."""
    from triton.runtime import JITFunction, driver

    from kernels.fused.launch import card

    found: list[Launched] = []
    run, op = JITFunction.run, ""

    def compiled(kernel, *args, grid, warmup, **meta):
        made = run(kernel, *args, grid=grid, warmup=True, **meta)
        if not warmup:
            found.append(
                Launched(op, f"{kernel.fn.__module__.rpartition('.')[2]}.{kernel.fn.__name__}", made.metadata.shared)
            )
        return made

    driver.set_active(OnPaper(arch))
    limit = card().shared
    with (
        patch.object(JITFunction, "run", compiled),
        patch.object(kernels, "triton_wanted", return_value=True),
        precision(kind),
    ):
        for problem in PROBLEMS:
            op = problem.case.name
            x = problem.inputs(N, kind, "cpu") if ops is None or op in ops else None
            if x is not None:
                problem.case.run(x, "triton")
                problem.case.run(x, "triton", backward=True)
        if ops is None:
            op = "tile_lists"
            tile_lists("cpu")
    for one in found:
        if one.shared > limit:
            raise kernels.Unsupported(f"{one.op}: {one.kernel} takes {one.shared} bytes of shared memory of {limit}")
    return found


def _timed(arch: str, kind: str) -> tuple[str, str, list[Launched] | str, float]:
    start = time.perf_counter()
    try:
        found: list[Launched] | str = launches(arch, kind)
    except kernels.Unsupported as e:
        found = str(e)
    return arch, kind, found, time.perf_counter() - start


def main(arguments: list[str]) -> int:
    """Prints a line per card and kind as it is done. Returns 1 where something does not fit, 2 for a card that is not known."""
    wrong = 0
    tasks = [(arch, kind) for arch in arguments or SHARED for kind in KINDS]
    if unknown := {arch for arch, _ in tasks} - SHARED.keys():
        print(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(SHARED)}", file=sys.stderr)
        return 2
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        for arch, kind, found, seconds in pool.map(_timed, *zip(*tasks, strict=True)):
            if isinstance(found, str):
                wrong += 1
                print(f"  FAILED   {arch} {kind}: {found}", flush=True)
            else:
                most = max(found, key=lambda one: one.shared)
                print(
                    f"  ok       {arch} {kind}: {len(found)} kernels, at most {most.shared / 1024:.0f} of {SHARED[arch]} KB "
                    f"({most.kernel}), {seconds:.0f} s",
                    flush=True,
                )
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
