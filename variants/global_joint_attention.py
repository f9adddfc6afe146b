"""Avat3r / FlexAvatar (Kirschstein): a few expression tokens in joint attention with cached head tokens (PAPER §4).

    h   = E planes + position,   e = MLP(c)                        head tokens, once per identity; 4 expression tokens
    x   = [h; e]
    x  ← x + SelfAttention(LN(x)),   x ← x + MLP(LN(x))            in each of 4 layers: heads and expression see each other
    t   = up LN(x_h), read at i
    δf_i = W2 gelu(t_i + W1 [f_i; m_i]) + b,   avatar = Φ(f_i + s · δf_i)

c = [M(source); M(driving)]. Changed to fit the shared pipeline: the head tokens are the planes' f channels pooled to `tokens`²
in place of a learned encoder's, and they are brought up to the Gaussians beside the planes' fine features (`attention.PlaneTokens`)
in place of a UV map's upsampler. Layers
and expression tokens are FlexAvatar's; Avat3r's run 8 self- and 8 cross-attention layers over all image tokens with as many of
them. `init_scale=0` starts at the canonical avatar; `source=False` hides M(source).

Size: tokens carry the weights, 5.7 GFLOP per frame at 196,608 Gaussians with Φ (`local_adaln`: 6.0), 3.0 M parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from i4d_bench.types import Gaussians, Identity, MotionCode
from variants.attention import Encoder, PlanesOf, PlaneTokens, tokens_of_motion
from variants.base import Fusion, register


@dataclass
class Prepared:
    planes: PlanesOf
    source: Tensor | None  # the source's part of the expression tokens


@register("global_joint_attention")
class GlobalJointAttention(Fusion):
    """c → 4 tokens;   planes → tokens;   [both] ─4 × (attend to each other, MLP)→ planes ─beside f_i, m_i→ + f_i ─Φ→ Gaussian i"""

    family = "global"
    needs = "motion"
    tokens = "motion_tokens"

    def __init__(
        self,
        dim: int = 256,
        tokens: int = 16,
        layers: int = 4,
        heads: int = 4,
        motion_tokens: int = 4,
        delta_scale: float = 1.0,
        init_scale: float = 1.0,
        source: bool = True,
    ):
        super().__init__()
        self.delta_scale = delta_scale
        self.planes = PlaneTokens(dim, tokens, init_scale)
        self.motion = tokens_of_motion(dim, motion_tokens, source)
        self.layers = nn.ModuleList(Encoder(dim, heads) for _ in range(layers))

    def prepare(self, identity: Identity, source: MotionCode) -> Prepared:
        return Prepared(self.planes.of(identity, self.storage), self.motion.of_source(source))

    def animate(self, prepared: Prepared, driving: MotionCode) -> Gaussians:
        person, count = prepared.planes, prepared.planes.tokens.shape[1]
        with torch.autocast(driving.motion.device.type, self.storage, enabled=self.storage != torch.float32):
            expression = self.motion(prepared.source, driving)
            head = person.tokens.repeat_interleave(len(expression) // len(person.tokens), 0)
            x = torch.cat([head, expression.to(head)], 1)
            for layer in self.layers:
                x = layer(x)
            return person.identity.decode(self.planes.changed(person, x[:, :count], self.delta_scale))
