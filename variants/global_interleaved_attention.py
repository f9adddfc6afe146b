"""VOODOO-XP: cross-attention to the driver, interleaved with the stages of the encoder that lifts the source (PAPER §4).

    x   = E planes + position,   e = MLP(c)                        40 motion tokens of c = [M(source); M(driving)]
    x  ← x + SelfAttention(LN(x)),   x ← x + MLP(LN(x))            encoder stage k
    x  ← x + CrossAttention_k(LN(x), e)                            then the driver speaks, K = 5 times
    t   = up LN(x), read at i
    δf_i = W2 gelu(t_i + W1 [f_i; m_i]) + b,   avatar = Φ(f_i + s · δf_i)

Published stages are those of the lifting encoder on the image. Changed to fit the shared pipeline: that encoder is shared and
runs once per identity, so the stages here are transformer blocks (the lifting's own kind) on tokens of what it lifted: the
planes' f channels pooled to `tokens`². The first stage has met no driver yet and is cached with the identity; the other four
run every frame, as do the planes. The driver features are the motion code. `init_scale=0` starts at the canonical avatar;
`source=False` hides M(source).

Published are d = 1024, 40 motion tokens of 384, 5 and 5 blocks, 4 heads; how many plane tokens is not known to us (PAPER §4), so
that `native` leaves `tokens` alone.

Size: tokens carry the weights, 6.1 GFLOP per frame at 196,608 Gaussians with Φ (`local_adaln`: 6.0), 5.2 M parameters.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from i4d_bench.types import Gaussians, Identity, MotionCode
from variants.attention import Cross, Encoder, PlanesOf, PlaneTokens, tokens_of_motion
from variants.base import Fusion, register


@dataclass
class Prepared:
    planes: PlanesOf  # tokens after the first stage
    source: Tensor | None  # the source's part of the motion tokens


@register("global_interleaved_attention")
class GlobalInterleavedAttention(Fusion):
    """planes → tokens ─5 × (attend to each other, MLP, attend to c)→ planes ─read beside f_i, m_i→ + f_i ─Φ→ Gaussian i"""

    family = "global"
    needs = "motion"
    tokens = "motion_tokens"
    native: ClassVar[dict[str, Any]] = {"dim": 1024, "motion_dim": 384}

    def __init__(
        self,
        dim: int = 256,
        tokens: int = 16,
        stages: int = 5,
        heads: int = 4,
        motion_tokens: int = 40,
        motion_dim: int = 96,
        delta_scale: float = 1.0,
        init_scale: float = 1.0,
        source: bool = True,
    ):
        super().__init__()
        self.delta_scale = delta_scale
        self.planes = PlaneTokens(dim, tokens, init_scale)
        self.motion = tokens_of_motion(motion_dim, motion_tokens, source)
        self.encoder = nn.ModuleList(Encoder(dim, heads) for _ in range(stages))
        self.cross = nn.ModuleList(Cross(dim, heads, motion_dim) for _ in range(stages))

    def prepare(self, identity: Identity, source: MotionCode) -> Prepared:
        planes = self.planes.of(identity, self.storage)
        return Prepared(replace(planes, tokens=self.encoder[0](planes.tokens)), self.motion.of_source(source))

    def animate(self, prepared: Prepared, driving: MotionCode) -> Gaussians:
        person = prepared.planes
        with torch.autocast(driving.motion.device.type, self.storage, enabled=self.storage != torch.float32):
            motion = self.motion(prepared.source, driving)
            x = person.tokens.repeat_interleave(len(motion) // len(person.tokens), 0)
            x = self.cross[0](x, motion)
            for encoder, cross in zip(self.encoder[1:], self.cross[1:], strict=True):
                x = cross(encoder(x), motion)
            return person.identity.decode(self.planes.changed(person, x, self.delta_scale))
