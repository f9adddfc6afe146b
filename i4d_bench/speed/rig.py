"""One frame of a prepared avatar in every mode: driving image → motion code → Gaussians → picture.

eager         plain torch, fp32; the reference of all others
compiled      torch.compile of driver and fusion, 16 bits
triton        compiled driver, our kernels, 16 bits
triton+graph  the same with splatting that needs no host, all in one CUDA graph

The avatar is a lifted random image with N Gaussians on the mean head, its weights are untrained: the time of networks does not
depend on them, that of splatting does (`splatted.Trained`). The driver is a ResNet-18 at 224², the size of the field's motion
encoders.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

import kernels
import variants
from i4d_bench.config import presets
from i4d_bench.config.experiment import Experiment
from i4d_bench.drivers.fast import Folded
from i4d_bench.heads.flame import FlameModel
from i4d_bench.heads.worlds import exported_head
from i4d_bench.model.avatar import Backbone
from i4d_bench.model.decoder import Decode
from i4d_bench.model.prepared import prepared
from i4d_bench.render import Backend, gsplat, render
from i4d_bench.render.resident import Resident, Splatter
from i4d_bench.speed.protocol import graphed, tensors
from i4d_bench.types import Camera, FlameCode, Gaussians, Identity, MotionCode, UserError
from variants import Fusion

MODES = ("eager", "compiled", "triton", "triton+graph")
AHEAD = "triton+graph+ahead"
"""Whole frames alone, one picture late: see `ahead`."""
RASTERS = ("eager", "triton+graph")
"""Modes with a way of splatting of their own; the others splat as eager does."""
SPLATS = ("eager", "gsplat+graph", "triton", "triton+graph")
"""Ways of splatting: gsplat as it is (see `plain`), gsplat around our tile lists in a graph, ours, ours in a graph."""
DRIVER_SIZE = 224
RADIUS, FOV = 2.7, 23.28
"""Camera distance in canonical units and vertical field of view in degrees (PAPER §1, plane mode)."""


class ImageDriver(nn.Module):
    """A ResNet-18 from the driving image to a motion code and, for parametric heads, their coefficients."""

    shape: Float[Tensor, "1 S"]

    def __init__(self, head: FlameModel | None):
        super().__init__()
        from torchvision.models import resnet18

        self.expressions = head.n_expression if head is not None else 0
        self.register_buffer("shape", torch.zeros(1, head.n_shape if head is not None else 0))
        self.network = resnet18(num_classes=512 + self.expressions + 15)

    def forward(self, images: Float[Tensor, "B 3 X X"]) -> MotionCode:
        return self.code(self.network(images))

    def code(self, numbers: Float[Tensor, "B K"]) -> MotionCode:
        motion, rest = numbers[:, :512].float(), numbers[:, 512:].float().tanh()
        flame = None
        if self.expressions:
            pose = F.pad(0.1 * rest[:, -9:], (6, 0))  # the head's own pose is the camera's
            flame = FlameCode(self.shape.expand(len(rest), -1), rest[:, : self.expressions], pose)
        return MotionCode(F.layer_norm(motion, (512,)), flame)


@dataclass
class View:
    """What a picture is taken with. Build it with `view`."""

    camera: Camera
    background: Float[Tensor, "B 3"]

    @property
    def device(self) -> torch.device:
        return self.background.device


@dataclass
class Rig(View):
    """One design with all that its modes share. Build it with `rig`."""

    fusion: Fusion
    encode: Callable[[Float[Tensor, "B 3 X X"]], Identity]  # a photo, once per person
    photos: list[Float[Tensor, "1 3 S S"]]
    identity: Identity
    source: MotionCode
    driver: ImageDriver
    images: list[Float[Tensor, "B 3 X X"]]
    storage: torch.dtype


def rig(
    design: str, n: int, resolution: int, batch: int = 1, device: str | torch.device = "cpu", frames: int = 8,
    storage: torch.dtype = torch.float16, overrides: dict[str, Any] | None = None, seed: int = 0,
    base: Experiment | None = None,
) -> Rig:  # fmt: skip
    """`design` on N Gaussians, with `frames` driving images in turn. storage: of the fast modes. base: whose backbone and settings,
    but for what a search chose: at a start of zero pictures show nothing of the fusion. Default: the device's preset."""
    torch.manual_seed(seed)
    device = torch.device(device)
    base = presets.untuned(base or (presets.gpu() if device.type == "cuda" else presets.cpu()))
    head = exported_head("procedural").to(device) if variants.design(design).needs == "flame" else None
    encode, size = encoder(n, base, device, head), base.model.size
    driver = ImageDriver(head).to(device).eval().requires_grad_(False)
    photo = lambda: F.interpolate(torch.rand(1, 3, 8, 8, device=device), (size, size), mode="bilinear")  # noqa: E731
    photos = [photo() for _ in range(frames)]
    draw = lambda rows: F.interpolate(torch.rand(rows, 3, 14, 14, device=device), (DRIVER_SIZE,) * 2, mode="bilinear")  # noqa: E731
    with torch.no_grad():
        source, identity = driver(draw(1)), encode(photos[0])
    images = [draw(batch) for _ in range(frames)]
    fusion = base.fusion(design, **(overrides or {})).to(device).eval().requires_grad_(False)
    seen = view(resolution, batch, device)
    return Rig(seen.camera, seen.background, fusion, encode, photos, identity, source, driver, images, storage)


