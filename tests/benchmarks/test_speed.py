"""Kernels, stages and whole frames of every design, in every mode. What gives wrong output fails and is not timed.

On a GPU at the paper's size. On a CPU small, and eager alone: Triton's interpreter is no measure of anything, and compiling would
take longer than all the rest.
"""

from __future__ import annotations

import functools

import pytest
import torch

import variants
from i4d_bench import frame, speed
from kernels.cases import CASES

GPU = torch.cuda.is_available()
PLAN = speed.plan(torch.device("cuda" if GPU else "cpu"))
N, RESOLUTION = (PLAN.gaussians, PLAN.resolution) if GPU else (1024, 64)
CALLS = 12
"""Of a kernel, which takes tens of microseconds, in one round."""

STAGES = {f"driver/resnet18/{m}/b1": ("driver", "static", m) for m in PLAN.modes}
for m in PLAN.modes:
    if m in ("eager", "triton+graph"):  # the others splat as eager does
        STAGES[f"raster/static/{m}/b1/n{N}/r{RESOLUTION}"] = ("raster", "static", m)
for d in variants.names():
    STAGES |= {f"fusion/{d}/{m}/b1/n{N}": ("fusion", d, m) for m in PLAN.modes}
    STAGES |= {f"frame/{d}/{m}/b1/n{N}/r{RESOLUTION}": ("frame", d, m) for m in PLAN.modes}
KERNELS = {
    f"kernel/{case.name}{'+backward' if backward else ''}/{m}/b1/n{N}": (case, m, backward)
    for case in CASES
    for backward in (False, True)
    for m in ("eager", "compiled", "triton")
    if m in PLAN.modes
}


@pytest.mark.parametrize("key", KERNELS)
def test_kernel(key, device, timed):
    case, mode, backward = KERNELS[key]
    torch._dynamo.reset()
    call, error, least = speed.kernel_call(case, mode, N, 1, backward, PLAN.storage, device)
    assert error is None or error <= 1, f"wrong output: {error:.1f} times the error that {mode} may have"
    timed(key, call, CALLS, **least)


@functools.lru_cache(maxsize=1)
def rig(design: str, device: torch.device) -> frame.Rig:
    return frame.rig(design, N, RESOLUTION, 1, device, storage=PLAN.storage)


@pytest.mark.parametrize("key", STAGES)
@torch.no_grad()
def test_stage(key, device, timed):
    stage, design, mode = STAGES[key]
    torch._dynamo.reset()
    call, psnr = speed.stage_call(stage, rig(design, device), mode)
    assert psnr >= speed.PSNR, f"wrong output: {psnr:.1f} dB from fp32 eager's picture"
    timed(key, call, psnr=psnr)
