"""What the global designs are built of: attention, tokens of motion codes, tokens of planes, and Gaussians that attend to tokens.

All blocks are pre-norm and residual. No design by itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import kernels
from i4d_bench.types import FEATURE_DIM, MOTION_DIM, MOTION_TOKENS, Identity, MotionCode
from kernels.layout import Layers
from variants.base import normed, scaled

CODE = MOTION_TOKENS * MOTION_DIM
FEW = 64
"""Keys per query from which scores are written out."""
UP = 2
"""Texels per token side in the planes that tokens become, which are read bilinearly."""


class Attention(nn.Module):
    """softmax(q kᵀ / √d) v in each head: x [B,T,dim] attends to context [B,S,context]."""

    def __init__(self, dim: int, heads: int, context: int | None = None, init_scale: float = 1.0):
        super().__init__()
        self.heads = heads
        self.q, self.kv = nn.Linear(dim, dim), nn.Linear(context or dim, 2 * dim)
        self.out = scaled(nn.Linear(dim, dim), init_scale)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        split = lambda t: t.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # noqa: E731
        k, v = self.kv(context).chunk(2, -1)
        attend = _few if x.shape[1] * FEW <= context.shape[1] else F.scaled_dot_product_attention
        return self.out(attend(split(self.q(x)), split(k), split(v)).transpose(1, 2).flatten(2))


def _few(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`scaled_dot_product_attention` of few queries, whose scores are small. torch's own goes back with one block of threads per
    block of queries: 21 ms of a training step's 49 for 16 queries of 18,000 keys (preset gpu, H100)."""
    return torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, -1) @ v


class Cross(nn.Module):
    """x + attention to the context."""

    def __init__(self, dim: int, heads: int, context: int | None = None, init_scale: float = 1.0):
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(dim), Attention(dim, heads, context, init_scale)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        return x + self.attention(self.norm(x), context)


class Encoder(nn.Module):
    """Self-attention, then an MLP of ratio 2: a transformer's block."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = Attention(dim, heads)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.attention(y, y)
        return x + self.mlp(self.norm2(x))


class Block(nn.Module):
    """Cross-attention → self-attention → MLP."""

    def __init__(self, dim: int, heads: int, init_scale: float = 1.0):
        super().__init__()
        self.cross, self.encoder = Cross(dim, heads, init_scale=init_scale), Encoder(dim, heads)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        return self.encoder(self.cross(x, context))


class OwnTokens(nn.Module):
    """The motion code's own 32 tokens, and the source's 32 before them: E token_t + position_t."""

    def __init__(self, dim: int, source: bool = True):
        super().__init__()
        self.sees_source = source
        self.embed = nn.Linear(MOTION_DIM, dim)
        self.position = nn.Parameter(0.5 * torch.randn((1 + source) * MOTION_TOKENS, dim))

    def of_source(self, code: MotionCode) -> Tensor | None:
        """What depends on the source alone, once per identity."""
        return self.embed(code.tokens) + self.position[MOTION_TOKENS:] if self.sees_source else None

    def forward(self, of_source: Tensor | None, driving: MotionCode) -> Tensor:
        """Tokens of the frames [F,T,dim]."""
        tokens = self.embed(driving.tokens) + self.position[:MOTION_TOKENS]
        if of_source is None:
            return tokens
        return torch.cat([of_source.repeat_interleave(len(tokens) // len(of_source), 0), tokens], 1)


class LearnedTokens(nn.Module):
    """`count` learned tokens, W2 gelu(W1 c + b1) + b2 of the whole code c = [M(source); M(driving)]; b2 holds their positions."""

    def __init__(self, dim: int, count: int, source: bool = True, hidden: int = 256):
        super().__init__()
        self.count, self.sees_source = count, source
        self.layer1 = nn.Linear((1 + source) * CODE, hidden)
        self.layer2 = nn.Linear(hidden, count * dim)
        nn.init.normal_(self.layer2.bias, std=0.5)  # what tells tokens apart, as large as OwnTokens'

    def of_source(self, code: MotionCode) -> Tensor:
        """What depends on the source alone, once per identity."""
        if self.sees_source:
            return F.linear(code.motion, self.layer1.weight[:, :CODE], self.layer1.bias)
        return self.layer1.bias.repeat(len(code.motion), 1)

    def forward(self, of_source: Tensor, driving: MotionCode) -> Tensor:
        """Tokens of the frames [F,T,dim]."""
        hidden = F.linear(driving.motion, self.layer1.weight[:, -CODE:]).unflatten(0, (len(of_source), -1))
        return self.layer2(F.gelu(hidden + of_source[:, None])).flatten(0, 1).unflatten(-1, (self.count, -1))


def tokens_of_motion(dim: int, count: int, source: bool) -> OwnTokens | LearnedTokens:
    """count 0: the code's own tokens."""
    return LearnedTokens(dim, count, source) if count else OwnTokens(dim, source)


@dataclass
class PlanesOf:
    """What `PlaneTokens` needs of a person, once per identity."""

    identity: Identity
    tokens: Tensor  # [B,side²,dim]
    beside: Tensor  # [B,N,hidden]: the planes' own fine features, as the decoder meets them


