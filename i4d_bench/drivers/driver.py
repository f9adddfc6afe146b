"""Drivers: what turns a driving frame into a `MotionCode` (DESIGN §3). All are frozen when designs train.

`oracle`       the world's true ARKit coefficients: a perfect expression encoder
`blendshapes`  MediaPipe's 52 coefficients, measured on real video
`flame`        the parametric head's expression and pose coefficients
`image`        coefficients that a CNN, trained once per world, reads off the driving image
`external`     codes that the user's own encoder, a file, reads off a crop of the driving image

Each but the last ends in the same kind of fixed random network to 32 × 16 tokens, so that a design meets an entangled code, as
with X-NeMo's motion encoder, and not 52 named sliders.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from i4d_bench.cache import file_digest
from i4d_bench.data.frames import Frames
from i4d_bench.drivers import external
from i4d_bench.types import MOTION_DIM, MOTION_TOKENS, FlameCode, MotionCode, UserError

NAMES = ("oracle", "image", "blendshapes", "flame")
"""Those that are no file."""
HIDDEN = 256
GAIN = 0.4
"""Of the first layer: a full expression bends it without saturating, so that the code tells strong ones apart."""


def check(driver: str) -> None:
    """Raises UserError for what names no driver, or an encoder that cannot be used."""
    if external.is_file(driver):
        external.Encoder(Path(driver))
    elif driver == "external":
        raise UserError("the external driver is your encoder's file: --driver ./encoder.onnx, .pt or .ts")
    elif driver not in NAMES:
        raise UserError(
            f"there is no driver {driver!r}; there are {', '.join(NAMES)}, and files of motion encoders: TorchScript (.pt, .ts) "
            "or ONNX (.onnx)"
        )


def label(driver: str) -> str:
    """What tables and folders call a driver: its name, or that of its file with a hash of the bytes. Raises UserError."""
    return f"{Path(driver).stem}-{file_digest(Path(driver))[:6]}" if external.is_file(driver) else driver


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
    """`encode(frames, index)` gives the motion codes of these frames, `codes` those of a batch of pictures. note: what a reader of
    the results must know about these frames' codes, or nothing."""

    here: Float[Tensor, ""]

    def __init__(self, name: str, frames: Frames, reader: ImageReader | None = None):
        """name: one of `NAMES`, or an encoder's file. Raises UserError for data that it cannot read."""
        super().__init__()
        self.encoder = external.Encoder(Path(name)) if external.is_file(name) else None
        self.name = "external" if self.encoder else name
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
        if self.encoder is None:
            check(name)
        size = frames.flame_expression.shape[1] + frames.flame_pose.shape[1] if name == "flame" else 52
        self.tokens = nn.Identity() if self.encoder else RandomTokens(size)
        self.register_buffer("here", torch.zeros(()), persistent=False)
        self.reader, self.size = (reader if name == "image" else None), frames.resolution  # it was trained on
        self.note = _unseen(frames) if self.encoder else ""

    @property
    def device(self) -> torch.device:
        return self.here.device

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
        if self.encoder is not None:
            values = self.encoder.codes(*self._seen(rgb, landmarks))
        elif self.reader is not None:
            images = _unit(rgb, self.device).movedim(-1, 1)
            if images.shape[-1] != self.size:
                images = F.interpolate(images, (self.size, self.size), mode="bilinear", antialias=True)
            values = self.reader.coefficients(images)
        elif self.name == "flame":
            if flame is None:
                raise UserError("the flame driver reads FLAME coefficients, and these pictures have none")
            values = torch.cat([flame.expression, flame.pose], -1).to(self.device)
        else:
            values = torch.as_tensor(coefficients, device=self.device)
        return self.tokens(values)

    @torch.no_grad()
    def crop(
        self, rgb: Shaped[Tensor | np.ndarray, "B H W 3"], landmarks: Float[Tensor | np.ndarray, "B 68 2"]
    ) -> Float[Tensor, "B 3 224 224"]:
        """What the external driver's encoder sees of pictures."""
        return external.crops(*self._seen(rgb, landmarks))

    def _seen(self, rgb, landmarks) -> tuple[Float[Tensor, "B H W 3"], Float[Tensor, "B 68 2"]]:
        return _unit(rgb, self.device), torch.as_tensor(landmarks, device=self.device).float()


def _unseen(frames: Frames) -> str:
    """How many frames an encoder is shown whole."""
    missing = int((~external.known(torch.as_tensor(frames.landmarks))).sum())
    return f"the driver's encoder saw {missing} of {len(frames)} frames whole, which have no landmarks" * bool(missing)


def _unit(rgb: Shaped[Tensor | np.ndarray, "B H W 3"], device: torch.device) -> Float[Tensor, "B H W 3"]:
    """uint8 or floats in 0..1 → floats in 0..1."""
    images = torch.as_tensor(rgb, device=device)
    return images.float() if images.is_floating_point() else images / 255
