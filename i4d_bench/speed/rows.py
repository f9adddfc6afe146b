"""The rows of a speed run: how each is prepared, checked against the reference and timed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import kernels
import variants
from i4d_bench.data.video import quiet
from i4d_bench.heads.worlds import exported_head
from i4d_bench.speed import protocol, rig
from i4d_bench.speed.plan import Plan
from i4d_bench.speed.tracker import tracked_pictures, tracker
from i4d_bench.types import Gaussians, MotionCode, UserError
from kernels.cases import case
from kernels.contract import ROUNDING

PSNR = 45.0
"""dB to the fp32 eager picture that a fast row must reach."""
COMPILED = 50.0
"""How many times `kernels.contract.ROUNDING` a compiled kernel may be from its own source: it rounds at other places."""
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
        t = protocol.device_time(call, device)
        more = {} if error is None else {"error": error}
        return t.row("ok" if error is None or error <= 1 else "wrong", **more, **least)

    def prepare(self, what: Plan, device: torch.device) -> tuple[Call, float | None, dict[str, int]]:
        """call(k) on inputs in turn that the cache cannot hold; the error over the allowed one (None: the twin itself); and,
        forward, the bytes and flops that the op cannot do without. Raises UserError for a mode that cannot run here."""
        torch._dynamo.reset()
        if self.mode == "flex" and device.type != "cuda":
            raise UserError("FlexAttention is timed on a CUDA GPU alone: torch does not compile it for CPUs")
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
                if not backward:
                    return out
                # so small that no sum over N or vertices leaves fp16
                weights = [o.detach() / o.shape[1] ** 0.5 for o in out]
                return torch.autograd.grad(out, [x[k] for k in op.leaves], weights)

        if fast is not op.call:
            pairs = zip(call(0), call(0, op.call), strict=True)
            far = [float((y - true).double().norm() / true.double().norm().clamp_min(1e-30)) for y, true in pairs]
            error = protocol.worst(far) / (COMPILED * ROUNDING[storage])
        return call, error, {} if backward else least


@dataclass(frozen=True)
class Tracker:
    """What designs on FLAME coefficients need before each frame of a video, and others do not."""

    mode: str = "eager"
    key: str = "tracker/mediapipe/eager/b1"

    @torch.no_grad()
    def measure(self, what: Plan, device: torch.device) -> dict[str, Any]:
        pictures = tracked_pictures(8)
        with quiet.landmarker() as landmarker:
            track = tracker(landmarker, exported_head("procedural").to(device))
            return protocol.measure(lambda k: track(pictures[k % len(pictures)]), what.frames, device).row()


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
        t = protocol.measure(call, what.frames, device)
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
        call: Callable[[Any], Any]
        inputs: Sequence[Any]
        show: Callable[[Any], Tensor]
        if self.stage == "encode":  # once per person, in eager fp32 alone
            call, inputs, show = ref.rig.encode, ref.rig.photos, lambda identity: ref.splat(identity.canonical)
            return lambda k: call(inputs[k % len(inputs)]), psnr(
                show(call(inputs[0])), ref.splat(ref.rig.identity.canonical)
            )
        if self.stage == "driver":
            call, inputs, show = (
                rig.driver(ref.rig, self.mode),
                ref.rig.images,
                lambda code: ref.splat(ref.animate(code)),
            )
        elif self.stage == "fusion":
            call, inputs, show = rig.fusion(ref.rig, self.mode), ref.codes, ref.splat
        elif self.stage == "raster":
            gaussians = [ref.animate(code) for code in ref.codes]
            call, inputs, show = rig.raster(ref.rig, self.mode, gaussians[0]), gaussians, lambda rgb: rgb
        elif self.mode == rig.AHEAD:
            call, inputs, show = rig.ahead(ref.rig), [*ref.rig.images[1:], ref.rig.images[0]], lambda rgb: rgb
            call(ref.rig.images[0])  # so that every call gives the picture of the image before
        else:
            call, inputs, show = rig.frame(ref.rig, self.mode), ref.rig.images, lambda rgb: rgb
        if self.mode.endswith("+graph") and self.stage != "frame":  # a frame in this mode is one already
            call = protocol.graphed(call, inputs[0])
        closest = min(psnr(show(call(x)), true) for x, true in zip(inputs, ref.pictures, strict=True))
        return lambda k: call(inputs[k % len(inputs)]), closest


@dataclass
class Reference:
    """fp32 eager: what the modes of one design at one size are held against."""

    rig: rig.Rig
    codes: list[MotionCode]
    animate: Callable[[MotionCode], Gaussians]
    splat: Callable[[Gaussians], Tensor]
    pictures: list[Tensor]


@functools.lru_cache(maxsize=1)
def _reference(design: str, n: int, resolution: int, batch: int, tokens: int | None, device, storage) -> Reference:
    overrides = {}
    if tokens is not None:
        setting = variants.design(design).tokens
        assert setting is not None  # the plan varies the tokens of designs that have a setting for them
        overrides[setting] = tokens
    r = rig.rig(design, n, resolution, batch, device, storage=storage, overrides=overrides)
    drive, animate = rig.driver(r, "eager"), rig.fusion(r, "eager")
    codes = [drive(image) for image in r.images]
    splat = rig.raster(r, "eager", animate(codes[0]))
    return Reference(r, codes, animate, splat, [splat(animate(code)) for code in codes])


def psnr(a: Tensor, b: Tensor) -> float:
    """dB, over whole pictures in 0..1; 100 where they are equal."""
    error = float((a.clamp(0, 1) - b.clamp(0, 1)).square().mean())
    return 100.0 if error < 1e-10 else float(-10 * torch.log10(torch.tensor(error)))
