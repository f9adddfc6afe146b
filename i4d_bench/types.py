"""The nouns of the suite: Gaussians, cameras, driving codes, lifted identities. The harness's only file that designs import.

Canonical space, shared by every world: x to the subject's left, y up, z out of the face, origin in the middle of the
head, one unit is about 38 cm (a head with its neck fills the box of side 1). Eyes sit near (±0.084, 0.135, 0.19), the
mouth near (0, -0.045, 0.25). Cameras follow OpenCV (x right, y down, z forward), pixel centres at half integers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Protocol, Self, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from i4d_bench.errors import UserError as UserError

MOTION_TOKENS = 32
"""Tokens in a motion code (PAPER §1: 512 numbers are 32 tokens × 16 dimensions)."""
MOTION_DIM = 16
FEATURE_DIM = 48
"""Channels of the feature f and, unless overridden, of the motion basis m."""


@dataclass
class _Tensors:
    """Moves and indexes every tensor field of a dataclass along the batch axis."""

    def map(self, fn: Callable[[Tensor], Tensor]) -> Self:
        return type(self)(**{f.name: _apply(fn, getattr(self, f.name)) for f in fields(self)})

    def to(self, *args, **kwargs) -> Self:
        return self.map(lambda t: t.to(*args, **kwargs))

    def detach(self) -> Self:
        return self.map(Tensor.detach)

    def __getitem__(self, index) -> Self:
        return self.map(lambda t: t[index])


def _apply(fn, value):
    if isinstance(value, Tensor):
        return fn(value)
    return value.map(fn) if isinstance(value, _Tensors) else value


def placed(values: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """A copy of the CPU's on a device; on a GPU without waiting for the work that it still has to do."""
    values = torch.as_tensor(values)
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


def as_grid(pixels: Float[Tensor, "*B 2"], width: int, height: int) -> Float[Tensor, "*B 2"]:
    """Pixels of an image as `grid_sample` takes them (`align_corners=False`): ±1 at its borders."""
    x, y = pixels.unbind(-1)
    return torch.stack([x / width * 2 - 1, y / height * 2 - 1], -1)


@dataclass
class Gaussians(_Tensors):
    """A batch of 3D Gaussians after their activations (gsplat's conventions, no spherical harmonics).

    delta: δf, what a design added to the identity's features, where it works on features and gradients are recorded.
    """

    means: Float[Tensor, "B N 3"]
    quats: Float[Tensor, "B N 4"]  # wxyz, any non-zero length
    scales: Float[Tensor, "B N 3"]  # linear standard deviations
    opacities: Float[Tensor, "B N"]  # 0..1
    colors: Float[Tensor, "B N 3"]  # RGB, 0..1 nominal
    delta: Float[Tensor, "B N 48"] | None = None


@dataclass
class Camera(_Tensors):
    """A batch of pinhole cameras."""

    viewmats: Float[Tensor, "B 4 4"]  # world → camera, OpenCV axes
    Ks: Float[Tensor, "B 3 3"]  # in pixels
    width: int
    height: int

    def project(self, points: Float[Tensor, "*B N 3"]) -> Float[Tensor, "B N 2"]:
        """Pixels of world points, which may be the same for all cameras."""
        seen = (points @ self.viewmats[:, :3, :3].mT + self.viewmats[:, None, :3, 3]) @ self.Ks.mT
        return seen[..., :2] / seen[..., 2:]

    def resized(self, width: int, height: int) -> Camera:
        """The same view on another pixel grid."""
        x, y, last = self.Ks.unbind(1)
        Ks = torch.stack([x * (width / self.width), y * (height / self.height), last], 1)
        return Camera(self.viewmats, Ks, width, height)


@dataclass
class FlameCode(_Tensors):
    """Coefficients of a FLAME-format head."""

    shape: Float[Tensor, "B S"]
    expression: Float[Tensor, "B E"]
    pose: Float[Tensor, "B 15"]  # axis-angle of root, neck, jaw, left eye, right eye; radians


@dataclass
class MotionCode(_Tensors):
    """What a driver says about one frame. `flame` is there when the driver's world has a parametric head."""

    motion: Float[Tensor, "B 512"]
    flame: FlameCode | None = None

    @property
    def tokens(self) -> Float[Tensor, "B 32 16"]:
        return self.motion.unflatten(-1, (MOTION_TOKENS, MOTION_DIM))


