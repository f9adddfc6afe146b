"""Frames per second as tables and figures show them: whole frames of one `i4d-bench speed` report, at the paper's size (DESIGN §6).

All rows of a table come from one such report: a user's own one of the same machine, else the published one. A run does not time its
own frames: its avatars are small, and other runs share its machine.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from i4d_bench.config import presets
from i4d_bench.config.ablations import STARTS
from i4d_bench.config.experiment import HARNESS
from i4d_bench.reading import json_object, reading
from i4d_bench.report.rows import Row
from i4d_bench.results.environment import ROOT, code_of
from i4d_bench.speed.keys import SCHEMA, Key
from i4d_bench.speed.plan import Plan
from variants import design, names
from variants.base import defaults

PUBLISHED = ROOT / "reports" / "published"
SIZE = (Plan.batch, Plan.gaussians, Plan.resolution)
"""The paper's: one frame, 196,608 Gaussians, 512²."""
GRAPH, EAGER = "triton+graph", "eager"
"""The mode that counts on a GPU, and a CPU's only one."""
DRIVER = "ResNet-18"
"""As `speed.rig.ImageDriver` is."""
NO_FPS = "‡"
"""In place of a number."""
TRACKER = Key("tracker", "mediapipe", EAGER, 1)
TIMELESS = {*HARNESS, *presets.PUBLISHED}.union(*STARTS.values())
"""Settings of a design on which its time does not depend: the harness's, and the numbers that its weights start from."""


@dataclass(frozen=True)
class Speeds:
    """A speed report, of which whole frames at SIZE in `mode` count."""

    name: str
    environment: dict[str, Any]
    mode: str
    rows: dict[str, dict[str, Any]]
    needs: dict[str, str]  # of each design that was timed: "motion", "flame", "none"

    @property
    def hardware(self) -> str:
        return self.environment["hardware"]

    @property
    def machine(self) -> str:
        """As heads of columns have it: "H100", or a CPU's "amd-epyc-2cores"."""
        return self.hardware.upper() if self.mode == GRAPH else self.hardware

    def fps(self, entry: str, tracked: bool = True) -> float:
        """Frames per second of a row of a table. tracked: with a tracker where the design needs FLAME coefficients. NaN where the
        report has not exactly that entry, or no valid row of it or of the tracker."""
        row = self._frames.get(_timed_as(entry))
        if row is None or row["status"] != "ok":
            return np.nan
        if tracked and self._on_flame(entry):
            return with_tracker(row, self.tracker) if self.tracker else np.nan
        return row["fps"]

    def of(self, entries: Iterable[str]) -> dict[str, dict[str, Any]]:
        """All rows of these designs, and the tracker's, by their keys."""
        wanted = {_timed_as(e) for e in entries}
        keys = {k: Key.parse(k) for k in self.rows}
        chosen = lambda k: k == TRACKER or (k.stage in ("fusion", "frame") and _timed_as(k.what) in wanted)  # noqa: E731
        return {k: self.rows[k] for k, key in keys.items() if chosen(key)}

    def about(self) -> str:
        """What was timed, where and how."""
        b, n, r = SIZE
        tracked = "; FLAME designs with a tracker (MediaPipe)" if self.tracker else ""
        return (
            f"whole frames ({DRIVER} as driver, fusion, splatting) of {self.name} ({self.hardware}, commit "
            f"{code_of(self.environment)}): {self.mode}, {n:,} Gaussians, {r}², batch {b}{tracked}"
        )

    def notes(self, designs: dict[str, Row]) -> list[str]:
        """What a reader must know under a table of these rows."""
        here = next(iter(designs.values())).last.environment["hardware"]
        out = [f"FPS: {self.about()}" + (f"; not on this report's {here}." if here != self.hardware else ".")]
        missing = self.missing(designs)
        if missing:
            untracked = any(self._on_flame(d) for d in missing) and not self.tracker
            why = " or of the tracker that FLAME designs need" * untracked
            marked = f"{NO_FPS} " * (len(missing) < len(designs))
            out.append(
                f"{marked}No FPS, for want of a valid row there{why}: {', '.join(missing)}. "
                f"All rows on {here}: `{self._command(designs)}`, then `i4d-bench report` again."
            )
        return [*out, *self.resized(designs)]

    def resized(self, designs: dict[str, Row]) -> list[str]:
        """A sentence about those that are timed at other sizes than they were trained at, if there are any."""
        resized = {d: self._resized(row) for d, row in designs.items() if np.isfinite(self.fps(d))}
        told = [f"{d} ({', '.join(f'{k}={v}' for k, v in own.items())})" for d, own in resized.items() if own]
        return [f"Timed at their default sizes, trained here at others: {', '.join(told)}."] if told else []

    def missing(self, designs: Iterable[str]) -> list[str]:
        """Those without FPS."""
        return [d for d in designs if not np.isfinite(self.fps(d))]

    def _command(self, designs: dict[str, Row]) -> str:
        """What times all rows of a table, the user's own among them, so that they have their FPS from one report."""
        files = [s for row in designs.values() for r in row.runs for s in r.config.get("sources", ())]
        rows, ours = list(dict.fromkeys(map(_timed_as, designs))), set(names())
        if ours <= set(rows):
            rows = ["all", *(r for r in rows if r not in ours)]
        entries = dict.fromkeys((*files, *rows))
        size = f"--gaussians {SIZE[1]} --resolution {SIZE[2]} --base-only"
        return f"i4d-bench speed --designs {' '.join(map(shlex.quote, entries))} {size}"

    @property
    def axis(self) -> str:
        """The label of a figure's axis, in lines that a page holds."""
        b, n, r = SIZE
        return (
            f"frames per second →\n{n:,} Gaussians, {r}², batch {b}, {DRIVER} as driver, {self.mode}, {self.hardware}"
        )

    @cached_property
    def tracker(self) -> dict[str, Any] | None:
        """Its row, if it is valid."""
        return tracker({Key.parse(k): row for k, row in self.rows.items()})

    @cached_property
    def _frames(self) -> dict[str, dict[str, Any]]:
        """By entry, without its timeless settings."""
        keys = {Key.parse(k): row for k, row in self.rows.items()}
        return {_timed_as(k.what): row for k, row in keys.items() if _counts(k, self.mode)}

    def _on_flame(self, entry: str) -> bool:
        return self.needs.get(entry.partition("@")[0]) == "flame"

    def _resized(self, row: Row) -> dict[str, Any]:
        """Settings with which a row was trained and not timed."""
        entry, trained = row.last.design, row.last.overrides
        if entry.partition("@")[0] not in names():
            return {}
        timed = (presets.gpu() if self.mode == GRAPH else presets.cpu()).resolved(entry)
        own = defaults(entry) | trained
        return {k: v for k, v in own.items() if k not in TIMELESS and v != timed.get(k)}


