"""Where kernels are tested, and the accuracy contract (`kernels.contract.Case.check`) as an assertion."""

from __future__ import annotations

from typing import Any

import torch

from kernels.contract import Case

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HALVES = [torch.float16] + ([torch.bfloat16] if DEVICE == "cuda" else [])


def agree(case: Case, inputs: dict[str, Any]) -> None:
    """Outputs and all gradients are as exact as the twin's, and everything is written."""
    wrong = {
        k: f"{ratio:.2f} of what is allowed" for k, ratio in case.check(inputs, backward=True).items() if ratio > 1
    }
    assert not wrong
