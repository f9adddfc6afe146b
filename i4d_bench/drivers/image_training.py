"""Trains the `image` driver's encoder (`image.py`) on a data set's own pictures and coefficients.

    z = ResNet(crop),   loss = ‖read(z) − c‖² + w · contrast(z, g(c))

The contrast (InfoNCE, both ways) draws a picture's code towards what a small network g makes of its coefficients alone, and away
from those of other pictures in the batch. Since g sees no picture, whatever a code says about who is seen, from where and in which
light only costs. Crops are moved as a detector would, mirrored, and lit and coloured otherwise.
"""

from __future__ import annotations

import contextlib

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from i4d_bench.data.frames import Frames
from i4d_bench.data.splits import SPLITS, split_of
from i4d_bench.drivers.crop import SIDE, crops, known
from i4d_bench.drivers.image import CODE, ImageEncoder
from i4d_bench.metrics.reader_training import MIRRORED_NAMES
from i4d_bench.progress import track
from i4d_bench.types import UserError

BATCH, RATE = 64, 1e-3
CONTRAST, TEMPERATURE = 0.2, 0.1
MOVED = (0.05, 0.05, 0.1)
"""Standard deviations of crops' shift and size (`crop.crops`) in training."""
LIT, TINTED = 0.4, 0.15
"""Largest change of brightness across a crop, and of a colour."""


def train_encoder(frames: Frames, steps: int, seed: int, device: torch.device) -> ImageEncoder:
    """An encoder by the training people's frames, its error by the validation people's; deterministic on a CPU.

    Raises UserError where coefficients or landmarks are not known.
    """
    split = split_of(frames)
    train, val = (_usable(frames, np.flatnonzero(split == SPLITS.index(s))) for s in ("train", "val"))
    if not len(train):
        raise UserError(
            "the image driver learns from pictures with landmarks and expression coefficients, and no training frame of "
            f"{frames.path} has both"
        )
    encoder = ImageEncoder(min(SIDE, frames.resolution), seed).to(device)
    coefficients = torch.from_numpy(np.asarray(frames.coefficients[train], np.float32)).to(device)
    encoder.coefficient_mean.copy_(coefficients.mean(0))
    encoder.coefficient_std.copy_(coefficients.var(0).mean().sqrt().clamp_min(1e-3))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        expressed = nn.Sequential(nn.Linear(52, 256), nn.GELU(), nn.Linear(256, CODE)).to(device)
    parameters = [*encoder.parameters(), *expressed.parameters()]
    optimiser = torch.optim.AdamW(parameters, RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps, pct_start=0.2)
    rng = torch.Generator().manual_seed(seed)
    half = torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else contextlib.nullcontext()
    encoder.train()
    for _ in track(range(steps), "image driver's encoder", steps):
        pick = train[torch.randint(len(train), (BATCH,), generator=rng).numpy()]
        images, wanted = _shown(frames, pick, encoder, rng)
        with half:
            codes = encoder(images)
        wanted = (wanted - encoder.coefficient_mean) / encoder.coefficient_std
        loss = (encoder.read(codes) - wanted).square().mean()
        loss = loss + CONTRAST * _contrast(codes, F.layer_norm(expressed(wanted), (CODE,)))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
    encoder.eval()
    if len(val):
        true = torch.from_numpy(np.asarray(frames.coefficients[val], np.float32)).to(device)
        rms = lambda off: off.square().mean(1).sqrt().mean()  # noqa: E731
        read = encoder.coefficients(encoder.codes(*_pictures(frames, val, device)))
        encoder.errors.copy_(torch.stack([rms(read - true), rms(encoder.coefficient_mean - true)]))
    return encoder.requires_grad_(False)


def _usable(frames: Frames, index: np.ndarray) -> np.ndarray:
    measured = np.isfinite(frames.coefficients[index]).all(1)
    return index[measured & known(torch.from_numpy(np.asarray(frames.landmarks[index]))).numpy()]


def _pictures(frames: Frames, index: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
    rgb = torch.from_numpy(frames.rgb[index]).to(device) / 255
    return rgb, torch.from_numpy(frames.landmarks[index]).to(device)


def _shown(frames: Frames, pick: np.ndarray, encoder: ImageEncoder, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Crops as an encoder learns from them, and their coefficients."""
    device, n = encoder.errors.device, len(pick)
    uniform = lambda *shape: (torch.rand(*shape, generator=rng) * 2 - 1).to(device)  # noqa: E731
    moved = (torch.randn(n, 3, generator=rng) * torch.tensor(MOVED)).to(device)
    images = crops(*_pictures(frames, pick, device), encoder.side, moved)
    across = torch.linspace(-1, 1, encoder.side, device=device)
    light = 1 + LIT * (uniform(n, 1, 1, 1) * across + uniform(n, 1, 1, 1) * across[:, None]) / 2
    images = (images * light * (1 + TINTED * uniform(n, 3, 1, 1)) * (1 + TINTED * uniform(n, 1, 1, 1))).clamp(0, 1)
    true = torch.from_numpy(np.asarray(frames.coefficients[pick], np.float32)).to(device)
    flipped = torch.rand(n, generator=rng).to(device) < 0.5
    images = torch.where(flipped[:, None, None, None], images.flip(-1), images)
    return images, torch.where(flipped[:, None], true[:, MIRRORED_NAMES], true)


def _contrast(codes: Tensor, expressed: Tensor) -> Tensor:
    """InfoNCE of pictures' codes and their coefficients', both of unit scale."""
    logits = codes @ expressed.T / (CODE * TEMPERATURE)
    own = torch.arange(len(codes), device=codes.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
