"""Each Gaussian attends to motion tokens (CAG-Avatar: queried by canonical position; Avat3r, FlexAvatar: few tokens; PAPER §4).

    x_i  = W_m LN(m_i) + W_p position_i + b                           the query: who the Gaussian is and where
    x_i ← x_i + W_o [softmax_t(q_ih·k_th / √16) v_th]_h + b_o         q = W_q LN(x),  k = W_k e,  v = W_v e, in each of L layers
    x_i ← x_i + W2 softplus(W1 LN(x_i) + b1) + b2
    δf_i = s (W x_i + b),   avatar = Φ(f_i + δf_i)

Tokens e_t = E_t [source_t; driving_t] + position_t: by default the code's own 32, of 16 numbers each; otherwise `tokens` learned
ones, each from the whole code. Matched by parameters: 93,168 of local_adaln's 110,016, at three times its FLOPs per frame. Changed
to fit the shared pipeline: the width is the feature's, 48, in 3 heads of 16, the network between is as wide as Ψ's and has its
softplus, and δf goes through the shared Φ.

Keys meet queries and values meet W_o by products of two weights, so that a token's keys, scores and values for all layers
and heads are one linear map of e_t, and the source's part of it is computed once per identity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from i4d_bench.types import FEATURE_DIM, MOTION_DIM, MOTION_TOKENS, Gaussians, Identity, MotionCode
from variants.attention import Layer, fold, unfold
from variants.base import Fusion, normed, register, scaled


@dataclass
class Prepared:
    fused: Callable[[Tensor, Tensor, Tensor], Gaussians]  # all layers, and Φ
    embed: Tensor | None  # [T,D,512]: M(driving) → learned tokens
    rows: Tensor  # a token (its own: [T,R,16], learned: [R,D]) → its keys, values and scores for all layers and heads
    source: Tensor  # [B,T,R]: what M(source) and the positions add to them
    multiplied: torch.dtype  # what the kernels multiply in: given so, nothing is converted per frame


@register("global_cross_attention")
class GlobalCrossAttention(Fusion):
    """c → 32 tokens;   m_i, position_i ─query→ L × (attend to the tokens, MLP) → + f_i ─Φ→ Gaussian i"""

    family = "global"
    needs = "motion"
    tokens = "tokens"

    def __init__(
        self,
        layers: int = 2,
        heads: int = 3,
        tokens: int = 0,
        hidden: int = 96,
        motion_basis: int = 48,
        delta_scale: float = 1.0,
        init_scale: float = 1.0,
        source: bool = True,
    ):
        super().__init__()
        dim = FEATURE_DIM
        self.heads, self.learned, self.delta_scale, self.sees_source = heads, tokens > 0, delta_scale, source
        self.count = tokens or MOTION_TOKENS
        self.motion = nn.Linear(motion_basis, dim)
        self.place = nn.Linear(3, dim, bias=False)
        self.reads = MOTION_DIM * (MOTION_TOKENS if self.learned else 1)
        inputs = self.reads * (1 + source)
        self.E = nn.Parameter(torch.empty(self.count, dim, inputs).uniform_(-1, 1) / inputs**0.5)
        self.position = nn.Parameter(0.5 * torch.randn(self.count, dim))
        self.layers = nn.ModuleList(Layer(dim, hidden) for _ in range(layers))
        self.out = scaled(nn.Linear(dim, FEATURE_DIM), init_scale)

    def prepare(self, identity: Identity, source: MotionCode) -> Prepared:
        stack = cast("Iterable[Layer]", self.layers)
        rows, layers = fold(stack, self.heads, self.out, self.delta_scale, self.storage)
        x0 = self.motion(normed(identity.m, self.motion.in_features)) + self.place(identity.anchors)
        fused = identity.decode.attended(x0.to(self.storage), identity.f.to(self.storage), layers)
        from_source, from_driving = self.E.tensor_split([self.reads * self.sees_source], 2)
        tokens = self.position.expand(len(source.motion), -1, -1)
        if self.sees_source:
            tokens = tokens + self._embedded(source, from_source)
        if self.learned:
            return Prepared(fused, from_driving, rows, tokens @ rows.T, layers.o.dtype)
        return Prepared(fused, None, rows @ from_driving, tokens @ rows.T, layers.o.dtype)

    def animate(self, prepared: Prepared, driving: MotionCode) -> Gaussians:
        if prepared.embed is None:
            change = (driving.tokens.transpose(0, 1) @ prepared.rows.mT).transpose(0, 1)  # [F,T,R]
        else:
            change = F.linear(self._embedded(driving, prepared.embed), prepared.rows)
        code = (
            (change.unflatten(0, (len(prepared.source), -1)) + prepared.source[:, None])
            .flatten(0, 1)
            .to(prepared.multiplied)
        )
        return prepared.fused(*unfold(code, len(self.layers), self.heads, FEATURE_DIM))

    def _embedded(self, code: MotionCode, weight: Tensor) -> Tensor:
        """This half's part of the tokens [·,T,D]."""
        if self.learned:
            return F.linear(code.motion, weight.flatten(0, 1)).unflatten(-1, (self.count, -1))
        return torch.einsum("ftc,tdc->ftd", code.tokens, weight)
