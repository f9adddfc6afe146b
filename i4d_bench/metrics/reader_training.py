"""Trains the expression reader (`reader.py`) on a data set's own truth."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from i4d_bench.data.frames import Frames
from i4d_bench.heads.expressions import NAMES
from i4d_bench.metrics.distances import Reading, aed, akd, akd_iod, apd
from i4d_bench.metrics.reader import LOCATED, MARGIN, RIGID, Reader
from i4d_bench.progress import track
from i4d_bench.types import UserError

ROUNDS, ENOUGH = 4, 0.7
"""Of training at most, and the share of the mean expression's error from which a reader is good enough."""
HELD_OUT = 10
"""Every tenth person of the training frames is kept for the floor."""
JITTER = 0.004
"""Of the image's side: shift and spread of landmarks in training crops, about the locator's own error."""
WEIGHTS = (1.0, 0.5)
"""Of landmarks and rotation in the locator's loss."""

MIRRORED_NAMES = [
    NAMES.index(n[:-4] + "Right" if n.endswith("Left") else n[:-5] + "Left" if n.endswith("Right") else n)
    for n in NAMES
]
# iBUG-68 seen in a mirror.
MIRRORED_LANDMARKS = [
    *range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31, 45, 44, 43, 42, 47, 46, 39, 38, 37, 36,
    41, 40, *range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), 67, 66, 65,
]  # fmt: skip


def truth(frames: Frames, index: np.ndarray) -> Reading:
    """What a perfect reader would read off these frames."""
    rotation = torch.from_numpy(np.ascontiguousarray(frames.viewmats[index, :3, :3]))
    return Reading(torch.from_numpy(frames.coefficients[index]), torch.from_numpy(frames.landmarks[index]), rotation)


def train_reader(
    frames: Frames, indices: np.ndarray, steps: int = 500, seed: int = 0, device: str | torch.device = "cpu",
    batch: int = 64, lr: float = 2e-3, progress: bool = True,
) -> Reader:  # fmt: skip
    """Trains a reader on these frames; deterministic given the arguments. Every tenth person only measures the floor.

    steps: of a round. There are more, ROUNDS at most, until the error on true frames is ENOUGH of what always answering the mean
    expression has: a reader that hardly reads better finds every avatar alike. At 64² a step takes 0.11 s on two cores.

    Raises UserError when the frames lack people, coefficients or landmarks.
    """
    indices = np.asarray(indices)
    people = np.unique(frames.identity[indices])
    if len(people) < 2:
        raise UserError(f"the expression reader needs frames of two people at least, the data set has {len(people)}")
    held = np.isin(frames.identity[indices], people[::HELD_OUT])
    train, test = indices[~held], indices[held]
    known = np.isfinite(frames.landmarks[train]).all((1, 2)) & np.isfinite(frames.coefficients[train]).all(1)
    train = train[known]
    if len(train) == 0:
        raise UserError(f"no frame of {frames.path} has all landmarks and coefficients: the reader cannot learn")

    reader = Reader(frames.resolution, seed=seed).to(device).train()
    _standardise(reader, truth(frames, train))
    rng = torch.Generator().manual_seed(seed)
    for turn in range(ROUNDS):
        name = "expression reader" if not turn else f"expression reader, round {turn + 1}"
        work = track(range(steps), name, steps) if progress else range(steps)
        _round(reader.train(), frames, train, work, lr / (1 + turn), steps, batch, rng)
        reader.eval()
        reader.floors.copy_(measure_floor(reader, frames, test))
        if reader.floor["aed"] <= ENOUGH * _mean_error(reader, frames, test):
            break
    return reader.requires_grad_(False)


def _round(
    reader: Reader, frames: Frames, train: np.ndarray, work: Iterable[int], lr: float, steps: int, batch: int, rng: torch.Generator
) -> None:  # fmt: skip
    """Learns for so many steps, the rate rising and falling."""
    device = reader.floors.device
    optimiser = torch.optim.AdamW(reader.parameters(), lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=steps, pct_start=0.2)
    for step in work:
        pick = train[torch.randint(len(train), (batch,), generator=rng).numpy()]
        images = _augment(*_images(frames, pick, device), rng)
        true = _to(truth(frames, pick), device)
        if step % 2:
            images, true = images.flip(-1), mirrored(true, reader.side)
        loss = _loss(reader, images, true, rng)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()


def _mean_error(reader: Reader, frames: Frames, index: np.ndarray) -> float:
    """AED of always answering the mean expression of the training frames."""
    true = truth(frames, index).coefficients
    return float(aed(reader.coefficient_mean.cpu().expand_as(true), true).nanmean())


