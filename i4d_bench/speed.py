"""`i4d-bench speed`: kernels, stages and whole frames in every mode, one axis at a time (DESIGN §6).

Rows go to speed.json as they are measured; a second call of the same code on the same machine measures only what is missing. A
row whose output differs from the reference in the same process is marked `wrong`.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

import kernels
import variants
from i4d_bench import frame, results, timing
from i4d_bench.cache import atomic_file
from i4d_bench.progress import track
from i4d_bench.types import UserError
from kernels.cases import CASES, FLOORS, Case

SCHEMA = 1
PSNR = 45.0
"""dB to the fp32 eager picture that a fast row must reach."""
COMPILED = 50
"""Times the floor by which torch.compile's outputs may differ from its own source's: it rounds in other places."""


@dataclass(frozen=True)
class Plan:
    """What is measured: `base` and, from there, one axis at a time."""

    gaussians: int = 196_608
    resolution: int = 512
    batch: int = 1
    counts: tuple[int, ...] = (16_384, 65_536, 524_288, 1_048_576)
    resolutions: tuple[int, ...] = (256, 1024)
    batches: tuple[int, ...] = (8,)
    tokens: tuple[int, ...] = (4, 16, 64, 256)
    modes: tuple[str, ...] = frame.MODES
    designs: tuple[str, ...] = field(default_factory=lambda: tuple(variants.names()))
    frames: int = 200
    storage: torch.dtype = torch.float16


def plan(device: torch.device) -> Plan:
    """A GPU's, or a small one for a CPU."""
    if device.type == "cuda":
        return Plan()
    return Plan(4096, 128, 1, (1024, 16_384), (64, 256), (4,), (4, 64), ("eager",), frames=20)


def main(reports: Path, given: dict[str, Any], base_only: bool) -> None:
    """Measures on this machine's GPU, or its CPU, and writes the report. Raises UserError for unknown designs and modes."""
    from i4d_bench.report import speed as report

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if given.get("designs") == ("all",):
        del given["designs"]
    for name in given.get("designs", ()):
        variants.design(name)
    for mode in given.get("modes", ()):
        if mode not in frame.MODES:
            raise UserError(f"there is no mode {mode!r}; there are {', '.join(frame.MODES)}")
        if mode.startswith("triton") and device.type != "cuda":
            raise UserError(f"the mode {mode} needs a CUDA GPU")
    what = replace(plan(device), **given)
    if base_only:
        what = replace(what, counts=(), resolutions=(), batches=(), tokens=())
    folder = reports / f"speed-{results.hardware_name()}"
    speed = run(folder, device, what)
    report.build(folder)
    print((folder / "speed.md").read_text())
    bad = sum(row["status"] != "ok" for row in speed.rows.values())
    print(f"{folder}: {len(speed.rows)} rows" + (f", {bad} of which do not count" if bad else ""))


@dataclass
class Speed:
    """Rows by key (DESIGN §7), kept in `folder`/speed.json."""

    folder: Path
    device: torch.device
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    roof: dict[str, float] = field(default_factory=dict)

    def __post_init__(self):
        self.environment = results.environment()
        path = self.folder / "speed.json"
        if path.exists():
            old = json.loads(path.read_text())
            same = lambda e: {k: e.get(k) for k in ("hardware", "commit", "dirty", "versions")}  # noqa: E731
            if old["schema"] == SCHEMA and same(old["environment"]) == same(self.environment):
                self.rows, self.roof = old["rows"], old["roof"]
        self.roof = self.roof or timing.roof(self.device)

    def measure(self, key: str, run: Callable[[], dict[str, Any]]) -> None:
        """Stores what `run` returns under `key`, unless it is there. A run that fails is a row that says why."""
        if key in self.rows:
            return
        try:
            self.rows[key] = run()
        except (RuntimeError, ValueError, UserError, torch.OutOfMemoryError) as e:
            self.rows[key] = {"status": f"failed: {' '.join(str(e).split())[:200]}"}
        finally:
            gc.collect()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        self.save()

    def save(self) -> None:
        content = {"schema": SCHEMA, "environment": self.environment, "roof": self.roof, "rows": self.rows}
        with atomic_file(self.folder / "speed.json") as path:
            path.write_text(json.dumps(content, indent=1) + "\n")


