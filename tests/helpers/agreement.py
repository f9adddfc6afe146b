"""Where kernels are tested, and the accuracy contract (`kernels.contract.Case.check`) as an assertion."""

from __future__ import annotations

from typing import Any

import torch

import kernels
import variants
from kernels.contract import Case

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HALVES = [torch.float16] + ([torch.bfloat16] if DEVICE == "cuda" else [])


def agree(case: Case, inputs: dict[str, Any]) -> None:
    """Outputs and all gradients are as exact as the twin's, and everything is written."""
    ratios = case.check(inputs, backward=True)
    wrong = {k: f"{ratio:.2f} of what is allowed" for k, ratio in ratios.items() if ratio > 1}
    assert not wrong


def same_through_the_kernel(design: str, tiny) -> None:
    """Two people with two frames each: the design's Gaussians by the kernel are those of the twin."""
    torch.manual_seed(0)
    fusion = variants.create(design).to(DEVICE)
    identity, source, driving = tiny.identity(2, DEVICE), tiny.code(2, DEVICE), tiny.code(4, DEVICE, seed=2)
    results = {}
    for mode in ("eager", "triton"):
        with kernels.using(mode):
            results[mode] = fusion.animate(fusion.prepare(identity, source), driving)
    for field, got in vars(results["triton"]).items():
        torch.testing.assert_close(got, getattr(results["eager"], field), rtol=1e-4, atol=1e-5)
