"""A training's curves for TensorBoard, while it runs. The curve that counts is in the checkpoint (`checkpoint.Progress`)."""

from __future__ import annotations

from pathlib import Path

import torch

from i4d_bench import outputs
from i4d_bench.extras import extra

EVERY = 10
"""Steps between two points: each waits for the GPU."""


def check(log: Path) -> None:
    """Raises UserError where nothing can be logged."""
    with extra("tensorboard", "--tensorboard"):
        import torch.utils.tensorboard as _  # noqa: F401  (found missing before the work, not after)
    outputs.folder(log)


class Curves:
    """Of one training; one that goes on takes the place of what was logged after its checkpoint. To be closed."""

    def __init__(self, log: Path | None, path: Path, step: int):
        """log: the folder that TensorBoard is shown; None: nothing is logged. path: of the checkpoint. step: that it is at."""
        self.writer = None
        if log is not None:
            from torch.utils.tensorboard import SummaryWriter

            name = path.parent if path.stem == "checkpoint" else path.with_suffix("")
            self.writer = SummaryWriter(str(log / name.parent.name / name.name), purge_step=step + 1)

    def learned(self, step: int, loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        if self.writer is not None and step % EVERY == 0:
            self.writer.add_scalar("train/loss", float(loss), step)
            for group, name in zip(optimizer.param_groups, ("backbone", "fusion"), strict=False):
                self.writer.add_scalar(f"learning rate/{name}", group["lr"], step)

    def validated(self, row: dict[str, float]) -> None:
        """row: as `Progress.curve` holds it."""
        for name, value in row.items():
            if self.writer is not None and name not in ("step", "seconds"):
                self.writer.add_scalar(f"validation/{name}", value, int(row["step"]))

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
