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
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import kernels
import variants
from i4d_bench import frame, timing
from i4d_bench.cache import atomic_file
from i4d_bench.data.video.landmarker import Landmarker
from i4d_bench.heads.worlds import exported_head
from i4d_bench.progress import track
from i4d_bench.results.environment import environment, hardware_name
from i4d_bench.types import Gaussians, MotionCode, UserError
from kernels.cases import CASES, FLOORS, case

SCHEMA = 1
PSNR = 45.0
"""dB to the fp32 eager picture that a fast row must reach."""
COMPILED = 50.0
"""How many floors (`kernels.cases.FLOORS`) a compiled kernel may be from its own source: it rounds at other places."""
IN_EVERY_MODE = ("local_adaln", "global_cross_attention")
"""On the axes; the other designs there run in eager and in the last mode, which is the fastest."""
SPARE_CORES, MOST_WORKERS = 2, 14
"""Of the processes that compile ahead of the measuring."""


@dataclass(frozen=True)
class Plan:
    """What is measured: the base point and, from there, one axis at a time."""

    gaussians: int = 196_608
    resolution: int = 512
    batch: int = 1
    counts: tuple[int, ...] = (16_384, 65_536, 524_288, 1_048_576)
    resolutions: tuple[int, ...] = (256, 1024)
    batches: tuple[int, ...] = (8,)
    tokens: tuple[int, ...] = (4, 16, 64, 256)
    modes: tuple[str, ...] = frame.MODES
    designs: tuple[str, ...] = field(default_factory=lambda: everything())
    frames: int = 200
    storage: torch.dtype = torch.float16


def everything() -> tuple[str, ...]:
    """Every design, and with its published sizes where it has some."""
    return tuple(
        n for name in variants.names() for n in (name, f"{name}@native") if "@" not in n or variants.design(name).native
    )


def plan(device: torch.device) -> Plan:
    """A GPU's, or a small one for a CPU."""
    if device.type == "cuda":
        return Plan()
    return Plan(4096, 128, 1, (1024, 16_384), (64, 256), (4,), (4, 64), ("eager",), tuple(variants.names()), frames=20)


def rows(what: Plan) -> list[Kernel | Stage | Tracker]:
    """Every row of the plan: the base point first, then the axes."""
    base = (what.batch, what.gaussians, what.resolution)
    batches = [(b, *base[1:]) for b in what.batches]
    counts = [(base[0], n, base[2]) for n in what.counts]
    out: list[Kernel | Stage | Tracker] = [Stage("driver", "resnet18", m, what.batch) for m in what.modes]
    out += [Stage("encode", "backbone", "eager", 1, n) for n in (what.gaussians, *what.counts) if "eager" in what.modes]
    out += [Stage("raster", "static", m, *base) for m in what.modes if m in frame.RASTERS]
    if "eager" in what.modes and any(variants.design(d).needs == "flame" for d in what.designs):
        out.append(Tracker())
    out += [Stage(s, d, m, *base) for d in what.designs for s in ("fusion", "frame") for m in what.modes]
    for c in CASES:
        modes = [
            m for m in (*frame.MODES[:3], *c.others) if m in what.modes or (m in c.others and "compiled" in what.modes)
        ]
        out += [Kernel(c.name, m, 1, what.gaussians) for m in modes]
        out += [Kernel(c.name, m, 1, what.gaussians, True) for m in modes if m not in c.others]
        axis = sorted({*what.batches, *c.batches}) if what.batches else ()
        out += [Kernel(c.name, m, b, what.gaussians) for b in axis for m in modes]
    out += [Stage("driver", "resnet18", m, b) for b in what.batches for m in what.modes]
    plain = [d for d in what.designs if "@" not in d]  # the axes; published sizes stand at the base point
    ends = tuple(dict.fromkeys((what.modes[0], what.modes[-1])))
    modes_of = {d: what.modes if d in IN_EVERY_MODE else ends for d in plain}
    out += [Stage("fusion", d, m, *at) for d in plain for at in counts + batches for m in modes_of[d]]
    out += [Stage("frame", d, m, *at) for d in plain for at in batches for m in modes_of[d]]
    with_tokens = [d for d in plain if variants.design(d).tokens is not None]
    out += [Stage("fusion", d, m, *base, t) for d in with_tokens for t in what.tokens for m in modes_of[d]]
    sizes = counts + [(*base[:2], r) for r in what.resolutions]
    out += [Stage("raster", "static", m, *at) for at in sizes + batches for m in what.modes if m in frame.RASTERS]
    whole = [
        d for d in what.designs if d == "local_adaln"
    ]  # where the splatting is all that changes, one design shows it
    return out + [Stage("frame", d, m, *at) for d in whole for at in sizes for m in what.modes]


