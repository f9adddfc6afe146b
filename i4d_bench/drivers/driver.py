"""Drivers: what turns a driving frame into a `MotionCode` (DESIGN §3). All are frozen when designs train.

`oracle`       the world's true ARKit coefficients: a perfect expression encoder
`blendshapes`  MediaPipe's 52 coefficients, measured on real video
`flame`        the parametric head's expression and pose coefficients
`image`        coefficients that a CNN, trained once per world, reads off the driving image

Each ends in the same kind of fixed random network to 32 × 16 tokens, so that a design meets an entangled code, as with
X-NeMo's motion encoder, and not 52 named sliders.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from i4d_bench.data.frames import Frames
from i4d_bench.types import MOTION_DIM, MOTION_TOKENS, FlameCode, MotionCode, UserError

HIDDEN = 256
GAIN = 0.4
"""Of the first layer: a full expression bends it without saturating, so that the code tells strong ones apart."""


class RandomTokens(nn.Module):
    """A fixed random two-layer network, coefficients [B,K] → 512 numbers of unit scale. Zero maps to zero."""

    w1: Float[Tensor, "K 256"]
    w2: Float[Tensor, "256 512"]

    def __init__(self, coefficients: int, seed: int = 0):
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        self.register_buffer("w1", GAIN * torch.randn(coefficients, HIDDEN, generator=g))
        self.register_buffer("w2", torch.randn(HIDDEN, MOTION_TOKENS * MOTION_DIM, generator=g) * HIDDEN**-0.5 * 2.2)

    def forward(self, coefficients: Float[Tensor, "B K"]) -> Float[Tensor, "B 512"]:
        return torch.tanh(coefficients @ self.w1) @ self.w2


@runtime_checkable
class ImageReader(Protocol):
    """`metrics.expression.Reader`, as far as a driver needs it."""

    def coefficients(self, images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B 52"]: ...


class Driver(nn.Module):
    """`encode(frames, index)` gives the motion codes of these frames, `codes` those of a batch of pictures."""

    def __init__(self, name: str, frames: Frames, reader: ImageReader | None = None):
        super().__init__()
        self.name = name
        kind = frames.meta["kind"]
        if name == "oracle" and kind == "clips":
            raise UserError("real video has no oracle: use --driver blendshapes, flame or image")
        if name == "blendshapes" and kind != "clips":
            raise UserError("the blendshapes driver reads real video; a rendered world has the oracle driver")
        if name == "blendshapes" and not frames.measured:
            raise UserError(
                f"the data set {frames.path} has no expression coefficients, as MediaPipe's model was missing when it was "
                f"made: make it again with the model, or use --driver flame"
            )
        if name == "flame" and frames.flame([0]) is None:
            raise UserError(f"the data set {frames.path} has no FLAME coefficients for the flame driver")
        if name == "image" and reader is None:
            raise UserError("the image driver needs a reader trained on the world")
        if name not in ("oracle", "blendshapes", "flame", "image"):
            raise UserError(f"there is no driver {name!r}; there are oracle, blendshapes, flame, image")
        size = frames.flame_expression.shape[1] + frames.flame_pose.shape[1] if name == "flame" else 52
        self.tokens = RandomTokens(size)
        self.reader = reader if name == "image" else None

    @property
    def device(self) -> torch.device:
        return self.tokens.w1.device

    def encode(self, frames: Frames, index: np.ndarray, flame: bool = True) -> MotionCode:
        code = frames.flame(index)
        code = code.to(self.device) if code is not None else None
        motion = self.codes(frames.rgb[index], frames.landmarks[index], frames.coefficients[index], code)
        return MotionCode(motion, code if flame else None)

    @torch.no_grad()
    def codes(
        self,
        rgb: Shaped[Tensor | np.ndarray, "B H W 3"],
        landmarks: Float[Tensor | np.ndarray, "B 68 2"],
        coefficients: Float[Tensor | np.ndarray, "B 52"],
        flame: FlameCode | None = None,
    ) -> Float[Tensor, "B 512"]:
        """Codes of pictures, on the driver's device. rgb: premultiplied by alpha, uint8 or floats in 0..1. landmarks: pixels. Each
        driver reads what it needs and ignores the rest.

        Raises UserError when the flame driver gets no `flame`.
        """
        if self.reader is not None:
            values = self.reader.coefficients(_unit(rgb, self.device).movedim(-1, 1))
        elif self.name == "flame":
            if flame is None:
                raise UserError("the flame driver reads FLAME coefficients, and these pictures have none")
            values = torch.cat([flame.expression, flame.pose], -1).to(self.device)
        else:
            values = torch.as_tensor(coefficients, device=self.device)
        return self.tokens(values)


def _unit(rgb: Shaped[Tensor | np.ndarray, "B H W 3"], device: torch.device) -> Float[Tensor, "B H W 3"]:
    """uint8 or floats in 0..1 → floats in 0..1."""
    images = torch.as_tensor(rgb, device=device)
    return images.float() if images.is_floating_point() else images / 255
