"""Drivers: what turns a driving frame into a `MotionCode` (DESIGN §3). All are frozen when designs train.

`sliders`      the world's true ARKit coefficients through a fixed random network, which a linear map nearly undoes
`deep`         the same through a deeper one, of which no linear map and no single token gives the coefficients back
`image`        codes that an encoder, trained once per data set, reads off a crop of the driving picture
`blendshapes`  MediaPipe's 52 coefficients, measured on real video, as `sliders`
`flame`        the parametric head's expression and pose coefficients through such a network
`external`     codes that the user's own encoder, a file, reads off a crop of the driving picture
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from i4d_bench.cache import file_digest
from i4d_bench.data.frames import Frames
from i4d_bench.drivers import external
from i4d_bench.drivers.crop import crops, known
from i4d_bench.drivers.image import ImageEncoder
from i4d_bench.drivers.tokens import DeepTokens, RandomTokens
from i4d_bench.types import FlameCode, MotionCode, UserError

NAMES = ("sliders", "deep", "image", "blendshapes", "flame")
"""Those that are no file."""
TRUE = ("sliders", "deep")
"""Those that know a rendered world's truth."""
DETECTED = (0.02, 0.02, 0.04)
"""Standard deviations by which a face detector's square is off in every frame (`crop.crops`); the `image` driver sees those."""


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


class Driver(nn.Module):
    """`encode(frames, index)` gives the motion codes of these frames, `codes` those of a batch of pictures. note: what a reader of
    the results must know about these frames' codes, or nothing."""

    here: Float[Tensor, ""]

    def __init__(self, name: str, frames: Frames, encoder: ImageEncoder | None = None):
        """name: one of `NAMES`, or an encoder's file. encoder: the image driver's. Raises UserError for data it cannot read."""
        super().__init__()
        own = external.Encoder(Path(name)) if external.is_file(name) else None
        self.name = "external" if own else name
        kind = frames.meta["kind"]
        if name in TRUE and kind == "clips":
            why = f"real video has no true expression for the driver {name}"
            raise UserError(f"{why}: use --driver blendshapes, flame or image")
        if name == "blendshapes" and kind != "clips":
            raise UserError("the blendshapes driver reads real video; a rendered world has the driver sliders")
        if name == "blendshapes" and not frames.measured:
            raise UserError(
                f"the data set {frames.path} has no expression coefficients, as MediaPipe's model was missing when it was "
                f"made: make it again with the model, or use --driver flame"
            )
        if name == "flame" and frames.flame([0]) is None:
            raise UserError(f"the data set {frames.path} has no FLAME coefficients for the flame driver")
        if name == "image" and encoder is None:
            raise UserError("the image driver needs an encoder that was trained on the data set")
        if own is None:
            check(name)
        size = frames.flame_expression.shape[1] + frames.flame_pose.shape[1] if name == "flame" else 52
        self.encoder = own or (encoder if name == "image" else None)
        self.tokens = nn.Identity() if self.encoder else DeepTokens(size) if name == "deep" else RandomTokens(size)
        self.register_buffer("here", torch.zeros(()), persistent=False)
        self.note = _unseen(frames) if self.encoder else ""

    @property
    def device(self) -> torch.device:
        return self.here.device

    def encode(self, frames: Frames, index: np.ndarray, flame: bool = True) -> MotionCode:
        """Of a data set's frames. The image driver sees them as a detector cuts them, always the same of a frame."""
        code = frames.flame(index)
        code = code.to(self.device) if code is not None else None
        moved = _detected(len(frames))[index] if self.name == "image" else None
        motion = self.codes(frames.rgb[index], frames.landmarks[index], frames.coefficients[index], code, moved)
        return MotionCode(motion, code if flame else None)

    @torch.no_grad()
    def codes(
        self,
        rgb: Shaped[Tensor | np.ndarray, "B H W 3"],
        landmarks: Float[Tensor | np.ndarray, "B 68 2"],
        coefficients: Float[Tensor | np.ndarray, "B 52"],
        flame: FlameCode | None = None,
        moved: Float[Tensor, "B 3"] | None = None,
    ) -> Float[Tensor, "B 512"]:
        """Codes of pictures, on the driver's device. rgb: premultiplied by alpha, uint8 or floats in 0..1. landmarks: pixels.
        moved: the image driver's crops (`crop.crops`). Each driver reads what it needs and ignores the rest.

        Raises UserError when the flame driver gets no `flame`.
        """
        if isinstance(self.encoder, ImageEncoder):
            return self.encoder.codes(*self._seen(rgb, landmarks), moved if moved is None else moved.to(self.device))
        if self.encoder is not None:
            return self.encoder.codes(*self._seen(rgb, landmarks))
        if self.name == "flame":
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
        return crops(*self._seen(rgb, landmarks))

    def _seen(self, rgb, landmarks) -> tuple[Float[Tensor, "B H W 3"], Float[Tensor, "B 68 2"]]:
        return _unit(rgb, self.device), torch.as_tensor(landmarks, device=self.device).float()


def _detected(count: int) -> Float[Tensor, "F 3"]:
    """How far a detector's square is off in every frame of a data set."""
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor(DETECTED)


def _unseen(frames: Frames) -> str:
    """How many frames an encoder is shown whole."""
    missing = int((~known(torch.as_tensor(frames.landmarks))).sum())
    return f"the driver's encoder saw {missing} of {len(frames)} frames whole, which have no landmarks" * bool(missing)


def _unit(rgb: Shaped[Tensor | np.ndarray, "B H W 3"], device: torch.device) -> Float[Tensor, "B H W 3"]:
    """uint8 or floats in 0..1 → floats in 0..1."""
    images = torch.as_tensor(rgb, device=device)
    return images.float() if images.is_floating_point() else images / 255
