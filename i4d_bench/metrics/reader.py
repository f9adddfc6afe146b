"""The expression reader: a small CNN trained on a world's own truth (DESIGN §5, `aed_true`).

It reads 52 coefficients, 68 landmarks and the head's rotation off one image, on any background. Its own error on
ground-truth images of people it was not trained on is kept with it as `floor`: no method can be measured below that.
With another seed it serves as the network of the `image` driver.
"""

from __future__ import annotations

import pickle
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from i4d_bench.data.frames import Frames
from i4d_bench.metrics.distances import Reading, aed, akd, akd_iod, apd
from i4d_bench.metrics.image import check_images
from i4d_bench.progress import track
from i4d_bench.types import UserError

OUTPUTS = (52, 136, 6)
"""Coefficients, landmarks, first two columns of the rotation (Zhou et al. 2019)."""
FLOORS = ("aed", "akd", "akd_iod", "apd")
HELD_OUT = 10
"""Every tenth person of the training frames is kept for the floor."""


class Block(nn.Module):
    """Two 3×3 convolutions with a short cut; the first may halve the image."""

    def __init__(self, cin: int, cout: int, stride: int):
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(cin, cout, 3, stride, 1, bias=False), nn.BatchNorm2d(cout), nn.ReLU(True))
        self.b = nn.Sequential(nn.Conv2d(cout, cout, 3, 1, 1, bias=False), nn.BatchNorm2d(cout))
        self.short = nn.Identity() if stride == 1 and cin == cout else nn.Conv2d(cin, cout, 1, stride, bias=False)

    def forward(self, x):
        return F.relu(self.b(self.a(x)) + self.short(x))


