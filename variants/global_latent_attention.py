"""Latent tokens pooled from the Gaussians, driven, and scattered back (as Perceiver IO reads and writes; PAPER §4 names none).

    x_i  = W_m LN(m_i) + W_p position_i + b                           who the Gaussian is and where
    z    = W_z (query_l + Attention(query_l, LN(x)))                  pool: L learned queries over all Gaussians, once per identity
    z   ← z + CrossAttention(LN(z), e),  z ← z + SelfAttention(LN(z)),  z ← z + MLP(LN(z))      blocks, every frame
    x_i ← x_i + W_o [softmax_l(q_ih·k_lh / √16) v_lh]_h + b_o         scatter: q = W_q LN(x),  k = W_k LN(z),  v = W_v LN(z)
    x_i ← x_i + W2 softplus(W1 LN(x_i) + b1) + b2
    δf_i = s (W x_i + b),   avatar = Φ(f_i + δf_i)

Motion tokens e: the code's own 32 of the source and 32 of the driver, or `motion_tokens` learned ones of the whole code. No
paper in the field does exactly this: it is the middle between `global_cross_attention` (no token knows the head) and plane
tokens (tokens on a grid). The scatter is `global_cross_attention`'s layer with z in place of e, so that the same kernel does it
with Φ in one pass; the network in it is a third as wide, which pays for the attention. `init_scale=0` starts at the canonical
avatar; `source=False` hides M(source).

Size: tokens carry the weights, 6.3 GFLOP per frame at 196,608 Gaussians with Φ (`local_adaln`: 6.0), 1.7 M parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from i4d_bench.types import FEATURE_DIM, Gaussians, Identity, MotionCode
from variants.attention import Attention, Block, Layer, fold, tokens_of_motion, unfold
from variants.base import Fusion, normed, register, scaled

SCATTER_HEADS = 3
"""Of 16, as in `global_cross_attention`; for the pool as well."""


@dataclass
class Prepared:
    fused: Callable[[Tensor, Tensor, Tensor], Gaussians]  # the scatter, and Φ
    latents: Tensor  # [B,L,d]
    source: Tensor | None  # the source's part of the motion tokens
    rows: Tensor  # [R,d]: a latent → its keys, values and scores
    multiplied: torch.dtype  # what the kernels multiply in: given so, nothing is converted per frame


@register("global_latent_attention")
class GlobalLatentAttention(Fusion):
    """all m_i ─pool→ L latents ─attend to c, to each other, MLP→ latents ─attended to by m_i, MLP→ + f_i ─Φ→ Gaussian i"""

    family = "global"
    needs = "motion"
    tokens = "motion_tokens"

    def __init__(
        self,
        latents: int = 16,
        dim: int = 256,
        blocks: int = 2,
        heads: int = 4,
        motion_tokens: int = 0,
        hidden: int = 32,
        motion_basis: int = 48,
        delta_scale: float = 1.0,
        init_scale: float = 1.0,
        source: bool = True,
    ):
        super().__init__()
        width = FEATURE_DIM
        self.delta_scale = delta_scale
        self.basis = nn.Linear(motion_basis, width)
        self.place = nn.Linear(3, width, bias=False)
        self.queries = nn.Parameter(torch.randn(latents, width))
        self.norm = nn.LayerNorm(width)
        self.pool = Attention(
            width, SCATTER_HEADS
        )  # as narrow as the Gaussians' states: N of them need keys and values
        self.lift = nn.Linear(width, dim)
        self.motion = tokens_of_motion(dim, motion_tokens, source)
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(blocks))
        self.norm_latents = nn.LayerNorm(dim)
        self.scatter = Layer(width, hidden, dim)
        self.out = scaled(nn.Linear(width, FEATURE_DIM), init_scale)

    def prepare(self, identity: Identity, source: MotionCode) -> Prepared:
        x = self.basis(normed(identity.m, self.basis.in_features)) + self.place(identity.anchors)
        queries = self.queries.repeat(len(x), 1, 1)
        latents = self.lift(queries + self.pool(queries, self.norm(x)))
        rows, layers = fold([self.scatter], SCATTER_HEADS, self.out, self.delta_scale, self.storage)
        fused = identity.decode.attended(x.to(self.storage), identity.f.to(self.storage), layers)
        return Prepared(fused, latents, self.motion.of_source(source), rows, layers.o.dtype)

    def animate(self, prepared: Prepared, driving: MotionCode) -> Gaussians:
        motion = self.motion(prepared.source, driving)
        z = prepared.latents.repeat_interleave(len(motion) // len(prepared.latents), 0)
        for block in self.blocks:
            z = block(z, motion)
        code = F.linear(self.norm_latents(z), prepared.rows).to(prepared.multiplied)
        return prepared.fused(*unfold(code, 1, SCATTER_HEADS, FEATURE_DIM))
