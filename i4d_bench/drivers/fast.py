"""A ResNet-18 or 34 for inference: batch norms are folded into the convolutions, and on a GPU a layer is one kernel. For one
picture a layer's arithmetic takes less time than a kernel's launch, so what counts is how many there are."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models import ResNet
from torchvision.models.resnet import BasicBlock


class Folded(nn.Module):
    """A trained ResNet of basic blocks, without gradients. Raises TypeError for one of other blocks."""

    def __init__(self, network: ResNet):
        super().__init__()
        blocks = [b for b in network.modules() if isinstance(b, BasicBlock)]
        if not blocks:
            raise TypeError("only ResNets of basic blocks are folded")
        network = network.eval()
        self.first = _folded(network.conv1, network.bn1)
        self.ones = nn.ModuleList(_folded(b.conv1, b.bn1) for b in blocks)
        self.twos = nn.ModuleList(_folded(b.conv2, b.bn2) for b in blocks)
        shortcuts = [b.downsample for b in blocks]
        self.shortcuts = nn.ModuleList(
            _folded(*s) if isinstance(s, nn.Sequential) else nn.Identity() for s in shortcuts
        )
        self.pool, self.last = network.maxpool, copy.deepcopy(network.fc)
        self.to(memory_format=torch.channels_last).requires_grad_(False)
        for _, two, shortcut in self._blocks():
            if shortcut is not None:  # one of them has the bias of both
                _bias(two).add_(_bias(shortcut))
                shortcut.bias = None

    def _blocks(self) -> Iterator[tuple[nn.Conv2d, nn.Conv2d, nn.Conv2d | None]]:
        for one, two, shortcut in zip(self.ones, self.twos, self.shortcuts, strict=True):
            assert isinstance(one, nn.Conv2d) and isinstance(two, nn.Conv2d)
            yield one, two, shortcut if isinstance(shortcut, nn.Conv2d) else None

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B K"]:
        """images: of any type. → fp32 on a GPU."""
        if images.is_cuda:
            return self.by_kernels(images)
        x = self.pool(F.relu(self.first(images.to(self.first.weight.dtype))))
        for one, two, shortcut in self._blocks():
            x = F.relu(two(F.relu(one(x))) + (x if shortcut is None else shortcut(x)))
        return self.last(x.mean((2, 3)))

    def by_kernels(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B K"]:
        from kernels.fused import convolution as kernel

        ended = iter(torch.zeros(2 * len(self.ones), kernel.room(), dtype=torch.int32, device=images.device))
        x = kernel.pool(kernel.first(images, self.first.weight, _bias(self.first)))
        for one, two, shortcut in self._blocks():
            plus = kernel.Plus(x) if shortcut is None else kernel.Plus(x, shortcut.weight, shortcut.stride[0])
            y = kernel.convolve(x, one.weight, _bias(one), one.stride[0], next(ended))
            x = kernel.convolve(y, two.weight, _bias(two), two.stride[0], next(ended), plus)
        return kernel.last(x, self.last.weight, self.last.bias)


def _folded(conv: nn.Module, norm: nn.Module) -> nn.Conv2d:
    assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    return fuse_conv_bn_eval(conv, norm)


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None
    return conv.bias