def find(folder: Path, hardware: str) -> Speeds | None:
    """For a report folder of that hardware: the speed report beside it that was made on the same, else the published one (of the
    same hardware, if there is one). None where there is none of SIZE. Raises UserError for a damaged one."""
    alike = lambda s: s.hardware == hardware  # noqa: E731
    own = [s for s in inside(folder.resolve().parent) if alike(s)]
    return next(iter(own or sorted(inside(PUBLISHED), key=alike, reverse=True)), None)


def inside(reports: Path) -> list[Speeds]:
    """The speed reports in a folder of reports that have whole frames of SIZE in a mode that counts."""
    found = [_read(path) for path in sorted(reports.glob("speed-*/speed.json"))]
    return [s for s in found if s is not None]


def stored(path: Path) -> dict[str, Any]:
    """A speed.json. Raises UserError for a damaged one."""
    with reading(path):
        content = json_object(path, "schema", "environment", "roof", "base", "rows")
        for key in content["rows"]:
            Key.parse(key)
    return content


def _read(path: Path) -> Speeds | None:
    content = stored(path)
    if content["schema"] != SCHEMA or tuple(content["base"]) != SIZE:
        return None
    env, keys = content["environment"], [Key.parse(k) for k in content["rows"]]
    modes = (GRAPH, EAGER) if env.get("gpu", {}) is None else (GRAPH,)  # older reports do not say, and are of GPUs
    mode = next((m for m in modes if any(_counts(k, m) for k in keys)), None)
    if mode is None:
        return None
    needs = {name: about["needs"] for name, about in described(content, keys).items()}
    return Speeds(path.parent.name, env, mode, content["rows"], needs)


def _counts(key: Key, mode: str) -> bool:
    return (key.stage, key.mode, (key.b, key.n, key.r), key.t) == ("frame", mode, SIZE, None)


def _timed_as(entry: str) -> str:
    """The entry without the settings that cost no time, the others in one order."""
    name, _, text = entry.partition("@")
    kept = sorted(part for part in text.split(",") if part and part.partition("=")[0] not in TIMELESS)
    return f"{name}@{','.join(kept)}" if kept else name


def described(content: dict[str, Any], keys: Iterable[Key]) -> dict[str, dict[str, str]]:
    """Family and needs of the timed designs, by name: as stored with the rows, else as they are registered here, else unknown."""
    timed = sorted({k.what.partition("@")[0] for k in keys if k.stage in ("fusion", "frame")})
    here = {d: {"family": design(d).family, "needs": design(d).needs} for d in timed if d in names()}
    return {d: content.get("designs", here).get(d, {"family": "", "needs": ""}) for d in timed}


def tracker(rows: dict[Key, dict[str, Any]]) -> dict[str, Any] | None:
    """The tracker's row of a speed report; None where there is none that is valid."""
    row = rows.get(TRACKER)
    return row if row and row["status"] == "ok" else None


def with_tracker(row: dict[str, Any], tracker: dict[str, Any], batch: int = 1) -> float:
    """Frames per second where the tracker finds the coefficients of each picture first, one after the other."""
    return 1000 * batch / (row["host_ms"] + batch * tracker["host_ms"])
