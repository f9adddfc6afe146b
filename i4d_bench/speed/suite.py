"""`i4d-bench speed`: kernels, stages and whole frames in every mode, one axis at a time (DESIGN §6).

Rows go to speed.json as they are measured, the most important first; a second call of the same code on the same machine measures
only what is missing. A row whose output differs from the reference in the same process is marked `wrong`.
"""

from __future__ import annotations

import functools
import gc
import json
import multiprocessing
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

import variants
from i4d_bench import source
from i4d_bench.cache import atomic_file
from i4d_bench.progress import track
from i4d_bench.reading import json_object
from i4d_bench.results.environment import environment
from i4d_bench.speed import protocol, rig
from i4d_bench.speed.keys import SCHEMA, Key
from i4d_bench.speed.plan import IN_FULL, Plan, in_every_mode
from i4d_bench.speed.rows import Kernel, Stage, Tracker
from i4d_bench.speed.splatted import Gradients, Trained
from i4d_bench.types import UserError
from kernels.cases import CASES
from variants.base import source_of

FAILED, NOT_HERE = "failed", "cannot run here"
"""How the status of a row without a time begins; the others are "ok" and "wrong"."""
SPARE_CORES, MOST_WORKERS = 2, 14
"""Of the processes that compile ahead of the measuring."""
Row = Kernel | Stage | Tracker | Trained | Gradients


def rows(what: Plan) -> list[Row]:
    """Every row of the plan: the base point first, then the axes."""
    base = (what.batch, what.gaussians, what.resolution)
    batches = [(b, *base[1:]) for b in what.batches]
    counts = [(base[0], n, base[2]) for n in what.counts]
    splats = [m for m in rig.SPLATS if m in what.modes or (m not in rig.RASTERS and "triton+graph" in what.modes)]
    out: list[Row] = [Stage("driver", "resnet18", m, what.batch) for m in what.modes]
    out += [Stage("encode", "backbone", "eager", 1, n) for n in (what.gaussians, *what.counts) if "eager" in what.modes]
    out += [Stage("raster", "static", m, *base) for m in splats]
    if "eager" in what.modes and any(variants.design(d).needs == "flame" for d in what.designs):
        out.append(Tracker())
    out += [Stage(s, d, m, *base) for d in what.designs for s in ("fusion", "frame") for m in what.modes]
    if "triton+graph" in what.modes:
        out += [Stage("frame", d, rig.AHEAD, *base) for d in what.designs if d in IN_FULL]
    for c in CASES:
        modes = [
            m for m in (*rig.MODES[:3], *c.others) if m in what.modes or (m in c.others and "compiled" in what.modes)
        ]
        out += [Kernel(c.name, m, 1, what.gaussians) for m in modes]
        out += [Kernel(c.name, m, 1, what.gaussians, True) for m in modes if m not in c.others]
        axis = sorted({*what.batches, *c.batches}) if what.batches else ()
        out += [Kernel(c.name, m, b, what.gaussians) for b in axis for m in modes]
    out += [Stage("driver", "resnet18", m, b) for b in what.batches for m in what.modes]
    plain = [d for d in what.designs if "@" not in d]  # the axes; published sizes stand at the base point
    ends = tuple(dict.fromkeys((what.modes[0], what.modes[-1])))
    full = in_every_mode({d: variants.design(d).family for d in plain})
    modes_of = {d: what.modes if d in full else ends for d in plain}
    out += [Stage("fusion", d, m, *at) for d in plain for at in counts + batches for m in modes_of[d]]
    out += [Stage("frame", d, m, *at) for d in plain for at in batches for m in modes_of[d]]
    with_tokens = [d for d in plain if variants.design(d).tokens is not None]
    out += [Stage("fusion", d, m, *base, t) for d in with_tokens for t in what.tokens for m in modes_of[d]]
    sizes = counts + [(*base[:2], r) for r in what.resolutions]
    out += [Stage("raster", "static", m, *at) for at in sizes + batches for m in splats]
    trained = what.trained if "triton+graph" in what.modes else ()
    out += [Gradients(*at) for at in trained]
    for name, avatar in what.avatars.items():
        n = avatar.means.shape[1]
        out += [Trained(name, m, n, r) for r in (base[2], *what.resolutions) for m in splats]
        out += [Gradients(b, n, r, name) for b, _, r in trained]
    whole = full[:1]  # where the splatting is all that changes, one design shows it
    return out + [Stage("frame", d, m, *at) for d in whole for at in sizes for m in what.modes]


