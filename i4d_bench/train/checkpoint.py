"""What a run remembers of itself, on disk."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from i4d_bench.cache import atomic_file
from i4d_bench.evaluate.gap import ONSET_DB
from i4d_bench.types import UserError


@dataclass
class Progress:
    """What a run remembers of itself; travels in the checkpoint."""

    step: int = 0
    seconds: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)

    @property
    def onset(self) -> dict[str, float] | None:
        """The first validation whose gap passes ONSET_DB: {step, seconds, gap}; None before."""
        return next((c for c in self.curve if c["gap"] >= ONSET_DB), None)


def _save(path: Path, modules: dict[str, nn.Module], optimizer, progress: Progress) -> None:
    state = {k: m.state_dict() for k, m in modules.items()}
    with atomic_file(path) as partial:
        torch.save({**state, "optimizer": optimizer.state_dict(), "progress": vars(progress)}, partial)


def _resume(path: Path, modules: dict[str, nn.Module], optimizer, device) -> Progress:
    try:
        state = torch.load(path, map_location=device)
    except Exception as e:  # torch raises several kinds for a damaged file
        raise UserError(f"the checkpoint {path} cannot be read ({type(e).__name__}): delete it to train again") from e
    for key, module in modules.items():
        module.load_state_dict(state[key])
    optimizer.load_state_dict(state["optimizer"])
    return Progress(**state["progress"])
