"""The plan of one experiment, made once and handed down: where everything goes, and the identity of every run (DESIGN §4).

An identity hashes all that a run's numbers depend on: settings with the constructors' defaults, the source that executes, library
versions, the data's content, the bytes of files that were given. Training and scoring have a hash each, so that one more metric
scores again and trains nothing. What merely names things (preset, paths, which other designs run) does not count.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from i4d_bench import source
from i4d_bench.assets import LANDMARKER, MOBILEFACE, find
from i4d_bench.cache import file_digest
from i4d_bench.config.ablations import scored
from i4d_bench.config.experiment import Experiment, Teacher, digest
from i4d_bench.data.frames import Frames
from i4d_bench.data.opening import open_data
from i4d_bench.data.teacher.store import pairs_digest
from i4d_bench.drivers import external
from i4d_bench.jobs.initial import starts
from i4d_bench.jobs.names import designs, folder_name
from i4d_bench.render import rasteriser
from i4d_bench.results.environment import hardware_name, versions
from i4d_bench.results.store import Store
from variants.base import source_of

TRAINING = (
    "i4d_bench.train.loop",
    "i4d_bench.train.distil",
    "i4d_bench.loader",
    "i4d_bench.data.opening",
    "i4d_bench.metrics.image",
)
SCORING = ("i4d_bench.evaluate.evaluator", "i4d_bench.evaluate.references", "i4d_bench.speed.cost")
READER = ("i4d_bench.metrics.reader_training",)
ENCODER = ("i4d_bench.drivers.image_training",)
"""Where what is trained, scored and read begins."""
TRAINS_WITH, SCORES_WITH = ("torch", "triton", "gsplat", "numpy", "numba"), ("lpips", "torchmetrics", "mediapipe")
ENCODES_WITH = ("onnxruntime", "onnxruntime-gpu")
WEIGHTS = {"mobileface": MOBILEFACE}
"""Networks whose weights are a user's file, by their names in `Evaluate.identity` and `Loss.identity_network`."""
BACKBONES = "backbones"
"""Folder of runs/ for what designs share."""
READER_SEED, ENCODER_SEED = 1, 2


@dataclass(frozen=True)
class Run:
    """One design of a plan. `id` names its training, `scoring` how it was scored; `folder` holds its checkpoint; `init` is that of
    the run which it starts from in place of the backbone."""

    entry: str
    id: str
    scoring: str
    folder: Path
    init: Path | None = None

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    @property
    def predictions(self) -> Path:
        """The pictures of the test sets that were scored."""
        return self.folder / "predictions.npz"


@dataclass(frozen=True)
class RunPlan:
    """What an experiment makes and where. `made`: what its runs have in common; only runs that agree in it share a table. `log`: a
    folder for TensorBoard. `film`: its runs get one, in a rendered world. No number depends on these two."""

    experiment: Experiment
    report: Path
    backbone: Path
    lifter: Path | None
    reader: Path | None  # of expressions, for AED
    encoder: Path | None  # the image driver's
    made: dict[str, str]
    runs: tuple[Run, ...]
    log: Path | None = None
    film: bool = False

    @property
    def codes(self) -> Path:
        """What can be read off the driver's codes."""
        return self.backbone.parents[1] / "codes" / f"{self.made['training']}.json"

    @property
    def scored(self) -> bool:
        return scored(self.experiment)

    def unfinished(self) -> list[Run]:
        """Those that the report folder has no result of."""
        store = Store(self.report)
        return [r for r in self.runs if not store.finished(r.id, r.scoring)]

    def forget(self) -> None:
        """Removes checkpoints, the backbone, readers and results of these runs: all is made again."""
        store = Store(self.report)
        for run in self.runs:
            store.remove(run.id)
            shutil.rmtree(run.folder, ignore_errors=True)
        for path in (self.backbone, self.lifter, self.reader, self.encoder):
            if path is not None:
                path.unlink(missing_ok=True)