def view(resolution: int, batch: int, device: torch.device) -> View:
    """A head at rest from the front, before black."""
    focal = 0.5 * resolution / math.tan(math.radians(FOV) / 2)
    pose = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
    pose[2, 3] = RADIUS
    K = torch.tensor([[focal, 0, resolution / 2], [0, focal, resolution / 2], [0, 0, 1.0]])
    many = lambda t: t.to(device).expand(batch, *t.shape).contiguous()  # noqa: E731
    return View(Camera(many(pose), many(K), resolution, resolution), torch.zeros(batch, 3, device=device))


def encoder(
    n: int, base: Experiment, device: torch.device, head: FlameModel | None = None
) -> Callable[[Tensor], Identity]:
    """Photo → exactly n Gaussians, the first n of a sheet that has as many or more."""
    backbone = Backbone(dataclasses.replace(base.model, focus=1.0, bf16=False)).to(device).eval().requires_grad_(False)
    side = math.ceil(math.sqrt(n))
    first = lambda t: t[:, :n].contiguous()  # noqa: E731

    def encode(photo: Float[Tensor, "B 3 X X"]) -> Identity:
        with kernels.using("eager"):
            full = backbone.lift(photo, side, head)
        f, sample = first(full.f), full.sample
        assert isinstance(full.decode, Decode)
        decode = Decode(full.decode.phi, first(full.decode.prior), f)
        return Identity(full.planes, f, first(full.m), first(full.anchors), full.canonical.map(first), decode,
                        lambda planes: sample(planes)[:, :n], head)  # fmt: skip

    return encode


def driver(r: Rig, mode: str) -> Callable[[Tensor], MotionCode]:
    """Driving image → motion code. The fast ones have their batch norms folded into the convolutions."""
    if mode == "eager":
        return r.driver
    dtype = r.storage if r.device.type == "cuda" else torch.float32
    layout = {"dtype": dtype, "memory_format": torch.channels_last}
    if mode.startswith("triton"):
        fast = Folded(r.driver.network).to(**layout)
        return lambda images: r.driver.code(fast(images))
    call = torch.compile(fuse(copy.deepcopy(r.driver.network)).to(**layout))
    return lambda images: r.driver.code(call(images.to(**layout)))


def fusion(r: Rig, mode: str) -> Callable[[MotionCode], Gaussians]:
    """Motion code → Gaussians. Raises UserError for a mode that cannot run here."""
    if mode not in MODES:
        raise UserError(f"there is no mode {mode!r}; there are {', '.join(MODES)}")
    if mode.startswith("triton") and r.device.type != "cuda":
        raise UserError(f"the mode {mode} needs a CUDA GPU")
    storage = torch.float32 if mode == "eager" else r.storage
    ops = "triton" if mode.startswith("triton") else "eager"
    return prepared(r.fusion, r.identity, r.source, ops, storage, mode == "compiled")


def plain(device: torch.device) -> Backend:
    """What eager and compiled frames are drawn with: gsplat, as others have it, or where its extension cannot be built our own."""
    if device.type != "cuda":
        return "cpu"
    return "gsplat" if gsplat.built() else "triton"


def raster(v: View, mode: str, example: Gaussians) -> Callable[[Gaussians], Tensor]:
    """Gaussians → picture, colour alone. In a graph without a word from the host, with room for twice what `example` needs."""
    if mode == "triton":
        return lambda g: render(g, v.camera, v.background, "triton", depth=False).rgb
    if mode == "gsplat+graph":
        size = (len(v.background), v.camera.width, v.camera.height)
        first = Splatter(*size, 1, v.device)
        first(example, v.camera, v.background)
        assert first.pairs is not None
        splat = Splatter(*size, 2 * int(first.pairs), v.device)
        return lambda g: splat(g, v.camera, v.background)
    if mode == "triton+graph":
        ours = Resident(example, v.camera)
        return lambda g: ours(g, v.camera, v.background)
    backend = plain(v.device)
    return lambda g: render(g, v.camera, v.background, backend, depth=False).rgb


def frame(r: Rig, mode: str) -> Callable[[Tensor], Tensor]:
    """Driving image → picture."""
    drive, animate = driver(r, mode), fusion(r, mode)
    splat = raster(r, mode if mode in RASTERS else "eager", animate(drive(r.images[0])))
    whole = lambda image: splat(animate(drive(image)))  # noqa: E731
    return graphed(whole, r.images[0]) if mode == "triton+graph" else whole


def ahead(r: Rig) -> Callable[[Tensor], Tensor]:
    """Driving image → picture of the image before it, in one CUDA graph: while that one is fused and drawn, the driver reads the
    new one on a second stream. More pictures a second, each as late as a frame without it."""
    drive, animate = driver(r, MODES[-1]), fusion(r, MODES[-1])
    code = drive(r.images[0]).map(Tensor.clone)
    splat, side = raster(r, MODES[-1], animate(code)), torch.cuda.Stream()

    def both(image: Tensor) -> Tensor:
        now = torch.cuda.current_stream()
        side.wait_stream(now)
        with torch.cuda.stream(side):
            coming = drive(image)
        picture = splat(animate(code))
        now.wait_stream(side)
        torch._foreach_copy_(list(tensors(code)), list(tensors(coming)))  # pyright: ignore[reportPrivateImportUsage]
        return picture

    return graphed(both, r.images[0])
