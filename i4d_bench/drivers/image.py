"""The `image` driver's network: a ResNet-18 from a crop of the driving picture to a motion code, trained once per data set.

It stands for the field's motion encoders (X-NeMo's, PAPER §1), whose weights nobody may pass on. See `image_training`.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torchvision.models import resnet18

from i4d_bench.drivers.crop import crops
from i4d_bench.metrics.reader import restored, store
from i4d_bench.types import MOTION_DIM, MOTION_TOKENS

CODE = MOTION_TOKENS * MOTION_DIM
CHUNK = 256
"""Crops encoded at once."""
ERRORS = ("error", "mean")
"""RMS of the 52 coefficients read off the codes of people it was not trained on, and of always answering the training mean."""


class ImageEncoder(nn.Module):
    """Crops of one side → codes of unit scale, and the 52 coefficients that are read off codes."""

    coefficient_mean: Float[Tensor, "52"]
    coefficient_std: Float[Tensor, ""]
    errors: Float[Tensor, "2"]

    def __init__(self, side: int, seed: int = 0):
        super().__init__()
        self.side = side
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = resnet18(num_classes=CODE).to(memory_format=torch.channels_last)
            self.read = nn.Sequential(nn.Linear(CODE, 256), nn.GELU(), nn.Linear(256, 52))
        self.register_buffer("coefficient_mean", torch.zeros(52))
        self.register_buffer("coefficient_std", torch.ones(()))
        self.register_buffer("errors", torch.full((len(ERRORS),), torch.nan))

    def forward(self, images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B 512"]:
        """Codes of crops (0..1)."""
        return F.layer_norm(self.network(images * 2 - 1).float(), (CODE,))

    def coefficients(self, codes: Float[Tensor, "B 512"]) -> Float[Tensor, "B 52"]:
        return self.read(codes) * self.coefficient_std + self.coefficient_mean

    @torch.no_grad()
    def codes(
        self,
        images: Shaped[Tensor, "B H W 3"],
        landmarks: Float[Tensor, "B 68 2"],
        moved: Float[Tensor, "B 3"] | None = None,
    ) -> Float[Tensor, "B 512"]:
        """Of the faces in pictures (0..1, landmarks in pixels), a few at once. moved: as `crops` has it."""
        parts = [slice(i, i + CHUNK) for i in range(0, len(images), CHUNK)]
        seen = (crops(images[p], landmarks[p], self.side, moved if moved is None else moved[p]) for p in parts)
        return torch.cat([self(s) for s in seen])

    def __str__(self) -> str:
        error, mean = self.errors.tolist()
        return f"reads the 52 coefficients of people it never saw to {error:.3f} (the mean expression: {mean:.3f})"

    def save(self, path: Path) -> None:
        """Kernels of convolutions have 16 bits there, so that the file has 22 MB: what reads it is the encoder that counts. Raises
        OSError when the file cannot be written."""
        store(self.side, {k: v.half() if v.ndim == 4 else v for k, v in self.state_dict().items()}, path)

    @staticmethod
    def load(path: Path) -> ImageEncoder:
        """Raises UserError for a file that is none or is damaged."""
        return restored(ImageEncoder, path, "the image driver's encoder")
