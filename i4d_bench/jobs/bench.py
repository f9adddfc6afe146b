"""Everything that designs share in one experiment: data, driver, backbone, metric networks."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from i4d_bench.cache import atomic_file
from i4d_bench.config.ablations import scored
from i4d_bench.config.experiment import Experiment, digest
from i4d_bench.data.frames import Frames
from i4d_bench.data.opening import open_data, open_head
from i4d_bench.data.splits import SPLITS, split_of, triples
from i4d_bench.drivers.driver import Driver
from i4d_bench.evaluate.evaluator import Evaluator, Scores
from i4d_bench.jobs.names import data_version, folder_name, run_id
from i4d_bench.jobs.stage_times import stages
from i4d_bench.loader import Loader
from i4d_bench.metrics.cards import ONSET_DB
from i4d_bench.metrics.expression import Reader, VideoReader, train_reader
from i4d_bench.metrics.identity import Embedder, embedder, impostor_mean
from i4d_bench.metrics.image import load_lpips
from i4d_bench.metrics.weights import WeightsUnavailable
from i4d_bench.model.avatar import Avatar
from i4d_bench.progress import console
from i4d_bench.results.record import Record
from i4d_bench.results.store import Store
from i4d_bench.speed.cost import cost
from i4d_bench.train.checkpoint import Progress
from i4d_bench.train.loop import Trainer
from i4d_bench.types import UserError
from variants import design as design_class


class Bench:
    """Everything that designs share in one experiment: data, driver, backbone, metric networks."""

    def __init__(self, experiment: Experiment, runs: Path):
        self.experiment = experiment
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        shared = digest([experiment.shared(), data_version(experiment)])
        self.folder = runs / f"{folder_name(experiment)}-s{experiment.seed}-{shared}"
        self.frames, self.flame_note = open_data(experiment)
        self.head = open_head(experiment, self.device)
        self.reader = self._reader() if experiment.scored else None
        driver = Driver(experiment.driver, self.frames, self._image_reader())
        self.loader = Loader(self.frames, driver, self.device)
        lpips = load_lpips("alex", self.device) if experiment.train.loss.lpips else None
        self.trainer = Trainer(experiment, self.loader, self.head, self.device, lpips)
        self.backbone = self.trainer.backbone(self.folder)
        self.notes: list[str] = []
        self.extras = {f"floor_{k}": v for k, v in self.reader.floor.items()} if self.reader else {}
        self._evaluator: Evaluator | None = None

    def _reader(self, seed: int = 1) -> Reader | None:
        """The expression reader of this data, trained once and kept beside the checkpoints."""
        steps = self.experiment.evaluate.reader_steps
        if not steps or self.frames.meta["kind"] == "clips":
            return None
        path = self.folder / f"reader-{seed}.pt"
        if path.exists():
            return Reader.load(path).to(self.device)
        train = np.flatnonzero(split_of(self.frames) == SPLITS.index("train"))
        reader = train_reader(self.frames, train, steps=steps, seed=seed, device=self.device)
        with atomic_file(path) as partial:
            reader.save(partial)
        return reader

    def _image_reader(self) -> Reader | None:
        """The image driver's network: another seed than the metric's, so that no design is scored by its own driver."""
        return self._reader(seed=2) if self.experiment.driver == "image" else None

    @property
    def evaluator(self) -> Evaluator:
        """Loads the metric networks once. What is missing leaves its column empty and a note."""
        if self._evaluator is None:
            config = self.experiment.evaluate
            embedders = self._optional(config.identity, embedder)
            lpips = self._optional(config.lpips, lambda net: load_lpips(net, self.device))
            video = self._video_reader() if self.frames.meta["kind"] == "clips" else None
            for name, network in embedders.items():
                self.extras[f"impostor_{name}"] = self._impostors(network)
            self._evaluator = Evaluator(self.loader, self.head, self.reader, embedders, lpips, video, config.batch)
        return self._evaluator

    def _video_reader(self) -> VideoReader | None:
        try:
            return VideoReader()
        except UserError as e:
            self.notes.append(f"AED, AKD and APD are empty, faces are aligned by the true frames' landmarks: {e}")
            console.print(self.notes[-1])
            return None

    def _optional(self, names: tuple[str, ...], load: Callable[[str], object]) -> dict[str, object]:
        out = {}
        for name in names:
            try:
                out[name] = load(name)
            except (WeightsUnavailable, ImportError) as e:
                self.notes.append(f"column {name} is empty: {e}")
                console.print(self.notes[-1])
        return out

    def _impostors(self, network: Embedder) -> float:
        """Mean cosine of the test people's source images with each other: the zero of CSIM's scale."""
        rows = triples(self.frames, "test", "recon")
        images = self.loader.photos(rows.source, self.frames.resolution).movedim(1, -1)
        embedded = network.embed(images, torch.from_numpy(self.frames.landmarks[rows.source]).to(images.device))
        people = torch.from_numpy(self.frames.identity[rows.source].astype(np.int64))
        return impostor_mean(embedded.cpu(), people)

    def run_design(self, name: str, store: Store) -> None:
        """Trains (or resumes), scores, times and stores one design; one that is not scored keeps its curve alone."""
        folder = self.folder / run_id(self.experiment, name)
        avatar, progress = self.trainer.design(folder, name, self.backbone)
        describe(folder, self.experiment, name, self.frames)
        begun = time.monotonic()
        if not scored(self.experiment):
            store.add(self.record(name, *_status(avatar, progress), progress), [])
            return
        scores = self.evaluator(avatar)
        record = self.record(name, *_status(avatar, progress), progress)
        self._measure_cost(record, avatar)
        rows = [{**row, "run_id": record.run_id, "design": name, "seed": self.experiment.seed} for row in scores.rows]
        _keep_images(store.folder / "qualitative.npz", name, scores)
        store.add(record, rows)
        console.print(f"{name}: {record.status}, scored and timed in {time.monotonic() - begun:.0f} s")

    def record(self, name: str, status: str, why: str, progress: Progress | None = None) -> Record:
        e, meta = self.experiment, self.frames.meta
        curve = progress.curve if progress else []
        return Record(
            run_id=run_id(e, name),
            design=name,
            family=design_class(name).family,
            preset=e.preset,
            config=e.to_dict(),
            overrides=e.settings(name),
            seed=e.seed,
            driver=e.driver,
            data={"kind": meta["kind"], "hash": meta["hash"], "frames": meta["frames"], "flame": self.flame_note},
            status=status,
            why=why,
            train_seconds=progress.seconds if progress else None,
            curve=curve,
            onset=progress.onset if progress else None,
            late_gain=_late_gain(curve),
            notes=list(self.notes),
            extras=dict(self.extras),
        )

    @torch.no_grad()
    def _measure_cost(self, record: Record, avatar: Avatar) -> None:
        rows = triples(self.frames, "test", "self")
        grid, size = self.experiment.model.grid, avatar.backbone.config.size
        identity = avatar.backbone.lift(self.loader.sources(rows.source[:1], size), grid, self.head)
        spent = cost(avatar.fusion, identity, self.loader.code(rows.source[:1]), self.loader.code(rows.driving[:1]))
        record.params, record.memory, record.gaussians = spent.params, spent.memory, spent.gaussians
        record.flops_identity, record.flops_frame = spent.flops_identity, spent.flops_frame
        frames = self.experiment.evaluate.timed_frames
        record.timings = stages(avatar, self.loader, rows, grid, self.head, frames, record.design)


def describe(folder: Path, experiment: Experiment, design: str, frames: Frames) -> None:
    """Writes run.json beside a checkpoint: what `animate` needs to use it."""
    content = {"design": design, "experiment": experiment.to_dict(), "data": str(frames.path)}
    with atomic_file(folder / "run.json") as path:
        path.write_text(json.dumps(content, indent=1))


def _status(avatar: Avatar, progress: Progress) -> tuple[str, str]:
    if avatar.fusion.family == "control":
        return "control", ""
    if progress.onset is None:
        last = progress.curve[-1]
        return (
            "not converged",
            f"the validation gap never passed {ONSET_DB} dB in {last['step']} steps; it ended at {last['gap']:.2f} dB",
        )
    return "converged", ""


def _late_gain(curve: list[dict[str, float]]) -> float | None:
    """What the last tenth of the steps added to the gap, dB; None without two validations."""
    if len(curve) < 2:
        return None
    before = [c for c in curve if c["step"] <= 0.9 * curve[-1]["step"]]
    return curve[-1]["gap"] - (before or curve)[-1]["gap"]


def _keep_images(path: Path, name: str, scores: Scores) -> None:
    """Adds a design's column to the folder's qualitative images."""
    stored = {}
    if path.exists():
        with np.load(path) as file:
            stored = {k: file[k] for k in file.files}
    images = {name if k == "design" else k: v for k, v in scores.images.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as partial:
        np.savez_compressed(partial, **{**stored, **images})
