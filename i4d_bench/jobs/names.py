"""Names of what an experiment makes: designs, report folder, run ids."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from i4d_bench.config import presets
from i4d_bench.config.ablations import ablation
from i4d_bench.config.experiment import Experiment, digest
from i4d_bench.data import synthetic
from i4d_bench.data.frames import open_frames
from i4d_bench.results.environment import hardware_name
from i4d_bench.types import UserError
from variants import names


def designs(experiment: Experiment) -> list[str]:
    """The designs asked for ("all": every registered one). Raises UserError for an unknown name or setting."""
    chosen = names() if experiment.designs == ("all",) else list(experiment.designs)
    for name in {*chosen, *experiment.overrides}:
        experiment.fusion(name)
    return chosen


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
