"""`i4d-bench scaling`: how fast training steps are on one GPU, and on several under torchrun.

A step's people are the preset's on any number of GPUs (strong scaling). Pictures are made up, so that no data set is opened; all
else is training as `run` does it: the lessons, the model, the losses, the exchange of gradients, the optimiser.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from i4d_bench import outputs
from i4d_bench.cache import atomic_file
from i4d_bench.camera import look_at
from i4d_bench.config.experiment import Experiment, Stage
from i4d_bench.data.frames import Frames
from i4d_bench.data.opening import open_head, with_flame
from i4d_bench.drivers.driver import Driver
from i4d_bench.heads.base import REGIONS
from i4d_bench.jobs.bench import default_device
from i4d_bench.loader import Loader
from i4d_bench.model.avatar import Backbone
from i4d_bench.printing import print_table
from i4d_bench.results.environment import environment
from i4d_bench.train import distributed
from i4d_bench.train.loop import Trainer
from i4d_bench.train.losses import networks
from i4d_bench.types import UserError

WARM = 3
"""Steps before those that are timed: kernels are built and memory is taken."""


def scaling(experiment: Experiment, design: str, steps: int, out: Path, batch: int | None = None) -> None:
    """Times `steps` steps of every stage, writes them to `out` in place of earlier ones by as many ranks, and prints all that `out`
    holds. batch: a step's people, in place of the stages' own.

    Raises UserError where `out` holds times of something else, and where people cannot be divided among the ranks.
    """
    if steps < 1:
        raise UserError(f"--steps {steps}: there must be one")
    train = experiment.train
    if batch is not None:
        warmup, stages = (
            tuple(dataclasses.replace(s, sources=batch) for s in part) for part in (train.warmup, train.stages)
        )
        train = dataclasses.replace(train, warmup=warmup, stages=stages)
        experiment = dataclasses.replace(experiment, train=train)
    what = {"design": design, "settings": experiment.settings(design), "experiment": _what(experiment)}
    held = distributed.of_first(lambda: _read(outputs.file(out), what))
    phases = dict.fromkeys(
        [*((s, False) for s in map(_timed, train.warmup)), *((s, True) for s in map(_timed, train.stages))]
    )
    for stage, _ in phases:
        distributed.share(stage.sources)
    device = default_device()
    trainer = _trainer(experiment, device, max(s.sources for s, _ in phases))
    rows = [_row(trainer, design, stage, drive, steps) for stage, drive in phases]
    if distributed.first():
        own = {"ranks": distributed.ranks(), "environment": environment(), "rows": rows}
        every = sorted([*(h for h in held if h["ranks"] != own["ranks"]), own], key=lambda h: h["ranks"])
        with atomic_file(out) as path:
            path.write_text(json.dumps({**what, "measured": every}, indent=1) + "\n", encoding="utf-8")
        _show(every)


def _timed(stage: Stage) -> Stage:
    """Stages that differ in their length alone are one."""
    return dataclasses.replace(stage, steps=0)


def _what(experiment: Experiment) -> dict[str, Any]:
    """What a step's time depends on, as JSON gives it back."""
    content = experiment.to_dict()
    return json.loads(json.dumps({k: content[k] for k in ("preset", "model", "train")}))


def _read(path: Path, what: dict[str, Any]) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        same = all(content[k] == json.loads(json.dumps(v)) for k, v in what.items())
        held = content["measured"]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise UserError(f"{path} holds no times of `i4d-bench scaling`: name another file") from e
    if not same:
        raise UserError(f"{path} holds times of another design, preset or batch: name another file")
    return held


def _trainer(experiment: Experiment, device: torch.device, people: int) -> Trainer:
    head = distributed.after_first(lambda: open_head(experiment, device))
    frames = with_flame(_made_up(people, experiment.world.resolution), head)
    judges = distributed.after_first(lambda: networks(experiment.train.loss, device))
    return Trainer(experiment, Loader(frames, Driver("blendshapes", frames), device), head, device, *judges)


