"""The main job: data → reader and driver → backbone → every design trained, scored, timed, stored → tables and figures."""

from __future__ import annotations

import ctypes
import dataclasses
import json
import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
import torch

from i4d_bench.cache import atomic_file
from i4d_bench.config import presets
from i4d_bench.config.ablations import ablation, scored
from i4d_bench.config.experiment import Experiment, digest
from i4d_bench.data import synthetic
from i4d_bench.data.frames import Frames, open_frames
from i4d_bench.data.opening import open_data, open_head
from i4d_bench.data.splits import SPLITS, split_of, triples
from i4d_bench.drivers.driver import Driver
from i4d_bench.evaluate.evaluator import Evaluator, Scores
from i4d_bench.jobs.stage_times import stages
from i4d_bench.loader import Loader
from i4d_bench.metrics.cards import ONSET_DB
from i4d_bench.metrics.expression import Reader, VideoReader, train_reader
from i4d_bench.metrics.identity import Embedder, embedder, impostor_mean
from i4d_bench.metrics.image import load_lpips
from i4d_bench.metrics.weights import WeightsUnavailable
from i4d_bench.model.avatar import Avatar
from i4d_bench.progress import console
from i4d_bench.results.environment import hardware_name
from i4d_bench.results.record import Record
from i4d_bench.results.store import Store
from i4d_bench.speed.cost import cost
from i4d_bench.train.checkpoint import Progress
from i4d_bench.train.loop import Diverged, Trainer
from i4d_bench.types import UserError
from variants import design as design_class
from variants import names

MOST_JOBS, JOB_BYTES = 4, 12 * 2**30
"""Trainings at once, and what one may take of a GPU's memory (the preset gpu: 8 GiB)."""


def designs(experiment: Experiment) -> list[str]:
    """The designs asked for ("all": every registered one). Raises UserError for an unknown name or setting."""
    chosen = names() if experiment.designs == ("all",) else list(experiment.designs)
    for name in {*chosen, *experiment.overrides}:
        experiment.fusion(name)
    return chosen


def default_preset() -> str:
    return "gpu" if torch.cuda.is_available() else "cpu"


def default_jobs() -> int:
    """One process does not fill a large GPU: five train twice as many steps a second on an H100 as one."""
    if not torch.cuda.is_available():
        return 1
    return max(1, min(MOST_JOBS, torch.cuda.mem_get_info()[0] // JOB_BYTES))


def run(experiment: Experiment, reports: Path, runs: Path, jobs: int | None = None) -> Path:
    """Runs every design of the experiment that has no finished record yet, `jobs` of them at once (`default_jobs`). Returns the
    report folder.

    Raises UserError when a design failed to train (after every other design's results are stored).
    """
    from i4d_bench import report

    started = time.monotonic()
    _keep_memory()
    wanted = designs(experiment)
    store = Store(reports / folder_name(experiment))
    store.check_writable()
    ready = [d for d in wanted if store.finished(run_id(experiment, d))]
    todo = [d for d in wanted if d not in ready]
    console.print(f"{experiment.preset} preset on {hardware_name()}: {', '.join(wanted)}")
    if ready:
        console.print(f"already finished: {', '.join(ready)}")
    failed = {}
    if todo:
        bench, trained = Bench(experiment, runs), _trained(experiment, todo, runs, jobs or default_jobs())
        for name in (
            list(trained) if scored(experiment) else trained
        ):  # scores come with timings, which want an idle machine
            try:
                bench.run_design(name, store)
            except Diverged as e:
                failed[name] = str(e)
                store.add(bench.record(name, "failed", str(e)), [])
    report.build(store.folder)
    console.print((store.folder / "main.md").read_text())
    console.print(f"tables and figures: {store.folder}  ({time.monotonic() - started:.0f} s)")
    if failed:
        raise UserError("; ".join(f"{name} failed: {why}" for name, why in failed.items()))
    return store.folder


def folder_name(experiment: Experiment) -> str:
    """One report folder per preset, hardware, data and driver, and of its own for changed settings: what stands in one
    table was made alike."""
    e, preset = experiment, presets.preset(experiment.preset)
    kind, path = e.world.kind, e.world.path
    plain = dataclasses.replace(preset.world, kind=kind, path=path)
    if e.ablation:
        preset = ablation(e.ablation, preset)
    own = {"world": plain, "driver": e.driver, "flame": e.flame, "designs": e.designs, "seed": e.seed}
    parts = [f"ablation-{e.ablation}"] if e.ablation else []
    parts += [e.preset, hardware_name(), Path(path).resolve().name if path else kind, e.driver]
    parts += [Path(e.flame).stem] if e.flame else []
    if e != dataclasses.replace(preset, **own):
        parts.append(digest([{**e.shared(), "seed": None}, e.overrides])[:6])
    return "-".join(parts)


def data_version(experiment: Experiment) -> Any:
    """What stands for the data in a run's identity. Raises UserError for a missing data set."""
    world = experiment.world
    if world.kind != "clips":
        return synthetic.spec(world)
    if not world.path:
        raise UserError("real video needs --data FOLDER, a data set made by `i4d-bench ingest`")
    return open_frames(Path(world.path)).meta["hash"]


def run_id(experiment: Experiment, design: str) -> str:
    """Of everything that the run's numbers depend on; which other designs run with it does not count."""
    content = [experiment.shared(), data_version(experiment), experiment.settings(design)]
    return f"{design}-s{experiment.seed}-{digest(content)}"


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


def _keep_memory() -> None:
    """glibc: keep freed blocks instead of returning them to the system; training on a CPU is up to twice as fast."""
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:  # another C library: nothing to set
        return
    mmap_threshold, trim_threshold = -3, -1
    libc.mallopt(mmap_threshold, 1 << 30)
    libc.mallopt(trim_threshold, (1 << 31) - 1)


def _trained(experiment: Experiment, todo: list[str], runs: Path, jobs: int) -> Iterator[str]:
    """Designs as soon as their checkpoint is finished: `jobs` at a time in processes of their own, one alone by the caller."""
    if min(jobs, len(todo)) < 2:
        yield from todo
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(jobs, len(todo)), context, _open_bench, (experiment, runs))
    try:
        running = {pool.submit(_train, name): name for name in todo}
        for job in as_completed(running):
            try:
                job.result()
            except Diverged as e:  # said again, and recorded, when its turn comes
                console.print(str(e))
            except torch.OutOfMemoryError as e:
                raise UserError(
                    f"the GPU's memory does not hold {jobs} trainings at once: go on with a smaller --jobs"
                ) from e
            yield running[job]
    finally:
        pool.shutdown(cancel_futures=True)


_bench: Bench | None = None
"""Of a training process."""


def _open_bench(experiment: Experiment, runs: Path) -> None:
    global _bench
    _bench = Bench(experiment, runs)


def _train(name: str) -> None:
    _bench.trainer.design(_bench.folder / run_id(_bench.experiment, name), name, _bench.backbone)
