"""Image → triplane. A small U-Net with a transformer at the bottom in place of the paper's LP3D branch pair (PAPER §1).

The paper's encoder (512² in, 256² planes, d = 1024) needs days of training; this one keeps its shape: a low-resolution
attention branch joined with a high-resolution convolutional one, three planes of 48 + 48 channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

import kernels
from i4d_bench.types import Triplane


class ResBlock(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.GroupNorm(8, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        norm = self.norm
        normed = kernels.norm_silu(x, norm.weight, norm.bias, norm.num_groups)
        return x + self.conv2(F.silu(self.conv1(normed)))


class TransformerBlock(nn.Module):
    """Pre-norm self-attention and MLP over [B, T, C] tokens."""

    def __init__(self, channels: int, heads: int = 4, ratio: int = 2):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, ratio * channels), nn.GELU(), nn.Linear(ratio * channels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


class Encoder(nn.Module):
    """[B,3,S,S] RGB in 0..1 → three planes of C channels, P × P texels; S must be `size`, P ≤ S divides it.

    widths: channels at S/2, S/4 and S/8; stem: channels at full resolution, joined there by the image itself.
    """

    def __init__(self, size: int, channels: int, stem: int, widths: tuple[int, int, int], blocks: int):
        super().__init__()
        self.size, self.channels = size, channels
        w1, w2, w3 = widths
        inputs = 5  # RGB and the pixel's own coordinates
        self.down1 = nn.Conv2d(4 * inputs, w1, 3, padding=1)
        self.down2 = nn.Conv2d(w1, w2, 4, stride=2, padding=1)
        self.down3 = nn.Conv2d(w2, w3, 4, stride=2, padding=1)
        self.res1, self.res2 = ResBlock(w1), ResBlock(w2)
        self.position = nn.Parameter(0.02 * torch.randn(1, (size // 8) ** 2, w3))
        self.transformer = nn.Sequential(*(TransformerBlock(w3) for _ in range(blocks)), nn.LayerNorm(w3))
        self.up3, self.up2, self.up1 = (nn.Conv2d(a, 4 * b, 1) for a, b in ((w3, w2), (w2, w1), (w1, stem)))
        self.merge2, self.merge1 = ResBlock(w2), ResBlock(w1)
        self.head = nn.Linear(stem + inputs, 3 * channels)
        self.rgb = slice(stem, stem + 3)  # the trunk's channels that hold the image itself, -1..1
        self.to(memory_format=torch.channels_last)  # twice as fast, on CPUs too

    def forward(self, images: Float[Tensor, "B 3 S S"], planes: int) -> Triplane:
        axis = torch.linspace(-1, 1, self.size, device=images.device)
        grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy")).expand(len(images), -1, -1, -1)
        inputs = torch.cat([2 * images - 1, grid], 1)
        s1 = self.res1(self.down1(F.pixel_unshuffle(inputs, 2).contiguous(memory_format=torch.channels_last)))
        s2 = self.res2(self.down2(s1))
        x = self.down3(s2)
        tokens = self.transformer(x.flatten(2).transpose(1, 2) + self.position)
        x = tokens.transpose(1, 2).unflatten(2, x.shape[2:])
        x = self.merge2(F.pixel_shuffle(self.up3(x), 2) + s2)
        x = self.merge1(F.pixel_shuffle(self.up2(x), 2) + s1)
        x = torch.cat([F.silu(F.pixel_shuffle(self.up1(x), 2)), inputs], 1)
        if planes != self.size:
            x = F.avg_pool2d(x, self.size // planes)
        weight, bias = self.head.weight.unflatten(0, (3, -1)), self.head.bias.unflatten(0, (3, -1))
        return Triplane(x.float(), weight, bias)