@runtime_checkable
class ParametricHead(Protocol):
    """A FLAME-format head in canonical space (`i4d_bench.heads.flame.FlameModel` is one)."""

    faces: Int[Tensor, "F 3"]
    weights: Float[Tensor, "V 5"]  # skinning weights of root, neck, jaw, left eye, right eye

    def __call__(self, shape, expression, pose) -> Float[Tensor, "B V 3"]: ...

    def unposed(self, shape, expression, pose) -> Float[Tensor, "B V 3"]:
        """Vertices with blendshapes and pose correctives, before skinning."""
        ...

    def joint_transforms(self, shape, expression, pose) -> Float[Tensor, "B 5 4 4"]:
        """Rigid motion of each joint relative to the rest pose: skinned = Σ_j w_j A_j unposed."""
        ...


@dataclass
class Triplane:
    """Three planes (xy, xz, zy) that share a trunk: plane k is weight[k] · trunk + bias[k] at every texel.

    Reading and pooling commute with that map, so nobody needs the planes themselves, which are ten times as large.
    """

    trunk: Float[Tensor, "B K P P"]
    weight: Float[Tensor, "3 C K"]  # the first FEATURE_DIM of the C channels feed f, the rest m
    bias: Float[Tensor, "3 C"]

    def full(self) -> Float[Tensor, "B 3 C P P"]:
        return torch.einsum("kci,bipq->bkcpq", self.weight, self.trunk) + self.bias[..., None, None]

    def pooled(self, side: int) -> Float[Tensor, "B 3 C S S"]:
        """Averaged to side × side texels."""
        return Triplane(F.adaptive_avg_pool2d(self.trunk, side), self.weight, self.bias).full()

    def repeat(self, frames: int) -> Triplane:
        return Triplane(self.trunk.repeat_interleave(frames, 0), self.weight, self.bias)


@runtime_checkable
class Decode(Protocol):
    """Φ with an identity's priors (`i4d_bench.model.decoder.Decode` is it)."""

    @property
    def phi(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Φ's weights, as `kernels.decode` takes them."""
        ...

    def __call__(self, features: Float[Tensor, "F N 48"]) -> Gaussians: ...

    def after(self, f: Float[Tensor, "B N 48"], basis: Float[Tensor, "B N M"], psi) -> Callable[..., Gaussians]:
        """A function of gain [F,M] and bias [F,H]: local fusion and Φ in one pass (`kernels.local_fusion`)."""
        ...

    def attended(self, x0: Float[Tensor, "B N 48"], f: Float[Tensor, "B N 48"], layers) -> Callable[..., Gaussians]:
        """A function of keys, score and values per frame: attention of all layers and Φ in one pass (`kernels.cross_attention`)."""
        ...


@dataclass
class Identity:
    """One source image lifted to 3D: all a fusion design may know about the person.

    Canonical avatar = decode(f): the source person with the source's own expression.
    """

    planes: Triplane
    f: Float[Tensor, "B N 48"]
    m: Float[Tensor, "B N M"]
    anchors: Float[Tensor, "B N 3"]  # where in canonical space each Gaussian was sampled
    canonical: Gaussians
    decode: Decode
    sample: Callable[[Float[Tensor, "B 3 K P P"]], Float[Tensor, "B N K"]]  # reads any planes at the same places as f
    head: ParametricHead | None = None

    def repeat(self, frames: int) -> Identity:
        """Every identity `frames` times in a row: [B, …] → [B·frames, …]."""
        rep = lambda t: t.repeat_interleave(frames, 0)  # noqa: E731
        return Identity(
            self.planes.repeat(frames),
            rep(self.f),
            rep(self.m),
            rep(self.anchors),
            self.canonical.map(rep),
            self.decode,
            self.sample,
            self.head,
        )


@dataclass
class Rendered(_Tensors):
    """An image with its coverage. `rgb` includes the background, `depth` is Σ wᵢ zᵢ (0 where nothing is), or None where
    it was not asked for."""

    rgb: Float[Tensor, "B H W 3"]
    alpha: Float[Tensor, "B H W 1"]
    depth: Float[Tensor, "B H W 1"] | None
