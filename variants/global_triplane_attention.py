"""Portrait4D-v2: attention between plane tokens and motion tokens, planes decoded again every frame (PAPER §4).

Blocks of cross-attention → self-attention → MLP (ratio 2) on tokens of the lifted planes. Changed to fit the shared
pipeline: the 64 source and driving motion tokens stand in for its 8×8 learned motion tokens, the blocks read the planes'
f channels pooled to `tokens`², and what they add is upsampled and read at the same places as f before the shared Φ.
Native zero-initialised cross-attention is `init_scale=0`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from i4d_bench.types import FEATURE_DIM, MOTION_DIM, MOTION_TOKENS, Gaussians, Identity, MotionCode
from variants.base import Fusion, register

UP = 2
"""Texels per token side in the decoded residual planes, which are read bilinearly."""


class Attention(nn.Module):
    def __init__(self, dim: int, heads: int, init_scale: float = 1.0):
        super().__init__()
        self.heads = heads
        self.q, self.kv, self.out = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)
        with torch.no_grad():
            self.out.weight.mul_(init_scale)
            self.out.bias.mul_(init_scale)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        split = lambda t: t.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # noqa: E731
        k, v = self.kv(context).chunk(2, -1)
        return self.out(F.scaled_dot_product_attention(split(self.q(x)), split(k), split(v)).transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, dim: int, heads: int, init_scale: float):
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim) for _ in range(3))
        self.cross, self.self_ = Attention(dim, heads, init_scale), Attention(dim, heads)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x: Tensor, motion: Tensor) -> Tensor:
        x = x + self.cross(self.norm1(x), motion)
        y = self.norm2(x)
        x = x + self.self_(y, y)
        return x + self.mlp(self.norm3(x))


@dataclass
class Prepared:
    identity: Identity
    tokens: Tensor  # [B,T,d]
    source: Tensor  # [B,32,d]


@register("global_triplane_attention")
class GlobalTriplaneAttention(Fusion):
    family = "global"
    needs = "motion"

    def __init__(
        self,
        dim: int = 256,
        tokens: int = 16,
        blocks: int = 2,
        heads: int = 4,
        delta_scale: float = 1.0,
        init_scale: float = 1.0,
    ):
        super().__init__()
        self.side, self.delta_scale = tokens, delta_scale
        planes = 3 * FEATURE_DIM
        self.embed = nn.Linear(planes, dim)
        self.position = nn.Parameter(0.02 * torch.randn(1, tokens**2, dim))
        self.motion = nn.Linear(MOTION_DIM, dim)
        self.motion_position = nn.Parameter(0.5 * torch.randn(1, 2 * MOTION_TOKENS, dim))
        self.blocks = nn.ModuleList(Block(dim, heads, init_scale) for _ in range(blocks))
        self.norm = nn.LayerNorm(dim)
        self.out = nn.Linear(dim, planes * UP**2)

    def prepare(self, identity: Identity, source: MotionCode) -> Prepared:
        pooled = identity.planes.pooled(self.side)[:, :, :FEATURE_DIM].flatten(1, 2).flatten(2).transpose(1, 2)
        motion = self.motion(source.tokens) + self.motion_position[:, :MOTION_TOKENS]
        return Prepared(replace(identity, f=identity.f.to(self.storage)), self.embed(pooled) + self.position, motion)

    def animate(self, prepared: Prepared, driving: MotionCode) -> Gaussians:
        with torch.autocast(driving.motion.device.type, self.storage, enabled=self.storage != torch.float32):
            return prepared.identity.decode(self._features(prepared, driving))

    def _features(self, prepared: Prepared, driving: MotionCode) -> Tensor:
        identity = prepared.identity
        frames = len(driving.motion) // len(prepared.tokens)
        x = prepared.tokens.repeat_interleave(frames, 0)
        motion = self.motion(driving.tokens) + self.motion_position[:, MOTION_TOKENS:]
        motion = torch.cat([prepared.source.repeat_interleave(frames, 0), motion], 1)
        for block in self.blocks:
            x = block(x, motion)
        x = self.out(self.norm(x)).transpose(1, 2).unflatten(2, (self.side, self.side))
        delta = F.pixel_shuffle(x, UP).unflatten(1, (3, FEATURE_DIM))
        # Reading is linear in the planes, so reading what is added equals reading the new planes.
        return identity.f.repeat_interleave(frames, 0) + (self.delta_scale * self._read(identity, delta, frames)).to(
            identity.f
        )

    def _read(self, identity: Identity, delta: Tensor, frames: int) -> Tensor:
        """`identity.sample` reads one set of planes per identity; frames of an identity travel as channels."""
        stacked = delta.unflatten(0, (-1, frames)).permute(0, 2, 1, 3, 4, 5).flatten(2, 3)  # [B,3,k·48,P,P]
        return identity.sample(stacked).unflatten(-1, (frames, -1)).permute(0, 2, 1, 3).flatten(0, 1)
