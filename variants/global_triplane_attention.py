"""Portrait4D-v2: attention between plane tokens and motion tokens, planes decoded again every frame (PAPER §4).

    x   = E planes + position                                     side² tokens of the lifted planes, once per identity
    x  ← x + CrossAttention(LN(x), e)                             in each block, every frame
    x  ← x + SelfAttention(LN(x)),   x ← x + MLP(LN(x))           MLP of ratio 2
    t   = up LN(x), read at i
    δf_i = W2 gelu(t_i + W1 [f_i; m_i]) + b,   avatar = Φ(f_i + s · δf_i)

Motion tokens e: by default the code's own 32 of the source and 32 of the driver stand in for the published 8×8, which
`motion_tokens=64` makes of the whole code c = [M(source); M(driving)] with an MLP. Changed to fit the shared pipeline: the
tokens are the planes' f channels pooled to `tokens`², and what they become is brought up to the Gaussians beside the planes' fine
features (`attention.PlaneTokens`), as the published decoder has its high-resolution branch. The published 3 + 3 blocks
run one after the other over the same motion tokens. `init_scale=0` starts at the canonical avatar; the published start, where
only the cross-attention is silent, is `cross_scale=0`.

Size: tokens carry the weights, 5.2 GFLOP per frame at 196,608 Gaussians with Φ (`local_adaln`: 6.0), 2.0 M parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from i4d_bench.types import Gaussians, Identity, MotionCode
from variants.attention import Block, PlanesOf, PlaneTokens, tokens_of_motion
from variants.base import Fusion, register


@dataclass
class Prepared:
    planes: PlanesOf
    source: Tensor | None  # the source's part of the motion tokens


@register("global_triplane_attention")
class GlobalTriplaneAttention(Fusion):
    """planes → tokens ─B × (attend to c, to each other, MLP)→ planes ─read beside f_i, m_i→ + f_i ─Φ→ Gaussian i"""

    family = "global"
    needs = "motion"
    tokens = "motion_tokens"
    native: ClassVar[dict[str, Any]] = {"dim": 1024, "tokens": 32, "blocks": 6, "motion_tokens": 64, "cross_scale": 0.0}

    def __init__(
        self,
        dim: int = 256,
        tokens: int = 16,
        blocks: int = 2,
        heads: int = 4,
        motion_tokens: int = 0,
        delta_scale: float = 1.0,
        init_scale: float = 1.0,
        cross_scale: float = 1.0,
        source: bool = True,
    ):
        super().__init__()
        self.delta_scale = delta_scale
        self.planes = PlaneTokens(dim, tokens, init_scale)
        self.motion = tokens_of_motion(dim, motion_tokens, source)
        self.blocks = nn.ModuleList(Block(dim, heads, cross_scale) for _ in range(blocks))

    def prepare(self, identity: Identity, source: MotionCode) -> Prepared:
        return Prepared(self.planes.of(identity, self.storage), self.motion.of_source(source))

    def animate(self, prepared: Prepared, driving: MotionCode) -> Gaussians:
        person = prepared.planes
        with torch.autocast(driving.motion.device.type, self.storage, enabled=self.storage != torch.float32):
            motion = self.motion(prepared.source, driving)
            x = person.tokens.repeat_interleave(len(motion) // len(person.tokens), 0)
            for block in self.blocks:
                x = block(x, motion)
            return person.identity.decode(self.planes.changed(person, x, self.delta_scale))
