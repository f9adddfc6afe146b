"""dlib's face-recognition ResNet in torch: same weights and outputs, any device, differentiable, ten times faster.

Davis King's network (dlib_face_recognition_resnet_model_v1, 2017): a ResNet of 29 convolutions whose down-sampling
short cuts are 2×2 means padded with zero channels. The weights are read from dlib's own file; dlib is not needed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

SIDE = 150
MEAN = (122.782, 117.001, 104.298)
"""Of the training images, RGB 0..255; inputs are (x − MEAN) / 256."""
LEVELS = [(32, 3, False), (64, 4, True), (128, 3, True), (256, 3, True), (256, 1, True)]
"""Channels, residual blocks, whether the first of them halves the image."""


class Affine(nn.Module):
    """A batch norm after training: scale and shift per channel."""

    def __init__(self, channels: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.empty(channels, 1, 1))
        self.beta = nn.Parameter(torch.empty(channels, 1, 1))

    def forward(self, x):
        return x * self.gamma + self.beta


class Residual(nn.Module):
    def __init__(self, cin: int, cout: int, down: bool):
        super().__init__()
        # dlib pads convolutions of stride 1 only.
        self.conv1 = nn.Conv2d(cin, cout, 3, 2 if down else 1, 0 if down else 1)
        self.affine1 = Affine(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1)
        self.affine2 = Affine(cout)
        self.down = down

    def forward(self, x):
        y = self.affine2(self.conv2(self.affine1(self.conv1(x)).relu()))
        if self.down:
            x = F.avg_pool2d(x, 2)
        # Sizes may differ by one pixel and by channels; dlib adds as if the smaller were surrounded by zeros.
        size = [max(a, b) for a, b in zip(x.shape[1:], y.shape[1:], strict=True)]
        return (_grow(x, size) + _grow(y, size)).relu()


def _grow(x: Tensor, size: list[int]) -> Tensor:
    c, h, w = (new - old for new, old in zip(size, x.shape[1:], strict=True))
    return F.pad(x, (0, w, 0, h, 0, c))


class DlibResNet(nn.Module):
    """RGB crops of 150² in 0..1 → 128-d descriptors, as dlib's compute_face_descriptor."""

    mean: Float[Tensor, "3 1 1"]

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 32, 7, 2)
        self.affine = Affine(32)
        blocks, cin = [], 32
        for cout, count, down in LEVELS:
            for k in range(count):
                blocks.append(Residual(cin, cout, down and k == 0))
                cin = cout
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(256, 128, bias=False)
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1))
        self.requires_grad_(False)

    def forward(self, crops: Float[Tensor, "B 3 150 150"]) -> Float[Tensor, "B 128"]:
        x = self.affine(self.conv((crops * 255 - self.mean) / 256)).relu()
        return self.fc(self.blocks(F.max_pool2d(x, 3, 2)).mean((2, 3)))

    @staticmethod
    def load(path: str | Path) -> DlibResNet:
        """Reads dlib's .dat file. Raises ValueError when it holds another network or is cut off."""
        network = DlibResNet()
        data, at = Path(path).read_bytes(), 0
        with torch.no_grad():
            for layer in network.modules():
                if isinstance(layer, nn.Conv2d):
                    assert layer.bias is not None
                    values, at = _next_tensor(data, at, layer.weight.numel() + layer.bias.numel())
                    layer.weight.copy_(values[: layer.weight.numel()].view_as(layer.weight))
                    layer.bias.copy_(values[layer.weight.numel() :])
                elif isinstance(layer, Affine):
                    values, at = _next_tensor(data, at, 2 * layer.gamma.numel())
                    layer.gamma.copy_(values[: layer.gamma.numel()].view_as(layer.gamma))
                    layer.beta.copy_(values[layer.gamma.numel() :].view_as(layer.beta))
                elif isinstance(layer, nn.Linear):
                    values, at = _next_tensor(data, at, layer.in_features, layer.out_features)
                    layer.weight.copy_(values.view(layer.in_features, layer.out_features).T)
        return network


def _integer(value: int) -> bytes:
    """dlib's integers: the number of bytes, then the bytes, little end first."""
    size = (value.bit_length() + 7) // 8
    return bytes([size]) + value.to_bytes(size, "little")


def _next_tensor(data: bytes, start: int, samples: int, channels: int = 1) -> tuple[Tensor, int]:
    """The next tensor of this shape (format version 2: four sizes, then float32) and where it ends.

    What lies between two layers' tensors (strides, learning rates, empty gradients) is skipped by finding the header.
    """
    header = b"".join(map(_integer, (2, samples, channels, 1, 1)))
    found = data.find(header, start)
    begin = found + len(header)
    end = begin + 4 * samples * channels
    if found < 0 or end > len(data):
        raise ValueError(f"no tensor of {samples}×{channels} numbers where dlib's face-recognition network has one")
    return torch.from_numpy(np.frombuffer(data, "<f4", samples * channels, begin).copy()), end
