"""What a run remembers of itself, on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

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


@runtime_checkable
class Remembered(Protocol):
    """What goes on where it was: a module, an optimiser, an adversary."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], /) -> Any: ...


def save(path: Path, parts: Mapping[str, Remembered], progress: Progress) -> None:
    """Writes all or nothing. Raises UserError where it cannot."""
    with atomic_file(path) as partial, partial.open("wb") as file:  # torch writes into a file the name that it opens
        torch.save({**{k: p.state_dict() for k, p in parts.items()}, "progress": vars(progress)}, file)


def resume(path: Path, parts: Mapping[str, Remembered], device: torch.device) -> Progress:
    """Raises UserError for a damaged checkpoint."""
    try:
        state = torch.load(path, map_location=device)
    except Exception as e:  # torch raises several kinds for a damaged file
        raise UserError(f"the checkpoint {path} cannot be read ({type(e).__name__}): delete it to train again") from e
    for key, part in parts.items():
        part.load_state_dict(state[key])
    return Progress(**state["progress"])
