"""One training protocol for every design (DESIGN §4).

The backbone warms up once on reconstruction; then every design starts from its weights and trains jointly with it, on
the same batches in the same order for the same number of steps. A step depends on (configuration, seed, step) alone, so
that a killed run resumes to the same result.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from i4d_bench.config.experiment import Experiment, Stage
from i4d_bench.data.splits import SPLITS, split_of, triples
from i4d_bench.evaluate.gap import driving_gap
from i4d_bench.loader import Batches, Loader
from i4d_bench.model.avatar import Avatar, Backbone
from i4d_bench.progress import track
from i4d_bench.render import render
from i4d_bench.train.checkpoint import Progress, _resume, _save
from i4d_bench.train.losses import feature_change, reconstruction
from i4d_bench.types import ParametricHead
from variants import Fusion

EARLY = (25, 50, 100, 150)
"""Steps at which a design is validated besides every `validate_every`: some follow within the first hundred."""


class Diverged(RuntimeError):
    """The loss stopped being a number."""


@dataclass
class Trainer:
    """A data set, a frozen driver and an experiment; trains the backbone and any design on them."""

    experiment: Experiment
    loader: Loader
    head: ParametricHead | None
    device: torch.device
    lpips: nn.Module | None = None

    def __post_init__(self):
        frames = self.loader.frames
        self.batches = Batches(frames, np.flatnonzero(split_of(frames) == SPLITS.index("train")), self.experiment.seed)
        self.validation = triples(frames, "val", "self")

    def warm_up(self, path: Path) -> None:
        """Warms the backbone up on reconstruction into a checkpoint at `path`, goes on with one, or finds it done."""
        torch.manual_seed(self.experiment.seed)
        backbone = Backbone(self.experiment.model).to(self.device)
        self._fit(path, "backbone", backbone, None, self.experiment.train.warmup)

    def design(self, folder: Path, name: str, backbone: Path) -> tuple[Avatar, Progress]:
        """Trains design `name` jointly with the backbone, or finds it done. Raises Diverged."""
        torch.manual_seed(self.experiment.seed)
        start = torch.load(backbone, map_location=self.device)
        model = Backbone(self.experiment.model).to(self.device)
        model.load_state_dict(start["backbone"])
        avatar = Avatar(model, self.fusion(name))
        progress = self._fit(
            folder / "checkpoint.pt", name, avatar.backbone, avatar.fusion, self.experiment.train.stages, start
        )
        return avatar, progress

    def fusion(self, name: str) -> Fusion:
        return self.experiment.fusion(name).to(self.device)

    def _fit(self, path: Path, name: str, backbone: Backbone, fusion: Fusion | None, stages, start=None) -> Progress:
        config = self.experiment.train
        groups = [{"params": list(backbone.parameters()), "lr": config.lr, "base": config.lr}]
        optimizer = torch.optim.Adam(groups, betas=config.betas, eps=1e-8, fused=True)
        if start is not None and fusion is not None:
            optimizer.load_state_dict(start["optimizer"])  # Adam's memory of the warm-up goes on
            own = list(fusion.parameters())
            if own:
                lr = self.experiment.settings(name).get("lr", config.lr_fusion)
                optimizer.add_param_group({"params": own, "lr": lr, "base": lr})
        modules = {"backbone": backbone, "fusion": fusion or nn.Module()}
        progress, total = Progress(), sum(s.steps for s in stages)
        if path.exists():
            progress = _resume(path, modules, optimizer, self.device)
        if progress.step >= total:
            return progress
        saved = started = time.monotonic()
        before, loss = progress.seconds, torch.zeros(())
        offset = 0 if fusion is None else sum(s.steps for s in config.warmup)  # batches go on where the warm-up ended
        try:
            note = lambda: f"loss {float(loss):.4f}"  # noqa: E731
            for step in track(range(progress.step, total), name, total, progress.step, note):
                stage = _stage_at(stages, step)
                scale = _schedule(step, total, config.lr_steps, cosine=fusion is not None, warm=fusion is None)
                for group in optimizer.param_groups:
                    group["lr"] = group["base"] * scale
                loss = self._step(backbone, fusion, stage, offset + step, optimizer)
                progress.step, progress.seconds = step + 1, before + time.monotonic() - started
                due = progress.step % config.validate_every == 0 or progress.step in (*EARLY, total)
                checked = fusion is not None and due
                if checked:
                    if not torch.isfinite(loss):
                        raise Diverged(f"the loss of {name} became {float(loss)} by step {progress.step}")
                    progress.curve.append(self._validate(backbone, fusion, progress, float(loss)))
                if checked or time.monotonic() - saved > config.checkpoint_seconds:
                    _save(path, modules, optimizer, progress)
                    saved = time.monotonic()
        except KeyboardInterrupt:
            _save(path, modules, optimizer, progress)
            raise
        _save(path, modules, optimizer, progress)
        return progress

    def _step(self, backbone: Backbone, fusion: Fusion | None, stage: Stage, step: int, optimizer) -> Tensor:
        source, target = self.batches.draw(step, stage, drive=fusion is not None)
        images = self.loader.sources(source, self.experiment.model.size)
        truth = self.loader.targets(target, stage.resolution)
        with self._products():
            if fusion is None:
                canonical = backbone.lift(images, stage.grid).canonical
                gaussians = canonical.map(lambda t: t.repeat_interleave(stage.frames, 0))
            else:
                avatar, codes = Avatar(backbone, fusion), (self.loader.code(source), self.loader.code(target))
                gaussians = avatar(images, *codes, stage.grid, self.head)
        generator = torch.Generator().manual_seed(step)
        background = torch.rand(len(target), 3, generator=generator).to(self.device)
        image = render(gaussians, truth.camera, background, depth=False).rgb
        loss = reconstruction(image, truth.over(background), truth.regions, self.experiment.train.loss, self.lpips)
        if gaussians.delta is not None:
            loss = loss + self.experiment.train.loss.delta * feature_change(gaussians.delta)
        optimizer.zero_grad(set_to_none=True)
        with self._products():
            loss.backward()
        for group in optimizer.param_groups:
            nn.utils.clip_grad_norm_(group["params"], self.experiment.train.clip)
        optimizer.step()
        return loss.detach()

    @contextmanager
    def _products(self) -> Iterator[None]:
        """Inside, fp32 matrix products may have tf32's 11 bits where the encoder has bf16's 8. Not for SSIM: small differences."""
        before = torch.get_float32_matmul_precision()
        try:
            if self.experiment.model.bf16 and self.device.type == "cuda":
                torch.set_float32_matmul_precision("high")
            yield
        finally:
            torch.set_float32_matmul_precision(before)

    def _validate(self, backbone, fusion, progress: Progress, loss: float) -> dict[str, float]:
        rows = driving_gap(Avatar(backbone, fusion), self.loader, self.validation, self.head)
        means = {k: float(v.mean()) for k, v in rows.items()}
        return {"step": progress.step, "seconds": progress.seconds, "loss": loss, **means}


def _stage_at(stages: tuple[Stage, ...], step: int) -> Stage:
    for stage in stages:
        if step < stage.steps:
            return stage
        step -= stage.steps
    raise IndexError(step)


def _schedule(step: int, total: int, rise: int, cosine: bool, warm: bool) -> float:
    """Share of the learning rate: a linear rise in the warm-up, a cosine to 2 % in joint training."""
    share = min(1.0, (step + 1) / rise) if warm else 1.0
    return share * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / total))) if cosine else share
