"""What a training step takes: FLOPs, bytes written and the memory that it holds at once, counted on tensors without numbers.

On torch's meta device a step of any size takes about a second of one core. Kernels, splatting and attention stand there as
what they keep for the backward pass (inputs and outputs); the encoder has the 16 and 32 bits that autocast gives it on a GPU.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_unflatten

import kernels
from i4d_bench.config.experiment import Experiment, Loss, Stage
from i4d_bench.heads.flame import FlameModel
from i4d_bench.metrics.dlib_resnet import SIDE, DlibResNet
from i4d_bench.metrics.image import bare_lpips
from i4d_bench.model.avatar import Avatar, Backbone
from i4d_bench.model.sampling import Look, Places, PlaneSampling
from i4d_bench.model.surface import HeadSurface
from i4d_bench.speed.cost import LiveBytes, count
from i4d_bench.train.adversary import Adversary
from i4d_bench.train.losses import feature_change, reconstruction
from i4d_bench.types import FlameCode, Gaussians, MotionCode, UserError
from variants import Fusion

META = torch.device("meta")
OPS = (
    "decode", "local_fusion", "spatial_fusion", "cross_attention", "flame_skinning", "bind_gaussians", "blend_gaussians",
    "part_blendshapes", "row_norm", "norm_silu", "mean_norm", "ssim",
)  # fmt: skip
"""Those of `kernels`."""
LOW = (torch.conv2d, F.linear, torch.matmul, F.scaled_dot_product_attention)
HIGH = (F.group_norm, F.layer_norm)
"""What autocast computes in 16 and in 32 bits, of the encoder's operations."""
KEPT_PER_GAUSSIAN, KEPT_PER_PIXEL = 16, 8
"""Numbers that splatting keeps of a frame beside its inputs: middles, conics, depths, radii and lists; colour, alpha and ends."""


@dataclass(frozen=True)
class Work:
    """Of one part of a step. made: bytes of all tensors that are written. peak: bytes that live at once, gradients among them."""

    flops: float
    made: float
    peak: float

    def __mul__(self, by: float) -> Work:
        return Work(by * self.flops, by * self.made, by * self.peak)

    def __add__(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.made + other.made, self.peak + other.peak)


@dataclass(frozen=True)
class Footprint:
    """Work of a part of any number of people: a fixed share, and one that grows with them."""

    one: Work
    two: Work
    gaussians: int

    def at(self, people: float) -> Work:
        return self.one * (2 - people) + self.two * (people - 1)