def run(folder: Path, device: torch.device, what: Plan) -> Speed:
    """Measures the plan into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    speed = Speed(folder, device)
    jobs = [*_kernel_jobs(what, device), *_stage_jobs(what, device)]
    for key, job in track(jobs, "speed", len(jobs), note=lambda: f"{len(speed.rows)} rows"):
        speed.measure(key, job)
    return speed


def _kernel_jobs(what: Plan, device: torch.device) -> Iterator[tuple[str, Callable]]:
    modes = [m for m in ("eager", "compiled", "triton") if m in what.modes]
    for case in CASES:
        counts = what.counts if case.per_gaussian else ()
        batches = sorted({*what.batches, *case.batches}) if what.batches else ()
        for n, frames in (
            (what.gaussians, 1),
            *((n, 1) for n in counts),
            *((what.gaussians, b) for b in batches),
        ):
            for backward in (False, True) if (n, frames) == (what.gaussians, 1) else (False,):
                for mode in modes:
                    name = case.name + ("+backward" if backward else "")
                    key = f"kernel/{name}/{mode}/b{frames}/n{n}"
                    yield key, lambda a=(case, mode, n, frames, backward): kernel_row(*a, what.storage, device)


def kernel_row(
    case: Case, mode: str, n: int, frames: int, backward: bool, storage: torch.dtype, device: torch.device
) -> dict[str, Any]:
    """Device time of one op, its error, and what it moves and computes."""
    call, error, least = kernel_call(case, mode, n, frames, backward, storage, device)
    t = timing.device_time(call, device)
    return t.row(
        "ok" if error is None or error <= 1 else "wrong", **({} if error is None else {"error": error}), **least
    )


def kernel_call(
    case: Case, mode: str, n: int, frames: int, backward: bool, storage: torch.dtype, device: torch.device
) -> tuple[Callable[[int], object], float | None, dict[str, int]]:
    """call(k) on inputs in turn that the cache cannot hold; the error over the allowed one (None: the twin itself); and, forward,
    the bytes and flops that the op cannot do without."""
    storage = storage if device.type == "cuda" else torch.float32
    ops = "triton" if mode == "triton" else "eager"
    first = case.inputs(n, 1, frames, storage, device)
    least = case.cost(first)
    error = max(case.check(first, ops, backward).values()) if mode == "triton" else None
    several = [
        first,
        *(case.inputs(n, 1, frames, storage, device, seed) for seed in range(1, min(6, 2 + 2**28 // least["bytes"]))),
    ]
    if backward:
        several = [{k: v.requires_grad_() if k in case.leaves else v for k, v in x.items()} for x in several[:3]]

    fast = torch.compile(case.call) if mode == "compiled" else case.call

    def call(k: int, run=fast):
        x = several[k % len(several)]
        with torch.set_grad_enabled(backward), kernels.using(ops):
            out = run(x)
            return torch.autograd.grad(out, [x[k] for k in case.leaves], [o.detach() for o in out]) if backward else out

    if mode == "compiled":
        pairs = zip(call(0), call(0, case.call), strict=True)
        far = [float((y - true).double().norm() / true.double().norm().clamp_min(1e-30)) for y, true in pairs]
        error = max(far) / (COMPILED * FLOORS[storage])
    return call, error, {} if backward else least


def of_roof(row: dict[str, Any], roof: dict[str, float]) -> float | None:
    """How near a row of a kernel is to what the machine could do: 1 is the roof. None where the row has no floor."""
    if "bytes" not in row:
        return None
    return max(row["bytes"] / roof["copy_tb_s"], row["flops"] / roof["matmul_tflop_s"]) / 1e9 / row["ms"]


def _stage_jobs(what: Plan, device: torch.device) -> Iterator[tuple[str, Callable]]:
    base = (what.batch, what.gaussians, what.resolution)
    places = [base, *((b, *base[1:]) for b in what.batches), *((base[0], n, base[2]) for n in what.counts),
              *((*base[:2], r) for r in what.resolutions)]  # fmt: skip
    for mode in what.modes:
        for b in (what.batch, *what.batches):
            yield (
                f"driver/resnet18/{mode}/b{b}",
                lambda a=("static", mode, b, *base[1:]): stage_row("driver", *a, what, device),
            )
    for design in what.designs:
        for mode in what.modes:
            for b, n, r in places:
                a = (design, mode, b, n, r, what, device)
                if r == what.resolution:
                    yield f"fusion/{design}/{mode}/b{b}/n{n}", lambda a=a: stage_row("fusion", *a)
                yield f"frame/{design}/{mode}/b{b}/n{n}/r{r}", lambda a=a: stage_row("frame", *a)
    for mode in [m for m in ("eager", "triton+graph") if m in what.modes]:
        for b, n, r in places:
            key = f"raster/static/{mode}/b{b}/n{n}/r{r}"
            yield key, lambda a=("static", mode, b, n, r, what, device): stage_row("raster", *a)
    for design in [d for d in what.designs if variants.design(d).tokens is not None]:
        for mode in what.modes:
            for count in what.tokens:
                a = (design, mode, *base, what, device, {variants.design(design).tokens: count})
                yield f"fusion/{design}/{mode}/b{base[0]}/n{base[1]}/t{count}", lambda a=a: stage_row("fusion", *a)


@torch.no_grad()
def stage_row(
    stage: str, design: str, mode: str, batch: int, n: int, resolution: int, what: Plan, device: torch.device,
    overrides: dict[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Time of a stage as a user meets it, its peak memory, and the PSNR of its picture against fp32 eager's."""
    torch._dynamo.reset()
    r = frame.rig(design, n, resolution, batch, device, storage=what.storage, overrides=overrides)
    call, closest = stage_call(stage, r, mode)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated() if device.type == "cuda" else 0
    t = timing.measure(call, what.frames, device)
    more = {"peak_mib": (torch.cuda.max_memory_allocated() - held) / 2**20} if device.type == "cuda" else {}
    return t.row("ok" if closest >= PSNR else "wrong", psnr=closest, **more)