def run(folder: Path, device: torch.device, what: Plan) -> Speed:
    """Measures the plan into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    speed = Speed(folder, device, (what.batch, what.gaussians, what.resolution), described(what.designs))
    # another avatar may have the name of one that was measured
    again = lambda row: isinstance(row, (Trained, Gradients)) and row.what in what.avatars  # noqa: E731
    missing = [row for row in rows(what) if row.key not in speed.rows or again(row)]
    if device.type == "cuda":
        own = [r for r in missing if isinstance(r, (Kernel, Stage)) and r.mode not in ("eager", "triton+graph")]
        compile_ahead(own, replace(what, avatars={}))  # which would travel with every row
    for row in track(missing, "speed", len(missing), note=lambda: f"{len(speed.rows)} rows"):
        speed.measure(row, what)
    return speed


def described(entries: Iterable[str]) -> dict[str, dict[str, str]]:
    """Of each design what reports need to know without it, and its source, by which a changed one is measured again."""
    classes = {name: variants.design(name) for name in (e.partition("@")[0] for e in entries)}
    return {
        n: {"family": c.family, "needs": c.needs, "source": source.digest(source_of(n))} for n, c in classes.items()
    }


def compile_ahead(missing: Sequence[Kernel | Stage], what: Plan) -> None:
    """Fills the compilers' caches on disk from several processes: alone, compiling takes ten times as long as measuring."""
    workers = min((os.cpu_count() or 1) - SPARE_CORES, MOST_WORKERS, len(missing) // 2)
    if workers < 2:
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        done = pool.imap_unordered(functools.partial(_compile, what), missing)
        for _ in track(done, "compiling", len(missing)):
            pass


def _compile(what: Plan, row: Kernel | Stage) -> None:
    variants.know(what.designs, what.sources)
    try:
        row.prepare(what, torch.device("cuda"))[0](0)
    except Exception:  # what cannot run says so as a row, when it is measured
        return
    finally:
        _free(torch.device("cuda"))


def _free(device: torch.device) -> None:
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()


@dataclass
class Speed:
    """Rows by key (DESIGN §7), kept in `folder`/speed.json.

    base: batch, Gaussians and resolution that the axes start from. designs: those of the plan (`described`).
    """

    folder: Path
    device: torch.device
    base: tuple[int, int, int]
    designs: dict[str, dict[str, str]] = field(default_factory=dict)
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    roof: dict[str, float] = field(default_factory=dict)

    def __post_init__(self):
        self.environment = environment() | {
            "source": source.digest("i4d_bench.speed.suite"),
            "rasteriser": rig.plain(self.device),
        }
        path = self.folder / "speed.json"
        if path.exists():
            old = json_object(path, "schema", "environment", "roof", "base", "rows")
            if old["schema"] == SCHEMA and all(
                old["environment"].get(k) == self.environment[k]
                for k in ("hardware", "gpu", "source", "versions", "rasteriser")
            ):
                before = old.get("designs", {})
                here = described(d for d in before if d in variants.names()) | self.designs
                changed = {d for d, now in here.items() if before.get(d) != now}
                same_code = lambda key: Key.parse(key).what.partition("@")[0] not in changed  # noqa: E731
                self.rows, self.roof = {k: r for k, r in old["rows"].items() if same_code(k)}, old["roof"]
                self.designs = {d: about for d, about in before.items() if d not in changed} | self.designs
        self.roof = self.roof or protocol.roof(self.device)

    def measure(self, row: Row, what: Plan) -> None:
        """Stores a row, and those that were timed in turn with it ("beside"). One that cannot run on this machine (a file is
        missing, its memory is too small) or fails says why; raises UserError when the GPU is lost with it."""
        try:
            found = row.measure(what, self.device)
            self.rows |= found.pop("beside", {}) | {row.key: found}
        except (RuntimeError, ValueError, UserError) as e:
            kind = NOT_HERE if isinstance(e, (UserError, torch.OutOfMemoryError)) else FAILED
            self.rows[row.key] = {"status": f"{kind}: {' '.join(str(e).split())[:200]}"}
            self.save()
            self._still_there(row)
        _free(self.device)
        self.save()

    def _still_there(self, row: Row) -> None:
        try:
            if self.device.type == "cuda":
                torch.cuda.synchronize()
        except RuntimeError as e:
            raise UserError(
                f"the GPU is lost to this process after {row.key} ({self.rows[row.key]['status']}); "
                "what was measured is kept, and the same command goes on with the next row"
            ) from e

    def save(self) -> None:
        content = {
            "schema": SCHEMA,
            "environment": self.environment,
            "roof": self.roof,
            "base": self.base,
            "designs": self.designs,
            "rows": self.rows,
        }
        with atomic_file(self.folder / "speed.json") as path:
            path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
