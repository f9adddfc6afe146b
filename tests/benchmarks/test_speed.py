"""Kernels, stages and whole frames of every design, in every mode. What gives wrong output fails and is not timed.

On a GPU at the paper's size. On a CPU small, and eager alone: Triton's interpreter is no measure of anything, and compiling would
take longer than all the rest.
"""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
import torch
from helpers.designs import under_test
from helpers.scenes import camera, scene

from i4d_bench.render import render
from i4d_bench.speed import rig
from i4d_bench.speed.plan import plan
from i4d_bench.speed.rows import PSNR, Kernel, Stage
from kernels.cases import CASES

GPU = torch.cuda.is_available()
PLAN = plan(torch.device("cuda" if GPU else "cpu"))
N, RESOLUTION = (PLAN.gaussians, PLAN.resolution) if GPU else (1024, 64)
CALLS = 12
"""Of a kernel, which takes tens of microseconds, in one round."""

STAGES = [Stage("driver", "resnet18", m, 1) for m in PLAN.modes]
STAGES += [Stage("raster", "static", m, 1, N, RESOLUTION) for m in PLAN.modes if m in rig.RASTERS]
STAGES += [Stage(s, d, m, 1, N, RESOLUTION) for d in under_test() for s in ("fusion", "frame") for m in PLAN.modes]
KERNELS = [
    Kernel(case.name, m, 1, N, backward)
    for case in CASES
    for backward in (False, True)
    for m in rig.MODES[:3]
    if m in PLAN.modes
]


@pytest.mark.parametrize("row", KERNELS, ids=lambda row: row.key)
def test_kernel(row, device, timed):
    call, error, least = row.prepare(PLAN, device)
    assert error is None or error <= 1, f"wrong output: {error:.1f} times the error that {row.mode} may have"
    timed(row.key, call, CALLS, **least)


@pytest.mark.parametrize("row", STAGES, ids=lambda row: row.key)
@torch.no_grad()
def test_stage(row, device, timed):
    call, psnr = row.prepare(replace(PLAN, gaussians=N, resolution=RESOLUTION), device)
    assert psnr >= PSNR, f"wrong output: {psnr:.1f} dB from fp32 eager's picture"
    timed(row.key, call, psnr=psnr)


@pytest.mark.skipif(GPU, reason="the CPU's rasteriser is timed on machines that use it")
def test_cpu_rasteriser_is_twenty_times_faster_than_the_reference(timed, benchmark):
    """Forward and backward, 4,096 Gaussians at 128²; the reference is timed on a sixteenth of them, to be brief."""

    def call(backend: str = "cpu", count: int = 4096) -> None:
        render(scene(1, count, 0.01), camera(1, 128, 128), backend=backend).rgb.sum().backward()

    timed("raster/cpu+backward/eager/b1/n4096/r128", lambda k: call())
    if not benchmark.disabled:
        start = time.perf_counter()
        call("reference", 256)
        assert 16 * (time.perf_counter() - start) > 20 * benchmark.stats.stats.median


def test_wrong_output_fails_and_is_not_timed(monkeypatch):
    monkeypatch.setattr(Kernel, "prepare", lambda *a: (None, 2.0, {}))
    monkeypatch.setattr(Stage, "prepare", lambda *a: (None, 30.0))
    for keys, benchmark in ((KERNELS, test_kernel), (STAGES, test_stage)):
        with pytest.raises(AssertionError, match="wrong output"):
            benchmark(next(iter(keys)), torch.device("cpu"), timed=pytest.fail)