def plan(experiment: Experiment, reports: Path, runs: Path, log: Path | None = None, film: bool = False) -> RunPlan:
    """Opens the data, which is made on first use, and names everything. Raises UserError for what cannot be run."""
    entries = designs(experiment)
    e, train, begun = experiment, _train(experiment), starts(experiment, entries)
    frames, _ = open_data(e)
    here = _here(e, frames)

    warm = {k: train[k] for k in ("warmup", "lr", "lr_steps", "betas", "clip", "loss")}
    code = source.digest(*TRAINING)
    pairs = pairs_digest(Path(e.teacher.path)) if e.teacher.path else None
    judge = _bytes([e.train.loss.identity_network] if e.train.loss.identity else [])
    backbone = digest([here, asdict(e.model), warm, e.seed, code, pairs, e.teacher.bias_sink, judge])
    lifter = lifter_path(e, runs) if pairs and e.teacher.supervision == "lifted" else None
    lifts = lifter and lifter.name.replace(f"-s{e.seed}-", "-")  # alike for all seeds, which share a table
    teacher = [pairs, e.teacher.supervision, e.teacher.bias_sink, lifts] if pairs else None
    reads = e.evaluate.reader_steps and frames.meta["kind"] != "clips"
    reads = digest([here, e.evaluate.reader_steps, source.digest(*READER)]) if reads and scored(e) else None
    encodes = digest([here, e.train.encoder_steps, source.digest(*ENCODER)]) if e.driver == "image" else None

    driver = [_encoder(e) or e.driver, encodes]
    alike = sorted({start.alike for start in begun.values()})
    training = digest([here, asdict(e.model), train, driver, code, teacher, judge, *alike])
    scoring = digest([here, versions(*SCORES_WITH), asdict(e.evaluate), _files(e), source.digest(*SCORING)])
    made = {"hardware": here["hardware"], "data": here["data"], "training": training, "scoring": scoring}
    folder = folder_name(e)
    own = []
    for entry in entries:
        init = begun[entry].checkpoint if begun else None
        start = file_digest(init) if init else backbone
        content = [training, start, e.resolved(entry), source.digest(source_of(entry))]
        name = f"{entry}-s{e.seed}-{digest(content)}"
        own.append(Run(entry, name, scoring if scored(e) else "", runs / folder / name, init))
    return RunPlan(
        e,
        reports / folder,
        runs / BACKBONES / f"s{e.seed}-{backbone}.pt",
        lifter,
        runs / "readers" / f"{reads}.pt" if reads else None,
        runs / "encoders" / f"{encodes}.pt" if encodes else None,
        made,
        tuple(own),
        log,
        film,
    )


def lifting(experiment: Experiment) -> Experiment:
    """What the lifting network learns by: true views of the experiment's world, or for real video of the embedded one."""
    world = experiment.world
    if world.kind == "clips":
        world = world.rendered("procedural")
    return replace(experiment, world=world, driver="sliders", flame=None, teacher=Teacher())


def lifter_path(experiment: Experiment, runs: Path) -> Path:
    """Where an experiment's lifting network lies once it is trained. Opens the data that it learns from."""
    e = lifting(experiment)
    frames, _ = open_data(e)
    name = digest([_here(e, frames), asdict(e.model), _train(e), source.digest(*TRAINING)])
    return runs / BACKBONES / f"lifter-s{e.seed}-{name}.pt"


def _here(experiment: Experiment, frames: Frames) -> dict[str, Any]:
    """What training depends on besides settings and code."""
    data = frames.meta["hash"] + (f"-{file_digest(Path(experiment.flame))}" if experiment.flame else "")
    draws = rasteriser(torch.cuda.is_available())
    return {"hardware": hardware_name(), "versions": versions(*TRAINS_WITH), "data": data, "rasteriser": draws}


def _train(experiment: Experiment) -> dict[str, Any]:
    return {k: v for k, v in asdict(experiment.train).items() if k != "checkpoint_seconds"}


def _files(experiment: Experiment) -> dict[str, Any]:
    """Bytes of the optional files that scoring reads; None where one is missing, and its column empty."""
    return _bytes(experiment.evaluate.identity, [LANDMARKER] if experiment.world.kind == "clips" else [])


def _bytes(networks: Sequence[str], more: Sequence[str] = ()) -> dict[str, Any]:
    """Hashes of the files of identity networks that have one, and of more; None where one is missing."""
    found = {path: find(path) for path in (*(WEIGHTS[name] for name in networks if name in WEIGHTS), *more)}
    return {path: file_digest(file) if file else None for path, file in found.items()}


def _encoder(experiment: Experiment) -> list[Any]:
    """Of the external driver: its file's bytes and what runs them beside torch."""
    if not external.is_file(experiment.driver):
        return []
    onnx = experiment.driver.lower().endswith(external.ONNX)
    return [file_digest(Path(experiment.driver)), versions(*ENCODES_WITH) if onnx else None]
