"""The record of one run (DESIGN §7)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from i4d_bench import BENCHMARK_VERSION
from i4d_bench.results.environment import environment

SCHEMA = 2
Status = Literal["started", "did not start", "control", "failed"]


def moment() -> str:
    """Now, as records have it."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


@dataclass
class Record:
    """Everything about one run. `metrics`: set → metric → {mean, se, n, failures, mean_success, higher_is_better}."""

    run_id: str  # of all that training depended on
    design: str
    family: str
    preset: str
    config: dict[str, Any]
    overrides: dict[str, Any]
    seed: int
    driver: str
    data: dict[str, Any]
    status: Status
    why: str = ""
    scoring: str = ""  # of all that the scores depended on beside it; empty where nothing is scored
    made: dict[str, str] = field(
        default_factory=dict
    )  # what runs of one table have in common: hardware, data, training, scoring
    weights: dict[str, str] = field(
        default_factory=dict
    )  # hashes of what was trained before the design: backbone, readers, the encoder of a driver
    checkpoint: str = ""  # hash of what was trained
    predictions: dict[str, str] = field(default_factory=dict)  # hashes of the pictures that were scored, by set
    params: int | None = None
    flops_identity: int | None = None
    flops_frame: int | None = None
    memory: int | None = None  # bytes of activations while animating one frame
    gaussians: int | None = None  # drawn in a frame
    train_seconds: float | None = None
    curve: list[dict[str, float]] = field(default_factory=list)
    onset: dict[str, float] | None = None
    late_gain: float | None = None  # dB that the last tenth of training added to the gap
    metrics: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    references: dict[str, dict[str, dict[str, Any]]] = field(
        default_factory=dict
    )  # what is known without any avatar scores there: name → set → metric
    sees: list[str] = field(
        default_factory=list
    )  # what it knows that others do not: its row stands in a block of its own
    notes: list[str] = field(default_factory=list)
    extras: dict[str, float | None] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=lambda: environment())
    created: str = field(default_factory=moment)
    asked: str = ""  # when it was last asked for while others had the table; empty if never
    schema: int = SCHEMA
    benchmark_version: int = BENCHMARK_VERSION

    @property
    def training(self) -> tuple[str, Any]:
        """Tells trainings apart: another one may end in the same weights, but not in the same fraction of a second. Scoring a
        checkpoint again, or copying a record, leaves it as it is."""
        return (self.checkpoint, self.train_seconds) if self.checkpoint else (self.run_id, self.created)
