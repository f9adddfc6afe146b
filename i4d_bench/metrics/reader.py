"""The expression reader: a small CNN trained on a world's own truth (DESIGN §5, `aed_true`).

It finds 68 landmarks and the head's rotation in the whole image, then reads the 52 coefficients off a crop that those
landmarks align. Its own error on ground-truth images of people it was not trained on is kept with it as `floor`: no
method can be measured below that.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from i4d_bench.metrics.align import aligned_crops
from i4d_bench.metrics.distances import Reading
from i4d_bench.metrics.image import check_images
from i4d_bench.types import UserError

N = TypeVar("N", bound=nn.Module)
LOCATED = (136, 6)
"""Landmarks, first two columns of the rotation (Zhou et al. 2019)."""
FLOORS = ("aed", "akd", "akd_iod", "apd")
RIGID = [36, 39, 42, 45, 27, 28, 29, 30, 33]
"""Landmarks that expressions hardly move (eye corners, nose): they align the crop."""
MARGIN = 0.1
"""Of the crop around the mean face."""


class Block(nn.Module):
    """Two 3×3 convolutions with a short cut, halving the image."""

    def __init__(self, cin: int, cout: int):
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(cin, cout, 3, 2, 1, bias=False), nn.BatchNorm2d(cout), nn.ReLU(True))
        self.b = nn.Sequential(nn.Conv2d(cout, cout, 3, 1, 1, bias=False), nn.BatchNorm2d(cout))
        self.short = nn.Conv2d(cin, cout, 1, 2, bias=False)

    def forward(self, x):
        return F.relu(self.b(self.a(x)) + self.short(x))


def _network(side: int, channels: list[int], outputs: int) -> nn.Sequential:
    """Images of `side` (0..1) → numbers; every entry of `channels` halves the image."""
    cells = side >> len(channels)
    stem = nn.Sequential(nn.Conv2d(3, channels[0], 5, 2, 2, bias=False), nn.BatchNorm2d(channels[0]), nn.ReLU(True))
    return nn.Sequential(
        stem,
        *(Block(a, b) for a, b in pairwise(channels)),
        nn.Flatten(),
        nn.Linear(channels[-1] * cells**2, 256),
        nn.ReLU(True),
        nn.Linear(256, outputs),
    ).to(memory_format=torch.channels_last)  # fmt: skip  (a third faster on CPUs)


class Reader(nn.Module):
    """Images of one side (16, 32, 64, 128 ...) → coefficients, landmarks, rotation."""

    name = "true"
    located_mean: Float[Tensor, "142"]
    located_std: Float[Tensor, "142"]
    coefficient_mean: Float[Tensor, "52"]
    coefficient_std: Float[Tensor, "52"]
    template: Float[Tensor, "R 2"]
    floors: Float[Tensor, "4"]

    def __init__(self, side: int, seed: int = 0):
        super().__init__()
        if side < 16 or side & (side - 1):
            raise ValueError(f"the reader takes images of side 16, 32, 64, 128 ..., got {side}")
        self.side = side
        self.overview = min(side, 64)  # finding the face needs no more detail
        self.crop = max(24, side * 3 // 4)
        stages = self.overview.bit_length() - 3
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.locator = _network(self.overview, [16, 32, 64, 96, 96][:stages], sum(LOCATED))
            self.expression = _network(self.crop, [24, 48, 96, 144][: 3 if side < 128 else 4], 52)
        # Outputs are standardised; the template is the mean face in the crop's pixels. Training sets them.
        for name, shape in {"located": sum(LOCATED), "coefficient": 52}.items():
            self.register_buffer(f"{name}_mean", torch.zeros(shape))
            self.register_buffer(f"{name}_std", torch.ones(shape))
        self.register_buffer("template", torch.zeros(len(RIGID), 2))
        self.register_buffer("floors", torch.full((len(FLOORS),), torch.nan))

    @property
    def floor(self) -> dict[str, float]:
        """Error on ground-truth images of held-out people: "aed", "akd", "akd_iod", "apd"; NaN before training."""
        return dict(zip(FLOORS, self.floors.tolist(), strict=True))

    def locate(self, images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B 142"]:
        """Standardised landmarks and rotation."""
        if self.side > self.overview:
            images = F.interpolate(images, (self.overview, self.overview), mode="area")
        return self.locator(images * 2 - 1)

    def express(self, images: Float[Tensor, "B 3 S S"], landmarks: Float[Tensor, "B 68 2"]) -> Float[Tensor, "B 52"]:
        """Standardised coefficients; landmarks in pixels."""
        crops = aligned_crops(images.movedim(1, -1), landmarks[:, RIGID], self.template, self.crop)
        return self.expression(crops * 2 - 1)

    def forward(self, images: Float[Tensor, "B 3 S S"]) -> Reading:
        """Images in 0..1, unchecked."""
        landmarks, columns = (self.locate(images) * self.located_std + self.located_mean).split(LOCATED, -1)
        landmarks = landmarks.unflatten(-1, (68, 2)) * self.side
        coefficients = self.express(images, landmarks) * self.coefficient_std + self.coefficient_mean
        return Reading(coefficients.clamp(0, 1), landmarks, _rotation(columns))

    def read(self, images: Float[Tensor, "B 3 S S"]) -> Reading:
        """Images in 0..1; landmarks are in their pixels. Raises ValueError for another range or size."""
        check_images(images.movedim(1, -1))
        if images.shape[-2:] != (self.side, self.side):
            raise ValueError(f"this reader takes images of {self.side}², got {tuple(images.shape[-2:])}")
        return self(images)

    def save(self, path: Path) -> None:
        """Raises OSError when the file cannot be written."""
        store(self.side, self.state_dict(), path)

    @staticmethod
    def load(path: Path) -> Reader:
        """Raises UserError for a file that is not a reader or is damaged."""
        return restored(Reader, path, "the expression reader")


def store(side: int, state: Mapping[str, Tensor], path: Path) -> None:
    """What `restored` reads. The same bytes under every name, since records tell networks by their files: a name that torch opens
    itself it writes into the file. Raises OSError."""
    with path.open("wb") as file:
        torch.save({"side": side, "state": state}, file)


def restored(make: Callable[[int], N], path: Path, what: str) -> N:
    """A network for pictures of one side as `store` wrote it, to be used and not trained. Raises UserError for a file that holds
    none or is damaged."""
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        network = make(saved["side"])
        network.load_state_dict(saved["state"])
    except (OSError, RuntimeError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as e:
        raise UserError(f"{what} {path} cannot be read ({e}): delete it to train it again") from e
    return network.eval().requires_grad_(False)


def _rotation(columns: Float[Tensor, "B 6"]) -> Float[Tensor, "B 3 3"]:
    a = F.normalize(columns[:, :3], dim=-1)
    b = F.normalize(columns[:, 3:] - (a * columns[:, 3:]).sum(-1, keepdim=True) * a, dim=-1)
    return torch.stack([a, b, torch.linalg.cross(a, b)], -1)
