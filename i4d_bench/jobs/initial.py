"""Finished runs whose weights designs start from (`--init`), in place of the warm-up's backbone and of their own beginning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from i4d_bench.cache import file_digest
from i4d_bench.config.experiment import Experiment, digest, from_dict
from i4d_bench.drivers import external
from i4d_bench.play.session import DRIVER_ON_VIDEO
from i4d_bench.reading import json_object, reading
from i4d_bench.types import UserError
from variants import design as design_class

BEGINS = ("lr", "init_scale")
"""Settings of a design that decide how its training begins and goes, and not what its weights mean."""

LONG = 80
"""Letters of a folder's name that stand in another's: a run that starts from a run that starts from a run has a short name, too."""


@dataclass(frozen=True)
class Start:
    """A finished run. encoder: the digest of its motion encoder's file, where it had one."""

    folder: Path
    design: str
    experiment: Experiment
    encoder: str | None = None

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    @property
    def alike(self) -> str:
        """What all designs of the run's experiment had in common, whatever the seed."""
        return digest({**self.experiment.shared(), "seed": None})


def starts(experiment: Experiment, entries: Sequence[str]) -> dict[str, Start]:
    """By design, the run that it starts from; none without `--init`. Of several runs of a design that of the experiment's seed.

    Raises UserError for a folder without finished runs, a design without one or with several, and weights that mean something else
    here.
    """
    found = [run for folder in experiment.init for run in _finished(Path(folder))]
    out = {}
    for entry in entries if experiment.init else ():
        own = [run for run in found if run.design == entry]
        own = [run for run in own if run.experiment.seed == experiment.seed] or own
        if not own:
            raise UserError(f"--init has no run of {entry}; it has {', '.join(sorted({run.design for run in found}))}")
        if len(own) > 1:
            raise UserError(f"--init has several runs of {entry}: name one of {', '.join(str(r.folder) for r in own)}")
        _check(own[0], experiment, entry)
        out[entry] = own[0]
    return out


def label(init: Sequence[str]) -> str:
    """What folders call an experiment that starts from these."""
    called = sorted(Path(folder).resolve().name for folder in init)
    if len(called) == 1 and len(called[0]) <= LONG:
        return f"from-{called[0]}"
    return f"from-{len(called)}-{digest(called)[:6]}"


def _finished(folder: Path) -> list[Start]:
    """The run in a folder, or the finished ones in those below it."""
    if (folder / "run.json").is_file():
        below = [folder]
    else:
        below = [path.parent for path in sorted(folder.glob("*/run.json")) if (path.parent / "checkpoint.pt").is_file()]
    if not below:
        raise UserError(f"{folder} holds no finished run (run.json and checkpoint.pt) that a design could start from")
    return [_read(path) for path in below]


def _read(folder: Path) -> Start:
    path = folder / "run.json"
    with reading(path):
        content = json_object(path, "design", "experiment")
        return Start(folder, content["design"], from_dict(content["experiment"]), content.get("encoder"))


def _check(run: Start, here: Experiment, entry: str) -> None:
    """Raises UserError where the run is not finished, or its weights mean something else here: the first thing that differs."""
    try:
        reached = torch.load(run.checkpoint, map_location="cpu", mmap=True)["progress"]["step"]
    except Exception as e:  # torch raises several kinds for a damaged file
        raise UserError(f"the checkpoint {run.checkpoint} cannot be read ({type(e).__name__}): train it again") from e
    steps = sum(stage.steps for stage in run.experiment.stages(run.design))
    if reached < steps:
        raise UserError(
            f"{run.folder} is not finished: {reached} of {steps} steps; the command that began it goes on with it"
        )
    for name, was, now in _meanings(run, here, entry):
        if was != now:
            raise UserError(f"{run.folder} cannot be started from: there {name} is {was!r}, here {now!r}")


def _meanings(run: Start, here: Experiment, entry: str) -> list[tuple[str, Any, Any]]:
    """What must agree: its name, of the run and here."""
    there = run.experiment
    was, now = asdict(there.model), asdict(here.model)
    out = [(f"model.{k}", was[k], now[k]) for k in now]
    was, now = ({k: v for k, v in e.resolved(entry).items() if k not in BEGINS} for e in (there, here))
    out += [(f"overrides.{entry}.{k}", was.get(k), now.get(k)) for k in sorted({*was, *now})]
    if design_class(entry).needs == "flame":
        out.append(("the parametric head", _head(there), _head(here)))
    encoder = file_digest(Path(here.driver)) if external.is_file(here.driver) else None
    return [*out, ("the driver's code", _code(there, run.encoder, run.folder), _code(here, encoder, None))]


def _head(experiment: Experiment) -> str:
    """Whose components a parametric design's weights are for."""
    kind = experiment.world.kind
    return f"that of {experiment.flame}" if experiment.flame else "procedural" if kind == "clips" else kind


def _code(experiment: Experiment, encoder: str | None, of: Path | None) -> str:
    """What a driving code means. The 52 coefficients go through the same fixed network, true ones of a world and measured ones of
    video; an image driver's encoder was trained on the experiment's own data, and means something else on any other."""
    name = experiment.driver
    if name == "image":
        return f"that of the encoder of {of or 'this data set'}"
    if name == "flame":
        return f"flame coefficients of {_head(experiment)}"
    return encoder or DRIVER_ON_VIDEO.get(name, name)