@torch.no_grad()
def measure_floor(reader: Reader, frames: Frames, index: np.ndarray, batch: int = 64) -> Float[Tensor, " 4"]:
    """Mean error, in the order of FLOORS, on ground-truth images on their own black background."""
    device = reader.floors.device
    rows = []
    for part in np.array_split(index, max(1, len(index) // batch)):
        seen, true = reader.read(_images(frames, part, device)[0]), _to(truth(frames, part), device)
        landmarks = seen.landmarks, true.landmarks
        rows.append(torch.stack([
            aed(seen.coefficients, true.coefficients), akd(*landmarks, frames.resolution),
            akd_iod(*landmarks), apd(seen.rotation, true.rotation)]))  # fmt: skip
    return torch.cat(rows, 1).nanmean(1)


def mirrored(true: Reading, side: int) -> Reading:
    """The truth of the mirrored image."""
    flip = true.landmarks.new_tensor([-1.0, 1.0])
    landmarks = true.landmarks[:, MIRRORED_LANDMARKS] * flip + true.landmarks.new_tensor([side, 0.0])
    mirror = torch.diag(true.rotation.new_tensor([-1.0, 1.0, 1.0]))
    return Reading(true.coefficients[:, MIRRORED_NAMES], landmarks, mirror @ true.rotation @ mirror)


def _located(true: Reading, side: int) -> Float[Tensor, "B 142"]:
    return torch.cat([true.landmarks.flatten(1) / side, true.rotation[:, :, 0], true.rotation[:, :, 1]], -1)


def _standardise(reader: Reader, true: Reading) -> None:
    """One scale per kind of output: a coefficient that hardly moves must not count as much as a jaw."""
    located = _located(true, reader.side)
    reader.located_mean.copy_(located.mean(0))
    reader.coefficient_mean.copy_(true.coefficients.mean(0))
    spread = lambda x: x.var(0, correction=0).mean().sqrt().clamp_min(1e-3)  # noqa: E731
    parts = [spread(x).expand(x.shape[1]) for x in located.split(LOCATED, -1)]
    reader.located_std.copy_(torch.cat(parts))
    reader.coefficient_std.fill_(spread(true.coefficients))
    mean = true.landmarks.mean(0)
    low, high = mean.amin(0), mean.amax(0)
    half = (high - low).max() * (0.5 + MARGIN)
    reader.template.copy_((mean[RIGID] - (low + high) / 2 + half) / (2 * half) * reader.crop)


def _loss(reader: Reader, images: Tensor, true: Reading, rng: torch.Generator) -> Tensor:
    located = (_located(true, reader.side) - reader.located_mean) / reader.located_std
    errors = (reader.locate(images) - located).square().split(LOCATED, -1)
    loss = sum(w * e.mean() for w, e in zip(WEIGHTS, errors, strict=True))
    # Crops by the truth, shaken as the locator will shake them: both networks learn at once.
    shake = torch.randn(len(images), 1, 2, generator=rng) + torch.randn(len(images), 68, 2, generator=rng)
    landmarks = true.landmarks + (JITTER * reader.side * shake).to(images.device)
    wanted = (true.coefficients - reader.coefficient_mean) / reader.coefficient_std
    return loss + (reader.express(images, landmarks) - wanted).square().mean()


def _images(frames: Frames, index: np.ndarray, device) -> tuple[Tensor, Tensor]:
    rgb = torch.from_numpy(frames.rgb[index]).to(device).permute(0, 3, 1, 2) / 255
    return rgb, torch.from_numpy(frames.alpha[index]).to(device)[:, None] / 255


def _to(reading: Reading, device) -> Reading:
    return Reading(*(t.to(device) for t in vars(reading).values()))


def _augment(rgb: Tensor, alpha: Tensor, rng: torch.Generator) -> Tensor:
    """Random background, gain and sharpness: rendered heads are softer than the truth and stand on any colour."""
    n = len(rgb)
    uniform = lambda *shape: torch.rand(*shape, generator=rng).to(rgb.device)  # noqa: E731
    # A gradient between four colours; plain black, as the data has it, for a quarter.
    background = F.interpolate(uniform(n, 3, 2, 2), rgb.shape[-2:], mode="bilinear", align_corners=True)
    x = rgb + (1 - alpha) * background * (uniform(n, 1, 1, 1) > 0.25)
    soft = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    x = torch.lerp(x, soft, uniform(n, 1, 1, 1))
    return (x * (0.85 + 0.3 * uniform(n, 3, 1, 1)) + 0.02 * uniform(n, 1, *x.shape[-2:])).clamp(0, 1)