@torch.no_grad()
def stage_call(stage: str, r: frame.Rig, mode: str) -> tuple[Callable[[int], object], float]:
    """call(k) of a stage on the rig's inputs in turn, and the PSNR of its first pictures against fp32 eager's."""
    drive, animate = frame.driver(r, "eager"), frame.fusion(r, "eager")
    codes = [drive(image) for image in r.images]
    splat = frame.raster(r, "eager", animate(codes[0]))
    exact = [animate(code) for code in codes[:2]]
    if stage == "driver":
        call, inputs, show = frame.driver(r, mode), r.images, lambda code: splat(animate(code))
        call = timing.graphed(call, inputs[0]) if mode == "triton+graph" else call
    elif stage == "fusion":
        call, inputs, show = frame.fusion(r, mode), codes, splat
        call = timing.graphed(call, inputs[0]) if mode == "triton+graph" else call
    elif stage == "raster":
        gaussians = [animate(code) for code in codes]
        call, inputs, show = frame.raster(r, mode, exact[0]), gaussians, lambda rgb: rgb
        call = timing.graphed(call, inputs[0]) if mode == "triton+graph" else call
    else:
        call, inputs, show = frame.frame(r, mode), r.images, lambda rgb: rgb
    closest = min(_psnr(show(call(inputs[k])), splat(g)) for k, g in enumerate(exact))
    return lambda k: call(inputs[k % len(inputs)]), closest


def _psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """dB, over whole pictures in 0..1; 100 where they are equal."""
    error = float((a.clamp(0, 1) - b.clamp(0, 1)).square().mean())
    return 100.0 if error < 1e-10 else float(-10 * torch.log10(torch.tensor(error)))