def _made_up(people: int, size: int, frames: int = 4) -> Frames:
    """Noise in place of people, seen from the front: as many as given to train on, and one more."""
    count, r = (people + 1) * frames, np.random.default_rng(0)
    view, K = (np.repeat(m[None].astype(np.float32), count, 0) for m in look_at(0, 0, size))
    region = np.full((count, size, size), REGIONS.index("head"), np.uint8)
    region[:, size // 3 : size // 2, size // 4 : -size // 4] = REGIONS.index("eyes")
    identity = np.repeat(np.arange(people + 1, dtype=np.int32), frames)
    arrays = {
        "rgb": r.integers(0, 256, (count, size, size, 3), dtype=np.uint8),
        "alpha": np.full((count, size, size), 255, np.uint8),
        "region": region,
        "viewmats": view,
        "Ks": K,
        "identity": identity,
        "expression": np.tile(np.arange(frames, dtype=np.int32), people + 1),
        "coefficients": r.random((count, 52), np.float32),
        "landmarks": size * (0.3 + 0.4 * r.random((count, 68, 2), np.float32)),
        "split": (identity == people).astype(np.uint8),
    }
    return Frames(Path("made-up"), {"kind": "clips", "hash": "made-up", "frames": count}, arrays)


def _row(trainer: Trainer, design: str, stage: Stage, drive: bool, steps: int) -> dict[str, Any]:
    """Times of one stage, in seconds; memory in bytes, of every rank."""
    device = trainer.device
    torch.manual_seed(trainer.experiment.seed)
    backbone = Backbone(trainer.experiment.model).to(device)
    student, optimizer = trainer.student(design, backbone, trainer.fusion(design) if drive else None)
    student.deceives = True
    lessons = trainer.own.over(range(WARM + steps), stage, drive)
    numbers = iter(range(WARM + steps))

    def step() -> None:
        trainer.step(student, next(lessons), stage, next(numbers), optimizer)

    for _ in range(WARM):
        step()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = _seconds(step, steps, device)
    memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    learned = [p for group in optimizer.param_groups for p in group["params"]]
    exchange = _seconds(lambda: distributed.average(learned), steps, device)
    return {
        "phase": "joint" if drive else "warm-up",
        "resolution": stage.resolution,
        "grid": stage.grid,
        "people": stage.sources,
        "images": stage.sources * stage.frames,
        "steps": steps,
        "seconds": seconds,
        "steps_per_second": 1 / seconds,
        "images_per_second": stage.sources * stage.frames / seconds,
        "averaging_seconds": exchange,
        "memory": [int(m) for m in distributed.collected(memory)],
    }


def _seconds(call: Callable[[], None], times: int, device: torch.device) -> float:
    """Of one call, on all ranks from the first's begin to the last's end."""
    _settle(device)
    begun = time.perf_counter()
    for _ in range(times):
        call()
    _settle(device)
    return (time.perf_counter() - begun) / times


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    distributed.wait()


def _show(every: list[dict[str, Any]]) -> None:
    fewest = every[0]
    lines = []
    for measured in every:
        more = measured["ranks"] / fewest["ranks"]
        for row, base in zip(measured["rows"], fewest["rows"], strict=True):
            faster = row["steps_per_second"] / base["steps_per_second"]
            lines.append(
                [
                    f"{row['phase']}, {row['resolution']}²",
                    str(measured["ranks"]),
                    f"{row['steps_per_second']:.2f}",
                    f"{row['images_per_second']:.1f}",
                    f"{1e3 * row['seconds']:.1f}",
                    f"{1e3 * row['averaging_seconds']:.1f}",
                    f"{max(row['memory']) / 2**30:.1f}" if max(row["memory"]) else "",
                    f"{faster:.2f}",
                    f"{faster / more:.2f}",
                ]
            )
    head = (
        "stage",
        "ranks",
        "steps / s",
        "images / s",
        "step (ms)",
        "averaging (ms)",
        "GiB",
        "times as fast",
        "of linear",
    )
    print_table(head, sorted(lines, key=lambda line: line[0]))
