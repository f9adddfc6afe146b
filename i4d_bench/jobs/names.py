"""Names of what an experiment makes: designs, report folder, run ids."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from i4d_bench.cache import file_digest
from i4d_bench.config import presets
from i4d_bench.config.ablations import as_in
from i4d_bench.config.experiment import Experiment, World, digest
from i4d_bench.data.joined import open_real
from i4d_bench.data.seen import without
from i4d_bench.data.teacher.store import pairs_digest
from i4d_bench.drivers.driver import label
from i4d_bench.drivers.tracked import flame_error
from i4d_bench.jobs.initial import label as label_of_start
from i4d_bench.results.environment import hardware_name
from i4d_bench.types import UserError
from variants import know, names


def seeds(text: str) -> tuple[int, ...]:
    """Seeds as they are written: `0`, `0-3`, `0,2,5`. Raises UserError."""
    out: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if found is None or int(found[2] or found[1]) < int(found[1]):
            raise UserError(f"--seeds {text}: seeds are written 0, 0-3 or 0,2,5")
        out += range(int(found[1]), int(found[2] or found[1]) + 1)
    return tuple(dict.fromkeys(out))


def designs(experiment: Experiment) -> list[str]:
    """The designs asked for ("all": every registered one). Raises UserError for an unknown name or setting."""
    know(experiment.designs, experiment.sources)
    every = names()
    chosen = [d for entry in experiment.designs for d in (every if entry == "all" else [entry])]
    for name in {*chosen, *(n for n in experiment.overrides if n in every)}:  # presets may know more than there is here
        experiment.fusion(name)
        flame_error(experiment, name)
    return list(dict.fromkeys(chosen))


def folder_name(experiment: Experiment) -> str:
    """One report folder per preset, hardware, data and driver, and of its own for changed settings: what stands in one table was
    made alike. A data set, FLAME file or encoder is named with a hash of its content, people who are held out by their names.
    Raises UserError for a missing one."""
    e, preset = experiment, presets.preset(experiment.preset)
    same = {k: getattr(e.world, k) for k in ("kind", "path", "further", "hold_out", "beside")}
    plain = dataclasses.replace(preset.world, **same)
    if e.ablation:
        preset = as_in(e.ablation, preset)
    own = {k: getattr(e, k) for k in ("driver", "flame", "teacher", "init", "designs", "sources", "seed")} | {
        "world": plain
    }
    parts = [f"ablation-{e.ablation}"] if e.ablation else []
    parts += [e.preset, hardware_name(), _data(e.world), label(e.driver)]
    parts += [label_of_start(e.init)] if e.init else []
    parts += [f"{Path(e.flame).stem}-{file_digest(Path(e.flame))[:6]}"] if e.flame else []
    if e.teacher.path:
        store = Path(e.teacher.path).resolve()
        parts += [
            f"{store.name}-{pairs_digest(store)[:6]}",
            e.teacher.supervision + ("-bias_sink" if e.teacher.bias_sink else ""),
        ]
    if e != dataclasses.replace(preset, **own):
        parts.append(
            digest([{**e.shared(), "seed": None, "driver": label(e.driver), "teacher": None}, e.overrides])[:6]
        )
    return "-".join(parts)


def _data(world: World) -> str:
    """Of a rendered world its kind; of real video the data sets, their content, what stands beside them and who is held out."""
    if world.path is None:
        return world.kind
    frames = open_real(world)
    parts = ["+".join(Path(path).resolve().name for path in (world.path, *world.further)), frames.meta["hash"][:6]]
    parts += [world.beside] if world.beside else []
    return "-".join([*parts, without(frames, world.hold_out)] if world.hold_out else parts)
