"""A ResNet-18 or 34 for inference: batch norms are folded into the convolutions, and each ReLU, with the sum before it, into
cuDNN's call. For one picture a layer's arithmetic takes less time than a kernel's launch, so what counts is how many there are."""

from __future__ import annotations

import copy

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
        shortcuts = (b.downsample for b in blocks)
        self.shortcuts = nn.ModuleList(
            _folded(*s) if isinstance(s, nn.Sequential) else nn.Identity() for s in shortcuts
        )
        self.pool, self.last = network.maxpool, copy.deepcopy(network.fc)
        self.to(memory_format=torch.channels_last).requires_grad_(False)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B K"]:
        with torch.backends.cudnn.flags(enabled=True, benchmark=True):
            x = self.pool(_relu(self.first, images.contiguous(memory_format=torch.channels_last)))
            for one, two, shortcut in zip(self.ones, self.twos, self.shortcuts, strict=True):
                x = _relu(two, _relu(one, x), shortcut(x))
            return self.last(x.mean((2, 3)))


def _folded(conv: nn.Module, norm: nn.Module) -> nn.Conv2d:
    assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    return fuse_conv_bn_eval(conv, norm)


def _relu(conv: nn.Module, x: Tensor, plus: Tensor | None = None) -> Tensor:
    """max(0, conv(x) + plus)."""
    assert isinstance(conv, nn.Conv2d) and not isinstance(conv.padding, str)
    if not x.is_cuda:
        return F.relu(conv(x) if plus is None else conv(x) + plus)
    how = (conv.stride, conv.padding, conv.dilation, conv.groups)
    if plus is None:
        return torch.cudnn_convolution_relu(x, conv.weight, conv.bias, *how)
    return torch.cudnn_convolution_add_relu(x, conv.weight, plus, 1.0, conv.bias, *how)
