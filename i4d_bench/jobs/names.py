"""Names of what an experiment makes: designs, report folder, run ids."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from i4d_bench.cache import file_digest
from i4d_bench.config import presets
from i4d_bench.config.ablations import ablation
from i4d_bench.config.experiment import Experiment, digest
from i4d_bench.data.frames import open_frames
from i4d_bench.results.environment import hardware_name
from variants import names


def designs(experiment: Experiment) -> list[str]:
    """The designs asked for ("all": every registered one). Raises UserError for an unknown name or setting."""
    chosen = names() if experiment.designs == ("all",) else list(experiment.designs)
    for name in {*chosen, *experiment.overrides}:
        experiment.fusion(name)
    return chosen


def folder_name(experiment: Experiment) -> str:
    """One report folder per preset, hardware, data and driver, and of its own for changed settings: what stands in one table was
    made alike. A data set or FLAME file is named with a hash of its content. Raises UserError for a missing one."""
    e, preset = experiment, presets.preset(experiment.preset)
    kind, path = e.world.kind, e.world.path
    plain = dataclasses.replace(preset.world, kind=kind, path=path)
    if e.ablation:
        preset = ablation(e.ablation, preset)
    own = {"world": plain, "driver": e.driver, "flame": e.flame, "designs": e.designs, "seed": e.seed}
    parts = [f"ablation-{e.ablation}"] if e.ablation else []
    data = f"{Path(path).resolve().name}-{open_frames(Path(path)).meta['hash'][:6]}" if path else kind
    parts += [e.preset, hardware_name(), data, e.driver]
    parts += [f"{Path(e.flame).stem}-{file_digest(Path(e.flame))[:6]}"] if e.flame else []
    if e != dataclasses.replace(preset, **own):
        parts.append(digest([{**e.shared(), "seed": None}, e.overrides])[:6])
    return "-".join(parts)