class Reader(nn.Module):
    """Images of side `side` (a power of two times 4, at least 16) → coefficients, landmarks, rotation."""

    name = "true"

    def __init__(self, side: int, width: int = 24, seed: int = 0):
        super().__init__()
        stages = side.bit_length() - 3
        if side != 4 << stages or stages < 2:
            raise ValueError(f"the reader takes images of side 16, 32, 64, 128 ..., got {side}")
        self.side, self.width = side, width
        channels = [3, *(min(width * 2**k, width * 6) for k in range(stages))]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            # The first stage works at the image's own size, at stride 2: detail of lids and lips, for little time.
            stem = nn.Sequential(nn.Conv2d(3, width, 5, 2, 2, bias=False), nn.BatchNorm2d(width), nn.ReLU(True))
            blocks = [Block(a, b, 2) for a, b in pairwise(channels[1:])]
            self.trunk = nn.Sequential(stem, *blocks, nn.Flatten())
            self.head = nn.Sequential(nn.Linear(channels[-1] * 16, 256), nn.ReLU(True), nn.Linear(256, sum(OUTPUTS)))
        self.register_buffer("mean", torch.zeros(sum(OUTPUTS)))
        self.register_buffer("std", torch.ones(sum(OUTPUTS)))
        self.register_buffer("floors", torch.full((len(FLOORS),), torch.nan))

    @property
    def floor(self) -> dict[str, float]:
        """Error on ground-truth images of held-out people: "aed", "akd", "akd_iod", "apd"; NaN before training."""
        return dict(zip(FLOORS, self.floors.tolist(), strict=True))

    def forward(self, images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B 194"]:
        """Standardised outputs; training compares these."""
        return self.head(self.trunk(images * 2 - 1))

    def features(self, images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B D"]:
        """What the network knows before the last layer."""
        return self.head[1](self.head[0](self.trunk(images * 2 - 1)))

    def coefficients(self, images: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B 52"]:
        return self._split(images)[0]

    def read(self, images: Float[Tensor, "B 3 S S"]) -> Reading:
        """Images in 0..1; landmarks are in their pixels. Raises ValueError for another range or size."""
        check_images(images.movedim(1, -1))
        if images.shape[-2:] != (self.side, self.side):
            raise ValueError(f"this reader takes images of {self.side}², got {tuple(images.shape[-2:])}")
        coefficients, landmarks, columns = self._split(images)
        return Reading(coefficients, landmarks.unflatten(-1, (68, 2)) * self.side, _rotation(columns))

    def save(self, path: Path) -> None:
        """Raises OSError when the file cannot be written."""
        torch.save({"side": self.side, "width": self.width, "state": self.state_dict()}, path)

    @staticmethod
    def load(path: Path) -> Reader:
        """Raises UserError for a file that is not a reader or is damaged."""
        try:
            saved = torch.load(path, map_location="cpu", weights_only=True)
            reader = Reader(saved["side"], saved["width"])
            reader.load_state_dict(saved["state"])
        except (OSError, RuntimeError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as e:
            raise UserError(f"the expression reader {path} cannot be read ({e}): delete it to train it again") from e
        return reader.eval().requires_grad_(False)

    def _split(self, images):
        out = self(images) * self.std + self.mean
        coefficients, landmarks, columns = out.split(OUTPUTS, -1)
        return coefficients.clamp(0, 1), landmarks, columns


def _rotation(columns: Float[Tensor, "B 6"]) -> Float[Tensor, "B 3 3"]:
    a = F.normalize(columns[:, :3], dim=-1)
    b = F.normalize(columns[:, 3:] - (a * columns[:, 3:]).sum(-1, keepdim=True) * a, dim=-1)
    return torch.stack([a, b, torch.linalg.cross(a, b)], -1)


def truth(frames: Frames, index: np.ndarray) -> Reading:
    """What a perfect reader would read off these frames."""
    rotation = torch.from_numpy(np.ascontiguousarray(frames.viewmats[index, :3, :3]))
    return Reading(torch.from_numpy(frames.coefficients[index]), torch.from_numpy(frames.landmarks[index]), rotation)


def _targets(frames: Frames, index: np.ndarray) -> Float[Tensor, "B 194"]:
    t = truth(frames, index)
    landmarks = t.landmarks.flatten(1) / frames.resolution
    return torch.cat([t.coefficients, landmarks, t.rotation[:, :, 0], t.rotation[:, :, 1]], -1)


def _batch(frames: Frames, index: np.ndarray, device) -> tuple[Tensor, Tensor]:
    rgb = torch.from_numpy(frames.rgb[index]).to(device).permute(0, 3, 1, 2) / 255
    return rgb, torch.from_numpy(frames.alpha[index]).to(device)[:, None] / 255


def _augment(rgb: Tensor, alpha: Tensor, rng: torch.Generator) -> Tensor:
    """Random background, gain and sharpness: rendered heads are softer than the truth and stand on any colour."""
    n, device = len(rgb), rgb.device
    uniform = lambda *shape: torch.rand(*shape, generator=rng).to(device)  # noqa: E731
    corners = uniform(n, 3, 2, 2)  # a gradient between four colours; plain black, as the data has it, for a quarter
    background = F.interpolate(corners, rgb.shape[-2:], mode="bilinear", align_corners=True)
    background = background * (uniform(n, 1, 1, 1) > 0.25)
    x = rgb + (1 - alpha) * background
    soft = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    x = torch.lerp(x, soft, uniform(n, 1, 1, 1))
    x = x * (0.85 + 0.3 * uniform(n, 3, 1, 1)) + 0.02 * uniform(*x.shape)
    return x.clamp(0, 1)


def train_reader(
    frames: Frames, indices: np.ndarray, steps: int = 500, seed: int = 0, device: str | torch.device = "cpu",
    batch: int = 64, lr: float = 2e-3, progress: bool = True,
) -> Reader:  # fmt: skip
    """Trains a reader on these frames; deterministic given the arguments. Every tenth person only measures the floor.

    Raises UserError when the frames lack people, coefficients or landmarks.
    """
    indices = np.asarray(indices)
    people = np.unique(frames.identity[indices])
    if len(people) < 2:
        raise UserError(f"the expression reader needs frames of two people at least, the data set has {len(people)}")
    held = np.isin(frames.identity[indices], people[::HELD_OUT])
    train, test = indices[~held], indices[held]
    targets = _targets(frames, train)
    known = targets.isfinite().all(-1).numpy()
    train, targets = train[known], targets[known]
    if len(train) == 0:
        raise UserError(f"no frame of the data set {frames.path} has all landmarks: the expression reader cannot learn")

    reader = Reader(frames.resolution, seed=seed).to(device).train()
    reader.mean.copy_(targets.mean(0))
    # A coefficient that hardly moves must not be blown up.
    reader.std.copy_(targets.std(0, correction=0).clamp_min(0.02))
    targets = (targets.to(device) - reader.mean) / reader.std
    weights = torch.cat([torch.full((n,), w / n) for n, w in zip(OUTPUTS, (2.0, 1.0, 0.5), strict=True)]).to(device)
    optimiser = torch.optim.Adam(reader.parameters(), lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=steps, pct_start=0.2)
    rng = torch.Generator().manual_seed(seed)
    work = range(steps)
    for _ in track(work, "expression reader", steps) if progress else work:
        pick = torch.randint(len(train), (batch,), generator=rng)
        error = reader(_augment(*_batch(frames, train[pick.numpy()], device), rng)) - targets[pick.to(device)]
        loss = (F.huber_loss(error, torch.zeros_like(error), reduction="none") * weights).sum(-1).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
    reader.eval().requires_grad_(False)
    reader.floors.copy_(measure_floor(reader, frames, test, batch))
    return reader


@torch.no_grad()
def measure_floor(reader: Reader, frames: Frames, index: np.ndarray, batch: int = 64) -> Float[Tensor, " 4"]:
    """Mean error, in the order of FLOORS, on ground-truth images on their own black background."""
    device = reader.mean.device
    rows = []
    for part in np.array_split(index, max(1, len(index) // batch)):
        seen = reader.read(_batch(frames, part, device)[0])
        true = Reading(*(t.to(device) for t in vars(truth(frames, part)).values()))
        landmarks = seen.landmarks, true.landmarks
        rows.append(torch.stack([
            aed(seen.coefficients, true.coefficients), akd(*landmarks, frames.resolution),
            akd_iod(*landmarks), apd(seen.rotation, true.rotation)]))  # fmt: skip
    return torch.cat(rows, 1).nanmean(1)