class Counter:
    """Counts steps of one experiment. head: the parametric one; its numbers do not matter."""

    def __init__(self, experiment: Experiment, head: FlameModel):
        """Raises UserError for settings that cannot be trained, and for samplings that depend on the picture."""
        if experiment.model.sampling != "plane":
            raise UserError("a dry run knows the sampling plane alone, whose Gaussians are the same for every picture")
        self.experiment, self.surface = experiment, HeadSurface()
        self.head = head.to(META)
        with torch.device("meta"):
            self.backbone = Backbone(experiment.model)
        self.backbone.surface = HeadSurface(torch.empty_like(self.surface.depth, device=META))
        loss = experiment.train.loss
        self._counted: dict[tuple[str | None, Stage, bool], Footprint] = {}
        self.judges = _Judges(loss) if loss.lpips or loss.identity else None

    def parameters(self, entry: str | None) -> int:
        """Of the backbone (None), or of a design."""
        module = self.backbone if entry is None else self.experiment.fusion(entry)
        return sum(p.numel() for p in module.parameters())

    def footprint(self, entry: str | None, stage: Stage, adversarial: bool = False) -> Footprint:
        """Of a stage of this design, of the warm-up (None). adversarial: once the adversary counts."""
        key = entry, stage, adversarial
        if key not in self._counted:
            self._counted[key] = self._count(*key)
        return self._counted[key]

    def _count(self, entry: str | None, stage: Stage, adversarial: bool) -> Footprint:
        self._place(stage.grid)
        fusion = None if entry is None else self.experiment.fusion(entry).to(META)
        held, lessons = [], [_Lesson(people, stage, self.experiment.model.size, self.head) for people in (1, 2)]
        with kernels.using("eager"), _replaced(self._autocast()):
            gaussians, flops = count(lambda: self._step(fusion, lessons[0], adversarial, penalised=False))
            for lesson in lessons:
                with _replaced(dict(_kernels())), LiveBytes() as live:
                    self._step(fusion, lesson, adversarial, penalised=True)
                held.append(live)
        one, two = (Work(k * flops, live.made, live.peak) for k, live in enumerate(held, 1))
        return Footprint(one, two, gaussians)

    def _place(self, grid: int) -> None:
        """Samples on the real mean head: how many Gaussians lie behind depends on it."""
        focus = self.experiment.model.focus
        anchors, prior, places = PlaneSampling(grid, focus)._sheets(self.surface)
        looks = [tuple(Look(k.mix, k.x.to(META), k.y.to(META)) for k in group) for group in places.groups]
        kept = anchors.to(META), prior.to(META), Places(*looks)
        self.backbone.surface.kept(("plane", grid, focus), lambda: kept)

    def _step(self, fusion: Fusion | None, lesson: _Lesson, adversarial: bool, penalised: bool) -> int:
        """As `loop.Trainer.step`, but for the optimizer. Returns the number of Gaussians."""
        weights, people = self.experiment.train.loss, len(lesson.images)
        if fusion is None:
            canonical = self.backbone.lift(lesson.images, lesson.grid).canonical
            gaussians = canonical.map(lambda t: t.repeat_interleave(lesson.frames // people, 0))
        else:
            avatar = Avatar(self.backbone, fusion)
            gaussians = avatar(lesson.images, lesson.source, lesson.driving, lesson.grid, self.head)
        image = _splatted(gaussians, lesson.resolution)
        loss = reconstruction(image, lesson.truth, lesson.regions, weights, self.judges)
        if gaussians.delta is not None:
            loss = loss + weights.delta * feature_change(gaussians.delta)
        adversary = Adversary(META) if adversarial else None
        if adversary is not None:
            adversary.steps = 0 if penalised else 1
            loss = loss + weights.adversarial * adversary.deceived(image, lesson.driving.motion)
        loss.backward()
        if adversary is not None:
            adversary.study(image, lesson.truth, lesson.driving.motion)
            adversary.learn()
        for module in (self.backbone, fusion or self.backbone):
            module.zero_grad(set_to_none=True)
        return gaussians.means.shape[1]

    def _autocast(self) -> dict[tuple[Any, str], Any]:
        """The encoder's autocast, which knows no meta device."""

        def low(device: str, dtype: torch.dtype | None = None, enabled: bool = True):
            return _Autocast() if dtype is torch.bfloat16 and self.experiment.model.bf16 else nullcontext()

        return {(torch, "autocast"): low}


class _Lesson:
    """Pictures and codes without numbers."""

    def __init__(self, people: int, stage: Stage, size: int, head: FlameModel):
        empty = functools.partial(torch.empty, device=META)
        self.frames, self.resolution, self.grid = people * stage.frames, stage.resolution, stage.grid
        code = lambda n: MotionCode(  # noqa: E731
            empty(n, 512), FlameCode(empty(n, head.n_shape), empty(n, head.n_expression), empty(n, 15))
        )
        self.images, self.source, self.driving = empty(people, 3, size, size), code(people), code(self.frames)
        self.truth = empty(self.frames, stage.resolution, stage.resolution, 3)
        self.regions = empty(self.frames, stage.resolution, stage.resolution, dtype=torch.bool)


class _Judges(nn.Module):
    """The networks of the loss, in LPIPS's place. Any identity network counts as dlib's."""

    def __init__(self, loss: Loss):
        super().__init__()
        self.lpips = bare_lpips("alex").to(META).requires_grad_(False) if loss.lpips else None
        with torch.device("meta"):
            self.identity = DlibResNet() if loss.identity else None

    def forward(self, pred: Float[Tensor, "B H W 3"], target: Float[Tensor, "B H W 3"], check: bool) -> Tensor:
        pred, target = (x.movedim(-1, 1) for x in (pred, target))
        total = pred.new_zeros(())
        if self.lpips is not None:
            total = total + self.lpips(2 * pred - 1, 2 * target - 1).mean()
        if self.identity is not None:
            crops = [F.interpolate(x, (SIDE, SIDE), mode="bilinear") for x in (pred, target)]
            total = total + (self.identity(crops[0]) * self.identity(crops[1])).mean()
        return total


class _Autocast(TorchFunctionMode):
    """CUDA's autocast to bf16, on any device."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        dtype = torch.bfloat16 if func in LOW else torch.float32 if func in HIGH else None
        if dtype is not None:
            cast = lambda t: t.to(dtype) if isinstance(t, Tensor) and t.is_floating_point() else t  # noqa: E731
            args, kwargs = [cast(a) for a in args], {k: cast(v) for k, v in kwargs.items()}
        return func(*args, **kwargs)


class _Kept(torch.autograd.Function):
    """An operation that keeps its inputs and outputs for the backward pass, and nothing else."""

    @staticmethod
    def forward(ctx, op, spec, shape_of, *flat):
        args, kwargs = tree_unflatten(list(flat), spec)
        with _disable_current_modes():
            out, made = tree_flatten(op(*args, **kwargs))
        shape_of.append(made)
        out = [torch.empty_like(t) for t in out]
        ctx.save_for_backward(*(t for t in flat if isinstance(t, Tensor)), *out)
        ctx.like = [
            t if isinstance(t, Tensor) and need else None
            for t, need in zip(flat, ctx.needs_input_grad[3:], strict=True)
        ]
        return tuple(out)

    @staticmethod
    def backward(ctx, *grads):
        return None, None, None, *(None if t is None else torch.empty_like(t) for t in ctx.like)


def _kept(op: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args, **kwargs):
        flat, spec = tree_flatten((args, kwargs))
        shape: list[Any] = []
        return tree_unflatten(list(_Kept.apply(op, spec, shape, *flat)), shape[0])

    return call


def _kernels() -> Iterator[tuple[tuple[Any, str], Any]]:
    """Stand-ins of the fused kernels and of attention."""
    for name in OPS:
        yield (kernels.reference, name), _kept(getattr(kernels.reference, name))
    yield (F, "scaled_dot_product_attention"), _kept(F.scaled_dot_product_attention)


@contextmanager
def _replaced(by: dict[tuple[Any, str], Any]) -> Iterator[None]:
    """Inside, these attributes of modules are others."""
    before = {(module, name): getattr(module, name) for module, name in by}
    try:
        for (module, name), new in by.items():
            setattr(module, name, new)
        yield
    finally:
        for (module, name), old in before.items():
            setattr(module, name, old)


def _splatted(g: Gaussians, size: int) -> Float[Tensor, "B H W 3"]:
    """A picture that depends on every attribute."""
    frames, many = g.opacities.shape

    def draw(means, quats, scales, opacities, colors):
        return torch.empty(frames, size, size, 3, device=META), torch.empty(
            frames, KEPT_PER_GAUSSIAN * many + KEPT_PER_PIXEL * size**2, device=META
        )

    return _kept(draw)(g.means, g.quats, g.scales, g.opacities, g.colors)[0]
