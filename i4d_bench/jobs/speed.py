"""`i4d-bench speed`: measures on this machine and writes the report."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import variants
from i4d_bench import outputs
from i4d_bench.play import splats
from i4d_bench.play.ply import read_ply
from i4d_bench.printing import counted, print_table
from i4d_bench.results.environment import hardware_name
from i4d_bench.speed import rig
from i4d_bench.speed.plan import plan
from i4d_bench.speed.suite import FAILED, NOT_HERE, run
from i4d_bench.types import Gaussians, UserError


def main(reports: Path, given: dict[str, Any], base_only: bool) -> int:
    """Measures on this machine's GPU, or its CPU, and writes the report. Returns 1 when a row is wrong or failed; one that this
    machine cannot run, and says why, is no failure. Raises UserError for unknown designs and modes."""
    from i4d_bench.report import speed_tables as report

    outputs.folder(reports)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if "designs" in given:
        every, entries = plan(device).designs, variants.load(given["designs"])
        for name in entries:
            if name != "all":
                variants.create(name)
        chosen = tuple(dict.fromkeys(d for e in entries for d in (every if e == "all" else (e,))))
        given |= {"designs": chosen, "sources": variants.given(chosen)}
    for mode in given.get("modes", ()):
        if mode not in rig.MODES:
            raise UserError(f"there is no mode {mode!r}; there are {', '.join(rig.MODES)}")
        if mode.startswith("triton") and device.type != "cuda":
            raise UserError(f"the mode {mode} needs a CUDA GPU")
    trained = avatars(given.pop("avatars", ()))
    what = replace(plan(device), avatars=trained, **given)
    if base_only:
        what = replace(what, counts=(), resolutions=(), batches=(), tokens=())
    folder = reports / f"speed-{hardware_name()}-n{what.gaussians}-r{what.resolution}"
    speed = run(folder, device, what)
    tables = report.write(folder)
    _print(tables["frames"], ("mode", "batch", "frames per second", "host (ms)", "device (ms)"))
    if trained:
        print()
        _print(tables["splats"].loc[lambda table: table["avatar"].isin(trained)])
    statuses = {key: row["status"] for key, row in speed.rows.items()}
    absent = sum(status.startswith(NOT_HERE) for status in statuses.values())
    print(f"\nkernels, stages and figures: {folder / 'speed.md'}")
    print(f"{folder}: {counted(len(statuses), 'row')}" + (f", {absent} of which cannot run here" if absent else ""))
    bad = [key for key, status in statuses.items() if status == "wrong" or status.startswith(FAILED)]
    if bad:
        print(
            f"i4d-bench: {counted(len(bad), 'row is', 'rows are')} wrong or failed: {', '.join(bad)}", file=sys.stderr
        )
    return int(bool(bad))


def _print(table: pd.DataFrame, order: Sequence[str] = ()) -> None:
    """order: as `print_table` has it."""
    text = table.astype(str)
    print_table(list(text), text.to_numpy().tolist(), order)


def avatars(paths: Sequence[Path]) -> dict[str, Gaussians]:
    """Trained avatars by their files' names: 3DGS .ply, or what a run keeps for its page (.splats), at rest. Raises UserError for a
    file that is neither, and for two of one name."""
    found: dict[str, Gaussians] = {}
    for path in paths:
        if path.stem in found or path.stem == "static":
            raise UserError(f"{path}: rows are named by the avatars' files, and {path.stem} is there already")
        found[path.stem] = splats.read(path) if path.suffix == ".splats" else read_ply(path)
    return found
