"""Everything that designs share in one experiment: data, driver, backbone, metric networks."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from i4d_bench.cache import alone, atomic_file, file_digest, make_once
from i4d_bench.config.experiment import Experiment
from i4d_bench.data.frames import Frames
from i4d_bench.data.opening import open_data, open_head, rendered_beside, with_flame
from i4d_bench.data.seen import who_was_seen
from i4d_bench.data.splits import SPLITS, self_driven, split_of
from i4d_bench.data.teacher.store import INDEX
from i4d_bench.data.teacher.store import Store as TeacherStore
from i4d_bench.data.video.files import write_video
from i4d_bench.drivers import external
from i4d_bench.drivers.driver import Driver, label
from i4d_bench.drivers.image import ImageEncoder
from i4d_bench.drivers.image_training import train_encoder
from i4d_bench.drivers.probe import probe
from i4d_bench.drivers.tracked import flame_error
from i4d_bench.evaluate.evaluator import Evaluator, Scores
from i4d_bench.evaluate.gap import ONSET_DB
from i4d_bench.evaluate.references import References, references, resemblance, telling
from i4d_bench.jobs.plan import ENCODER_SEED, READER_SEED, Run, RunPlan, lifter_path, lifting
from i4d_bench.loader import Loader
from i4d_bench.metrics.expression import Reader, VideoReader, train_reader
from i4d_bench.metrics.identity import embedder
from i4d_bench.metrics.image import load_lpips
from i4d_bench.metrics.weights import WeightsUnavailable
from i4d_bench.model.avatar import Avatar
from i4d_bench.play import splats
from i4d_bench.play.film import FPS, film
from i4d_bench.play.session import DRIVER_ON_VIDEO
from i4d_bench.portable import cores
from i4d_bench.progress import console
from i4d_bench.results import predictions
from i4d_bench.results.record import Record, Status
from i4d_bench.results.store import Store
from i4d_bench.speed.cost import cost
from i4d_bench.train import distributed
from i4d_bench.train.checkpoint import Progress
from i4d_bench.train.distil import FromPairs, Mixed
from i4d_bench.train.lessons import FromFrames, Lessons
from i4d_bench.train.lifting import Lifter
from i4d_bench.train.loop import Diverged, Trainer
from i4d_bench.train.losses import networks
from i4d_bench.types import UserError
from variants import design as design_class
from variants import given

Network = TypeVar("Network")
TRUTH = "the true coefficients of the person's shape and expression, on the world's own mesh"
"""What designs know that read FLAME coefficients, in a rendered world."""
MORE = 1.02
"""Times as many Gaussians as are lifted make a row that sees more."""


class Bench:
    """Everything that designs share in one experiment: data, driver, backbone, metric networks. What is trained before them lies on
    disk by then: see `prepare`."""

    def __init__(self, plan: RunPlan):
        self.plan, self.experiment = plan, plan.experiment
        self.device = default_device()
        self.frames, self.flame_note = open_data(self.experiment)
        self.head = open_head(self.experiment, self.device)
        encoder = ImageEncoder.load(plan.encoder) if plan.encoder else None
        driver = Driver(self.experiment.driver, self.frames, encoder)
        self.loader = Loader(self.frames, driver, self.device)
        loss = self.experiment.train.loss
        lessons = self._lessons(driver) if self.experiment.teacher.path else None
        if self.experiment.world.beside:
            lessons = self._beside_a_world(encoder)
        judges = networks(loss, self.device)
        self.trainer = Trainer(self.experiment, self.loader, self.head, self.device, *judges, lessons, plan.log)
        self.notes: list[str] = [who_was_seen(self.frames), *[driver.note] * bool(driver.note)]
        self.notes += [f"the image driver's encoder {encoder}"] if encoder else []
        if loss.identity and loss.identity_network in self.experiment.evaluate.identity:
            seen = (
                f"CSIM by {loss.identity_network} was trained for (its identity term has a weight of {loss.identity:g})"
            )
            self.notes.append(f"{seen}: another network judges fairly")
        if distributed.ranks() > 1:
            self.notes.append(f"trained by {distributed.ranks()} processes together")
        self.extras = _read_off(plan)
        self.references: References = {}
        self._evaluator: Evaluator | None = None

    def probe(self) -> None:
        """Says what the driver's codes hold, and keeps it for the records of every process that works on the plan."""
        for note in self.notes:
            console.print(note)
        leak = probe(self.loader.motion.cpu().numpy(), self.frames)
        if leak is not None:
            console.print(f"driver {label(self.experiment.driver)}: {leak}")
            self.extras = leak.extras
        with atomic_file(self.plan.codes) as path:
            path.write_text(json.dumps(self.extras), encoding="utf-8")

    def _reader(self) -> Reader | None:
        return Reader.load(self.plan.reader).to(self.device) if self.plan.reader else None

    def _lessons(self, driver: Driver) -> Lessons:
        """From the teacher's pairs."""
        e, teacher = self.experiment, self.experiment.teacher
        assert teacher.path is not None
        lifter = None
        if self.plan.lifter is not None:
            lifter = Lifter.load(self.plan.lifter, e.model, self.device, landmarks=bool(e.train.loss.identity))
        workers = min(4, cores() // (4 * distributed.ranks())) if self.device.type == "cuda" else 0
        true_views = teacher.supervision == "multiview"
        store = TeacherStore(Path(teacher.path))
        pairs = FromPairs(store, driver, self.head, e.model.size, e.seed, true_views, lifter, workers)
        return Mixed(pairs, FromFrames(self.loader, e.model.size, e.seed)) if teacher.bias_sink else pairs

    def _beside_a_world(self, encoder: ImageEncoder | None) -> Lessons:
        """From a rendered world's people and the data set's own, half and half. What the driver measures on video is known in the
        world; FLAME designs are told as little of it: coefficients mapped from the 52."""
        e = self.experiment
        frames = with_flame(rendered_beside(e), self.head)
        name = {video: world for world, video in DRIVER_ON_VIDEO.items()}.get(e.driver, e.driver)
        loader = Loader(frames, Driver(name, frames, encoder), self.device)
        return Mixed(*(FromFrames(of, e.model.size, e.seed) for of in (loader, self.loader)))

    @property
    def evaluator(self) -> Evaluator:
        """Loads the metric networks once. What is missing leaves its column empty and a note."""
        if self._evaluator is None:
            config, reader = self.experiment.evaluate, self._reader()
            embedders = self._optional(config.identity, embedder)
            lpips = self._optional(config.lpips, lambda net: load_lpips(net, self.device))
            video = self._video_reader() if self.frames.meta["kind"] == "clips" else None
            self.references = references(self.loader, embedders, reader, video, config.batch)
            for net in [net for net in embedders if not telling(self.references, net)]:
                del embedders[net]
                self._cannot_tell(net)
            self._evaluator = Evaluator(self.loader, self.head, reader, embedders, lpips, video, config.batch)
        return self._evaluator

    def _video_reader(self) -> VideoReader | None:
        try:
            if not self.frames.measured:
                raise UserError("the data set has no expression coefficients")
            return VideoReader()
        except UserError as e:
            self.notes.append(f"AED, AKD and APD are empty, faces are aligned by the true frames' landmarks: {e}")
            console.print(self.notes[-1])
            return None

    def _optional(self, names: tuple[str, ...], load: Callable[[str], Network]) -> dict[str, Network]:
        out = {}
        for name in names:
            try:
                out[name] = load(name)
            except (WeightsUnavailable, ImportError) as e:
                self.notes.append(f"column {name} is empty: {e}")
                console.print(self.notes[-1])
        return out

    def _cannot_tell(self, net: str) -> None:
        same, other = resemblance(self.references, net)
        pairs = f"two pictures of one person have {same:.3f}, of two people {other:.3f}"
        for sets in self.references.values():
            for metrics in sets.values():
                for measured in ("csim", "leak"):
                    metrics.pop(f"{measured}_{net}", None)
        self.notes.append(f"CSIM by {net} is left out, since that network does not tell these people apart: {pairs}.")
        console.print(self.notes[-1])

    def train(self, run: Run) -> tuple[Avatar, Progress]:
        """Trains a design, or goes on, or finds it done; a process that trains the same run is waited for. Raises Diverged."""
        with _alone(run.checkpoint):
            trainer = dataclasses.replace(self.trainer, loader=self._loader(run))
            return trainer.design(run.folder, run.entry, self.plan.backbone, run.init)

    def _loader(self, run: Run) -> Loader:
        """The design's own, where its FLAME coefficients are off."""
        return self.loader.tracked(flame_error(self.experiment, run.entry))

    def scores(self, run: Run, avatar: Avatar) -> Scores:
        return dataclasses.replace(self.evaluator, loader=self._loader(run))(avatar)

    def run_design(self, run: Run, store: Store) -> None:
        """Trains, scores and stores one design; one that is not scored keeps its curve alone. Raises Diverged."""
        avatar, progress = self.train(run)
        if not distributed.first():
            return
        describe(run, self.plan, self.frames)
        begun = time.monotonic()
        if not self.plan.scored:
            store.add(self.record(run, *_status(avatar, progress), progress), [])
            return
        scores = self.scores(run, avatar)
        record = self.record(run, *_status(avatar, progress), progress)
        record.predictions = predictions.save(run.predictions, scores.predictions)
        self._measure_cost(record, avatar)
        rows = [{**row, "run_id": run.id, "design": run.entry, "seed": self.experiment.seed} for row in scores.rows]
        if self.plan.film and self.frames.meta["kind"] != "clips":
            self._show(run, avatar, store)
        store.add(record, rows, scores.images)
        console.print(f"{run.entry}: {record.status}, scored in {time.monotonic() - begun:.0f} s")

    def _show(self, run: Run, avatar: Avatar, store: Store) -> None:
        """What a page shows in motion."""
        loader = self._loader(run)
        write_video(store.film(run.id), film(avatar, loader, self.head), FPS)
        splats.save(store.splats(run.id), splats.splats(avatar, loader, self.head, self.experiment.world))

    def record(self, run: Run, status: Status, why: str, progress: Progress | None = None) -> Record:
        e, meta = self.experiment, self.frames.meta
        error = flame_error(e, run.entry)
        curve = progress.curve if progress else []
        weights = {"init": run.init} if run.init else {"backbone": self.plan.backbone}
        weights |= {k: p for k in ("reader", "encoder") if (p := getattr(self.plan, k)) is not None}
        if external.is_file(e.driver):
            weights["encoder"] = Path(e.driver)
        if e.teacher.path:
            weights["teacher"] = Path(e.teacher.path) / INDEX
        return Record(
            run_id=run.id,
            scoring=run.scoring,
            made=self.plan.made,
            weights={name: file_digest(path) for name, path in weights.items()},
            checkpoint=file_digest(run.checkpoint) if run.checkpoint.exists() else "",
            design=run.entry,
            family=design_class(run.entry).family,
            preset=e.preset,
            config=e.to_dict(),
            overrides=e.settings(run.entry),
            seed=e.seed,
            driver=label(e.driver),
            data={"kind": meta["kind"], "hash": meta["hash"], "frames": meta["frames"], "flame": self.flame_note},
            status=status,
            why=why,
            train_seconds=progress.seconds if progress else None,
            curve=curve,
            onset=progress.onset if progress else None,
            late_gain=_late_gain(curve),
            sees=[f"{error:g} times a tracker's error in {TRUTH}" if error else TRUTH]
            * (design_class(run.entry).needs == "flame" and meta["kind"] != "clips"),
            notes=list(self.notes),
            extras=dict(self.extras),
            references=self.references,
        )

    @torch.no_grad()
    def _measure_cost(self, record: Record, avatar: Avatar) -> None:
        rows = self_driven(self.frames, "test")
        grid, size = self.experiment.model.grid, avatar.backbone.config.size
        identity = avatar.backbone.lift(self.loader.sources(rows.source[:1], size), grid, self.head)
        spent = cost(avatar.fusion, identity, self.loader.code(rows.source[:1]), self.loader.code(rows.driving[:1]))
        record.params, record.memory, record.gaussians = spent.params, spent.memory, spent.gaussians
        lifted = identity.f.shape[1]
        if spent.gaussians > MORE * lifted:
            record.sees.append(f"{spent.gaussians} Gaussians in place of {lifted}")
        record.flops_identity, record.flops_frame = spent.flops_identity, spent.flops_frame


def _read_off(plan: RunPlan) -> dict[str, float | None]:
    """What `Bench.probe` found; nothing where it has not looked."""
    return json.loads(plan.codes.read_text(encoding="utf-8")) if plan.codes.exists() else {}


def networks_of_data(plan: RunPlan, names: Sequence[str] = ("reader", "encoder")) -> None:
    """Makes what all seeds share: the expression reader and the image driver's encoder, by one process."""
    device, trains = default_device(), {"reader": _train_reader, "encoder": _train_encoder}
    for name in names:
        if (path := getattr(plan, name)) is not None:
            make = lambda path=path, train=trains[name]: train(plan.experiment, path, device)  # noqa: E731
            distributed.after_first(lambda path=path, make=make: make_once(path, make))


def lessons_are_driven(experiment: Experiment) -> bool:
    """Whether the backbone's lessons are made with the driver, which may need an encoder first."""
    return experiment.teacher.path is not None or experiment.world.beside is not None


def warm_up(plan: RunPlan) -> None:
    """The backbone alone, as `prepare` makes it. It is reconstruction, which reads no driving code: in the driver's place, whose
    encoder may not be there yet, stands one that reads any data set. Not for lessons that are driven."""
    plan = dataclasses.replace(plan, experiment=dataclasses.replace(plan.experiment, driver="flame"), encoder=None)
    with _alone(plan.backbone):
        Bench(plan).trainer.warm_up(plan.backbone)


def prepare(plan: RunPlan) -> Bench:
    """Opens the bench once all that designs share is made: networks of the data by one process, then the lifting network and the
    backbone by all that train together."""
    networks_of_data(plan)
    if plan.lifter is not None:
        train_lifter(plan.experiment, plan.lifter)
    bench = Bench(plan)
    if distributed.first():
        bench.probe()
    if not plan.experiment.init:
        with _alone(plan.backbone):
            bench.trainer.warm_up(plan.backbone)
    return bench


def default_device() -> torch.device:
    """The GPU that is this process's own, or the CPU."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Inside, only this process and those that train together with it make `path`."""
    with alone(path) if distributed.first() else nullcontext():
        yield


def _train_encoder(experiment: Experiment, path: Path, device: torch.device) -> None:
    """The image driver's encoder of this data, at `path`."""
    frames, _ = open_data(experiment)
    encoder = train_encoder(frames, experiment.train.encoder_steps, ENCODER_SEED, device)
    with atomic_file(path) as partial:
        encoder.save(partial)


def _train_reader(experiment: Experiment, path: Path, device: torch.device) -> None:
    """An expression reader of this data, at `path`."""
    frames, _ = open_data(experiment)
    train = np.flatnonzero(split_of(frames) == SPLITS.index("train"))
    reader = train_reader(frames, train, steps=experiment.evaluate.reader_steps, seed=READER_SEED, device=device)
    with atomic_file(path) as partial:
        reader.save(partial)


def lifting_network(experiment: Experiment, runs: Path) -> Path:
    """The file of the experiment's lifting network, which is trained if there is none. Raises UserError where it diverges."""
    path = lifter_path(experiment, runs)
    try:
        train_lifter(experiment, path)
    except Diverged as e:
        raise UserError(str(e)) from e
    return path


def train_lifter(experiment: Experiment, path: Path) -> None:
    """A lifting network, by true views of a rendered world, at `path`: goes on with one, or finds it done."""
    e, device = lifting(experiment), default_device()
    with _alone(path):
        frames, _ = distributed.after_first(lambda: open_data(e))
        lpips, _ = networks(e.train.loss, device)
        Trainer(e, Loader(frames, Driver(e.driver, frames), device), None, device, lpips).lifter(path)


def describe(run: Run, plan: RunPlan, frames: Frames) -> None:
    """Writes run.json beside a checkpoint: what `animate` needs to use it; of the sources the design's own alone."""
    experiment = dataclasses.replace(plan.experiment, sources=given([run.entry]))
    content = {"design": run.entry, "experiment": experiment.to_dict(), "data": str(frames.path)}
    if external.is_file(experiment.driver):
        content["encoder"] = file_digest(Path(experiment.driver))
    if plan.encoder is not None:
        content["image_encoder"] = str(Path(*plan.encoder.parts[-2:]))  # in the folder of runs
    with atomic_file(run.folder / "run.json") as path:
        path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _status(avatar: Avatar, progress: Progress) -> tuple[Status, str]:
    if avatar.fusion.family == "control":
        return "control", ""
    if progress.onset is None:
        last = progress.curve[-1]
        return (
            "did not start",
            f"the validation gap never passed {ONSET_DB} dB in {last['step']} steps; it ended at {last['gap']:.2f} dB",
        )
    return "started", ""


def _late_gain(curve: list[dict[str, float]]) -> float | None:
    """What the last tenth of the steps added to the gap, dB; None without two validations."""
    if len(curve) < 2:
        return None
    before = [c for c in curve if c["step"] <= 0.9 * curve[-1]["step"]]
    return curve[-1]["gap"] - (before or curve)[-1]["gap"]