class PlaneTokens(nn.Module):
    """side² tokens of the planes' f channels, and a decoder back to what stands at every Gaussian.

        t_i = tokens, each UP² texels of three planes, read at i
        δf_i = W2 gelu(t_i + W1 [LN(f_i); LN(m_i)] + b1) + b2

    Tokens are coarser than Gaussians: an eye is two of them. So their effect is brought up beside the planes' own fine features,
    as Portrait4D-v2 and VOODOO-XP decode theirs beside a high-resolution branch's (DESIGN §4, PAPER §4).
    """

    def __init__(self, dim: int, side: int, init_scale: float = 1.0, hidden: int = 96):
        super().__init__()
        self.side, self.hidden = side, hidden
        self.embed = nn.Linear(3 * FEATURE_DIM, dim)
        self.position = nn.Parameter(0.02 * torch.randn(side**2, dim))
        self.norm = nn.LayerNorm(dim)
        self.up = nn.Linear(dim, 3 * hidden * UP**2)
        self.fine = nn.Linear(2 * FEATURE_DIM, hidden)
        self.out = scaled(nn.Linear(hidden, FEATURE_DIM), init_scale)

    def of(self, identity: Identity, storage: torch.dtype) -> PlanesOf:
        """Raises UserError for a motion basis of less than FEATURE_DIM channels."""
        pooled = identity.planes.pooled(self.side)[:, :, :FEATURE_DIM].flatten(1, 2).flatten(2).transpose(1, 2)
        own = torch.cat([kernels.row_norm(identity.f), normed(identity.m, FEATURE_DIM)], -1)
        stored = replace(identity, f=identity.f.to(storage))
        return PlanesOf(stored, self.embed(pooled) + self.position, self.fine(own).to(storage))

    def changed(self, person: PlanesOf, x: Tensor, scale: float) -> Tensor:
        """f + scale · δf [F,N,48] from the tokens of the frames [F,side²,dim], in f's type."""
        identity = person.identity
        x = self.up(self.norm(x)).transpose(1, 2).unflatten(2, (self.side, self.side))
        planes = (
            F.pixel_shuffle(x, UP).unflatten(1, (3, self.hidden)).unflatten(0, (len(identity.f), -1))
        )  # [B,k,3,h,P,P]
        # `identity.sample` reads one set of planes per identity; frames of an identity travel as channels.
        read = identity.sample(planes.transpose(1, 2).flatten(2, 3)).unflatten(-1, (-1, self.hidden))  # [B,N,k,h]
        delta = self.out(F.gelu(read.transpose(1, 2) + person.beside[:, None]))
        return (identity.f[:, None] + (scale * delta).to(identity.f)).flatten(0, 1)


class Layer(nn.Module):
    """One layer in which Gaussians attend to tokens. Keys and values have no bias: a softmax does not see the first, b_o holds
    the second."""

    def __init__(self, dim: int, hidden: int, context: int | None = None):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.q = nn.Linear(dim, dim, bias=False)
        self.k, self.v = (nn.Linear(context or dim, dim, bias=False) for _ in range(2))
        self.o = nn.Linear(dim, dim)
        self.W1, self.W2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def of_token(self, heads: int) -> tuple[Tensor, Tensor, Tensor]:
        """Maps of a token to keys [A,D,C], values [A,D,C] and score [A,1,C] per head, with the norm's affine part and 1/√d."""
        q, k, v = (w.weight.unflatten(0, (heads, -1)) for w in (self.q, self.k, self.v))  # [A,d,·]
        o = self.o.weight.unflatten(1, (heads, -1)).movedim(1, 0)  # [A,D,d]
        meet = q.mT @ k / k.shape[1] ** 0.5
        return self.norm1.weight[:, None] * meet, o @ v, self.norm1.bias[None] @ meet

    def network(self) -> tuple[Tensor, Tensor]:
        """W1 and b1 with the second norm's affine part."""
        return self.W1.weight * self.norm2.weight, F.linear(self.norm2.bias, self.W1.weight, self.W1.bias)


def fold(
    layers: Iterable[Layer], heads: int, out: nn.Linear, scale: float, storage: torch.dtype
) -> tuple[Tensor, Layers]:
    """For `Identity.decode.attended`: the one linear map [R,C] of a token to its keys, values and scores for all layers and heads,
    and the other weights, scale · `out` the last of them, in the type that the kernels multiply in."""
    layers = list(layers)
    rows = torch.cat([torch.stack(w).flatten(0, 2) for w in zip(*(y.of_token(heads) for y in layers), strict=True)])
    rows = F.pad(rows, (0, 0, 0, -len(rows) % 8))  # whole 16 bytes for the kernel to read
    w1, b1 = (torch.stack(w) for w in zip(*(y.network() for y in layers), strict=True))
    of = lambda name: torch.stack([y.get_parameter(name) for y in layers])  # noqa: E731
    rest = Layers(of("o.bias"), w1, b1, of("W2.weight"), of("W2.bias"), scale * out.weight, scale * out.bias)
    half = storage != torch.float32 and not torch.is_grad_enabled()  # gradients of weights keep their range
    return rows, Layers(*(w.to(torch.float16 if half else torch.float32) for w in rest))


def unfold(code: Tensor, layers: int, heads: int, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens through `fold`'s map [F,T,R] → keys [F,L,A,T,D], score [F,L,A,T], values [F,L,A,T,D]."""
    size = layers * heads * dim
    keys, values = (
        code[..., k * size : (k + 1) * size].unflatten(-1, (layers, heads, dim)).movedim(1, 3) for k in range(2)
    )
    score = code[..., 2 * size : 2 * size + layers * heads].unflatten(-1, (layers, heads)).movedim(1, 3)
    return keys, score, values
