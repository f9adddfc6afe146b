"""Without a GPU, kernels run in Triton's interpreter (fp32 and fp16: its bf16 is wrong)."""

from __future__ import annotations

import os

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