def main(reports: Path, given: dict[str, Any], base_only: bool) -> None:
    """Measures on this machine's GPU, or its CPU, and writes the report. Raises UserError for unknown designs and modes."""
    from i4d_bench.report import speed as report

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if given.get("designs") == ("all",):
        del given["designs"]
    for name in given.get("designs", ()):
        variants.create(name)
    for mode in given.get("modes", ()):
        if mode not in frame.MODES:
            raise UserError(f"there is no mode {mode!r}; there are {', '.join(frame.MODES)}")
        if mode.startswith("triton") and device.type != "cuda":
            raise UserError(f"the mode {mode} needs a CUDA GPU")
    what = replace(plan(device), **given)
    if base_only:
        what = replace(what, counts=(), resolutions=(), batches=(), tokens=())
    folder = reports / f"speed-{hardware_name()}-n{what.gaussians}-r{what.resolution}"
    speed = run(folder, device, what)
    report.build(folder)
    print((folder / "speed.md").read_text())
    bad = sum(row["status"] != "ok" for row in speed.rows.values())
    print(f"{folder}: {len(speed.rows)} rows" + (f", {bad} of which do not count" if bad else ""))


def run(folder: Path, device: torch.device, what: Plan) -> Speed:
    """Measures the plan into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    speed = Speed(folder, device, (what.batch, what.gaussians, what.resolution))
    missing = [row for row in rows(what) if row.key not in speed.rows]
    if device.type == "cuda":
        compile_ahead([row for row in missing if row.mode not in ("eager", "triton+graph")], what)
    for row in track(missing, "speed", len(missing), note=lambda: f"{len(speed.rows)} rows"):
        speed.measure(row, what)
    return speed


def compile_ahead(missing: list[Kernel | Stage], what: Plan) -> None:
    """Fills the compilers' caches on disk from several processes: alone, compiling takes ten times as long as measuring."""
    workers = min((os.cpu_count() or 1) - SPARE_CORES, MOST_WORKERS, len(missing) // 2)
    if workers < 2:
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        done = pool.imap_unordered(functools.partial(_compile, what), missing)
        for _ in track(done, "compiling", len(missing)):
            pass


def _compile(what: Plan, row: Kernel | Stage) -> None:
    try:
        row.prepare(what, torch.device("cuda"))[0](0)
    except Exception:  # what cannot run says so as a row, when it is measured
        return
    finally:
        _free(torch.device("cuda"))


def _free(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


@dataclass
class Speed:
    """Rows by key (DESIGN §7), kept in `folder`/speed.json. base: batch, Gaussians and resolution that the axes start from."""

    folder: Path
    device: torch.device
    base: tuple[int, int, int]
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    roof: dict[str, float] = field(default_factory=dict)

    def __post_init__(self):
        self.environment = environment()
        path = self.folder / "speed.json"
        if path.exists():
            old = json.loads(path.read_text())
            same = lambda e: {k: e.get(k) for k in ("hardware", "commit", "dirty", "versions")}  # noqa: E731
            if old["schema"] == SCHEMA and same(old["environment"]) == same(self.environment):
                self.rows, self.roof = old["rows"], old["roof"]
        self.roof = self.roof or timing.roof(self.device)

    def measure(self, row: Kernel | Stage | Tracker, what: Plan) -> None:
        """Stores a row. One that fails says why; raises UserError when the GPU is lost with it."""
        try:
            self.rows[row.key] = row.measure(what, self.device)
        except (RuntimeError, ValueError, UserError) as e:
            self.rows[row.key] = {"status": f"failed: {' '.join(str(e).split())[:200]}"}
            self.save()
            self._still_there(row)
        _free(self.device)
        self.save()

    def _still_there(self, row: Kernel | Stage | Tracker) -> None:
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
            "rows": self.rows,
        }
        with atomic_file(self.folder / "speed.json") as path:
            path.write_text(json.dumps(content, indent=1) + "\n")


Call = Callable[[int], object]


@dataclass(frozen=True)
class Kernel:
    """Device time of an op. mode: eager, compiled, triton, or one of the case's `others`."""

    what: str
    mode: str
    batch: int
    n: int
    backward: bool = False

    @property
    def key(self) -> str:
        size = f"/n{self.n}" if case(self.what).per_gaussian else ""
        return f"kernel/{self.what}{'+backward' if self.backward else ''}/{self.mode}/b{self.batch}{size}"

    def measure(self, what: Plan, device: torch.device) -> dict[str, Any]:
        call, error, least = self.prepare(what, device)
        t = timing.device_time(call, device)
        more = {} if error is None else {"error": error}
        return t.row("ok" if error is None or error <= 1 else "wrong", **more, **least)

    def prepare(self, what: Plan, device: torch.device) -> tuple[Call, float | None, dict[str, int]]:
        """call(k) on inputs in turn that the cache cannot hold; the error over the allowed one (None: the twin itself); and,
        forward, the bytes and flops that the op cannot do without."""
        torch._dynamo.reset()
        op, backward = case(self.what), self.backward
        storage = what.storage if device.type == "cuda" else torch.float32
        ops = "triton" if self.mode == "triton" else "eager"
        first = op.inputs(self.n, 1, self.batch, storage, device)
        least = op.cost(first)
        error = max(op.check(first, ops, backward).values()) if self.mode == "triton" else None
        more = range(1, 3 if backward else min(6, 2 + 2**28 // least["bytes"]))
        inputs = [first, *(op.inputs(self.n, 1, self.batch, storage, device, seed) for seed in more)]
        if backward:
            inputs = [{k: v.requires_grad_() if k in op.leaves else v for k, v in x.items()} for x in inputs]
        fast = {"eager": op.call, "triton": op.call}.get(self.mode) or torch.compile(op.others.get(self.mode, op.call))

        def call(k: int, run=fast):
            x = inputs[k % len(inputs)]
            with torch.set_grad_enabled(backward), kernels.using(ops):
                out = run(x)
                return (
                    torch.autograd.grad(out, [x[k] for k in op.leaves], [o.detach() for o in out]) if backward else out
                )

        if fast is not op.call:
            pairs = zip(call(0), call(0, op.call), strict=True)
            far = [float((y - true).double().norm() / true.double().norm().clamp_min(1e-30)) for y, true in pairs]
            error = max(far) / (COMPILED * FLOORS[storage])
        return call, error, {} if backward else least


@dataclass(frozen=True)
class Tracker:
    """What designs on FLAME coefficients need before each frame of a video, and others do not."""

    mode: str = "eager"
    key: str = "tracker/mediapipe/eager/b1"

    @torch.no_grad()
    def measure(self, what: Plan, device: torch.device) -> dict[str, Any]:
        pictures = frame.tracked_pictures(8)
        with Landmarker() as landmarker:
            track = frame.tracker(landmarker, exported_head("procedural").to(device))
            return timing.measure(lambda k: track(pictures[k % len(pictures)]), what.frames, device).row()


def of_roof(row: dict[str, Any], roof: dict[str, float]) -> float | None:
    """How near a row of a kernel is to what the machine could do: 1 is the roof. None where the row has no floor."""
    if "bytes" not in row:
        return None
    return max(row["bytes"] / roof["copy_tb_s"], row["flops"] / roof["matmul_tflop_s"]) / 1e9 / row["ms"]


@dataclass(frozen=True)
class Stage:
    """A stage of a frame, or all of it, as its user meets it: one call after another. what: the design, or the driver's network."""

    stage: str
    what: str
    mode: str
    batch: int
    n: int | None = None
    resolution: int | None = None
    tokens: int | None = None

    @property
    def key(self) -> str:
        sizes = {
            "b": self.batch,
            "n": self.n,
            "r": None if self.stage == "fusion" else self.resolution,
            "t": self.tokens,
        }
        return "/".join([self.stage, self.what, self.mode, *(f"{k}{v}" for k, v in sizes.items() if v is not None)])

    @torch.no_grad()
    def measure(self, what: Plan, device: torch.device) -> dict[str, Any]:
        """peak_mib: GPU memory that this mode holds and uses beyond its inputs and the reference."""
        cuda = device.type == "cuda"
        self._reference(what, device)
        held = torch.cuda.memory_allocated() if cuda else 0
        call, closest = self.prepare(what, device)
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        t = timing.measure(call, what.frames, device)
        memory = {"peak_mib": (torch.cuda.max_memory_allocated() - held) / 2**20} if cuda else {}
        return t.row("ok" if closest >= PSNR else "wrong", psnr=closest, **memory)

    def _reference(self, what: Plan, device: torch.device) -> Reference:
        design, n, resolution = self.what, self.n, self.resolution
        if self.stage in ("encode", "driver"):
            design, n, resolution = "static", n or what.gaussians, what.resolution
        return _reference(design, n, resolution, self.batch, self.tokens, device, what.storage)

    @torch.no_grad()
    def prepare(self, what: Plan, device: torch.device) -> tuple[Call, float]:
        """call(k) on inputs in turn, and the least PSNR of their pictures against fp32 eager's."""
        torch._dynamo.reset()
        ref = self._reference(what, device)
        if self.stage == "encode":  # once per person, in eager fp32 alone
            call, inputs, show = ref.rig.encode, ref.rig.photos, lambda identity: ref.splat(identity.canonical)
            return lambda k: call(inputs[k % len(inputs)]), _psnr(
                show(call(inputs[0])), ref.splat(ref.rig.identity.canonical)
            )
        if self.stage == "driver":
            call, inputs, show = (
                frame.driver(ref.rig, self.mode),
                ref.rig.images,
                lambda code: ref.splat(ref.animate(code)),
            )
        elif self.stage == "fusion":
            call, inputs, show = frame.fusion(ref.rig, self.mode), ref.codes, ref.splat
        elif self.stage == "raster":
            gaussians = [ref.animate(code) for code in ref.codes]
            call, inputs, show = frame.raster(ref.rig, self.mode, gaussians[0]), gaussians, lambda rgb: rgb
        else:
            call, inputs, show = frame.frame(ref.rig, self.mode), ref.rig.images, lambda rgb: rgb
        if self.mode == "triton+graph" and self.stage != "frame":  # a frame in this mode is one already
            call = timing.graphed(call, inputs[0])
        closest = min(_psnr(show(call(x)), true) for x, true in zip(inputs, ref.pictures, strict=True))
        return lambda k: call(inputs[k % len(inputs)]), closest


@dataclass
class Reference:
    """fp32 eager: what the modes of one design at one size are held against."""

    rig: frame.Rig
    codes: list[MotionCode]
    animate: Callable[[MotionCode], Gaussians]
    splat: Callable[[Gaussians], Tensor]
    pictures: list[Tensor]


@functools.lru_cache(maxsize=1)
def _reference(design: str, n: int, resolution: int, batch: int, tokens: int | None, device, storage) -> Reference:
    overrides = {} if tokens is None else {variants.design(design).tokens: tokens}
    r = frame.rig(design, n, resolution, batch, device, storage=storage, overrides=overrides)
    drive, animate = frame.driver(r, "eager"), frame.fusion(r, "eager")
    codes = [drive(image) for image in r.images]
    splat = frame.raster(r, "eager", animate(codes[0]))
    return Reference(r, codes, animate, splat, [splat(animate(code)) for code in codes])


def _psnr(a: Tensor, b: Tensor) -> float:
    """dB, over whole pictures in 0..1; 100 where they are equal."""
    error = float((a.clamp(0, 1) - b.clamp(0, 1)).square().mean())
    return 100.0 if error < 1e-10 else float(-10 * torch.log10(torch.tensor(error)))
