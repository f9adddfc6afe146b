"""Problems for the kernels, as tests, benchmarks and the speed report share them: one set-up for correctness and for time."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import kernels
from kernels.contract import Case, bytes_moved
from kernels.layout import JOINTS, RAW, Attributes, Binding, Bound, Flame, Layers, Parts, Phi, Psi

FEATURES, HIDDEN = 48, 96
CORRECTIVES = 9 * (JOINTS - 1)
PARENTS = (-1, 0, 1, 1, 1)
"""Of FLAME's joints."""


def _decode(n, people, frames, storage, draw, own_prior=False):
    return {
        "f": draw(people * frames, n, FEATURES).to(storage), "prior": draw(people if own_prior else 1, n, RAW),
        "u1": draw(HIDDEN, FEATURES, std=0.2), "c1": draw(HIDDEN, std=0.2), "u2": draw(RAW, HIDDEN, std=0.2), "c2": draw(RAW),
    }  # fmt: skip


def _local_fusion(n, people, frames, storage, draw, own_prior=False, basis=FEATURES, hidden=HIDDEN):
    rows = people * frames
    return _decode(n, people, 1, storage, draw, own_prior) | {
        "basis": draw(people, n, basis).to(storage), "gain": draw(rows, basis), "bias": draw(rows, hidden),
        "w1": draw(hidden, basis, std=0.2), "w2": draw(FEATURES, hidden, std=0.1), "b2": draw(FEATURES, std=0.1),
    }  # fmt: skip


def _phi(x) -> Phi:
    return Phi(x["u1"], x["c1"], x["u2"], x["c2"])


def _with_change(attributes: Attributes, delta: Tensor | None) -> tuple[Tensor, ...]:
    """δf is an output where gradients can reach it."""
    if not torch.is_grad_enabled():
        return attributes
    assert delta is not None
    return (*attributes, delta)


def _call_local_fusion(x) -> tuple[Tensor, ...]:
    psi = Psi(x["w1"], x["w2"], x["b2"])
    attributes, delta = kernels.local_fusion(x["basis"], x["gain"], x["bias"], x["f"], psi, _phi(x), x["prior"])
    return _with_change(attributes, delta)


def _spatial_fusion(n, people, frames, storage, draw, basis=FEATURES, hidden=HIDDEN):
    rows = people * frames
    return {
        "basis": draw(people, n, basis).to(storage), "gain": draw(rows, basis), "bias": draw(rows, hidden),
        "w1": draw(hidden, basis, std=0.2), "w2": draw(9, hidden, std=0.05), "b2": draw(9, std=0.1),
        "means": draw(people, n, 3), "quats": draw(people, n, 4), "scales": draw(people, n, 3).exp(),
    }  # fmt: skip


def _attribute_fusion(n, people, frames, storage, draw, **sizes):
    return _spatial_fusion(n, people, frames, storage, draw, **sizes) | {
        "w2": draw(13, sizes.get("hidden", HIDDEN), std=0.05), "b2": draw(13, std=0.1),
        "opacities": draw(people, n).sigmoid(), "colors": draw(people, n, 3),
    }  # fmt: skip


def _call_spatial_fusion(x) -> tuple[Tensor, ...]:
    psi, still = Psi(x["w1"], x["w2"], x["b2"]), Bound(x["means"], x["quats"], x["scales"])
    return kernels.spatial_fusion(x["basis"], x["gain"], x["bias"], psi, still)


def _call_attribute_fusion(x) -> tuple[Tensor, ...]:
    psi, still = Psi(x["w1"], x["w2"], x["b2"]), Attributes(*(x[k] for k in Attributes._fields))
    return kernels.spatial_fusion(x["basis"], x["gain"], x["bias"], psi, still)


def _flame_skinning(
    n, people, frames, storage, draw, vertices=5023, n_shape=300, n_expression=100, given=None, aligned=True
):
    """given: coefficients of expression. aligned: rows of the directions padded to 128 bytes, as `FlameModel` stores them."""
    rows, padding = people * frames, -vertices % 32 if aligned else 0
    pose = draw(rows, 15, std=0.6)
    pose[0, :6] = torch.tensor([0, 0, 0, 4.0, -3, 5])  # no turn at all, and more than one
    directions = draw(n_shape + n_expression + CORRECTIVES, 3, vertices, std=0.01)
    return {
        "expression": draw(rows, given or n_expression), "pose": pose, "template": draw(people, vertices, 3, std=0.15),
        "directions": torch.nn.functional.pad(directions, (0, padding)), "weights": (2 * draw(vertices, 5)).softmax(-1),
        "joints": draw(people, 5, 3, std=0.1), "joint_shapes": draw(n_shape, 5, 3, std=0.01),
        "joint_expressions": draw(n_expression, 5, 3, std=0.01),
    }  # fmt: skip


def _flame_skinning_shape(n, people, frames, storage, draw, n_shape=300, **sizes):
    x = _flame_skinning(n, people, frames, storage, draw, n_shape=n_shape, **sizes)
    return x | {"shape": draw(people * frames, n_shape)}


def flame(x: dict[str, Any]) -> Flame:
    """The head in the inputs of `flame_skinning`."""
    tensors = {k: x[k] for k in Flame._fields if k != "parents"}
    return Flame(**tensors, parents=PARENTS)


def _call_flame_skinning(x) -> tuple[Tensor, ...]:
    return kernels.flame_skinning(x["expression"], x["pose"], flame(x), x.get("shape"))


def _flame_skinning_bytes(x, out) -> int:
    """Directions without a coefficient are not read; vertices are written in rows of four floats, as Gaussians read them."""
    read = x | {
        "directions": x["directions"][: sum(x[k].shape[1] for k in ("expression", "shape") if k in x) + CORRECTIVES]
    }
    if "shape" not in x:
        del read["joint_shapes"]
    posed, unposed, transforms = out
    return bytes_moved(read, transforms) + sum(16 * t[..., 0].numel() for t in (posed, unposed))


def _bind_gaussians(n, people, frames, storage, draw, vertices=5023, triangles=9976):
    """Neighbours are on triangles far from each other, which is harder on the caches than a lifted image."""
    half = vertices // 2
    first, second, third = (
        draw.below(vertices, triangles),
        draw.below(half - 1, triangles),
        draw.below(half - 1, triangles),
    )
    corners = torch.stack([first, first + 1 + second, first + half + third], -1) % vertices  # distinct
    return {
        "vertices": draw(people * frames, vertices, 4)[..., :3],  # as flame_skinning gives them
        "faces": corners, "triangles": draw.below(triangles, people, n),
        "means": draw(people, n, 3), "quats": draw(people, n, 4), "scales": draw(people, n, 3).exp(),
    }  # fmt: skip


def _call_bind_gaussians(x) -> tuple[Tensor, ...]:
    return kernels.bind_gaussians(x["vertices"], x["faces"], x["triangles"], Bound(x["means"], x["quats"], x["scales"]))


def _blend_gaussians(n, people, frames, storage, draw, vertices=5023, hidden=64, near=4):
    rows = people * frames
    return {
        "means": draw(people, n, 3), "quats": draw(people, n, 4), "scales": draw(people, n, 3).exp(),
        "opacities": draw(people, n).sigmoid(), "colors": draw(people, n, 3), "near": draw.below(vertices, people, near, n),
        "weights": draw(people, near, n).softmax(1), "joints": (2 * draw(people, 5, n)).softmax(1),
        "hidden": draw(people, n, hidden).to(storage), "readout": draw(rows, 16, hidden, std=0.05),
        "bias": draw(rows, 16, std=0.2), "unposed": draw(rows, vertices, 4)[..., :3],
        "transforms": draw(rows, 5, 4, 4, std=0.2) + torch.eye(4, device=draw.generator.device),
    }  # fmt: skip


def _call_blend_gaussians(x) -> tuple[Tensor, ...]:
    base, binding = Attributes(*(x[k] for k in Attributes._fields)), Binding(x["near"], x["weights"], x["joints"])
    return kernels.blend_gaussians(
        base, binding, *(x[k] for k in ("hidden", "readout", "bias", "unposed", "transforms"))
    )


UNFOLDED = ("tokens", "wq", "wk", "wv", "wo", "norm_gain", "norm_bias")
"""Inputs of `cross_attention` that only the others read: attention as it is usually written."""


def _cross_attention(
    n, people, frames, storage, draw, own_prior=False, tokens=32, layers=2, heads=3, hidden=HIDDEN, std=0.15
):
    rows, D = people * frames, FEATURES
    x = {k: draw(layers, D, D, std=std) for k in ("wq", "wk", "wv", "wo")}
    x |= {
        "tokens": draw(rows, tokens, D),
        "norm_gain": 1 + draw(layers, D, std=0.1),
        "norm_bias": draw(layers, D, std=0.1),
    }
    q, k, v = (x[w].unflatten(1, (heads, -1)) for w in ("wq", "wk", "wv"))  # [L,A,d,D]
    meet = q.mT @ k / q.shape[2] ** 0.5
    o = x["wo"].unflatten(2, (heads, -1)).movedim(2, 1)  # [L,A,D,d]
    of_tokens = lambda w: torch.einsum("laij,ftj->flati", w, x["tokens"])  # noqa: E731
    return _decode(n, people, 1, storage, draw, own_prior) | x | {
        "x0": draw(people, n, D).to(storage), "keys": of_tokens(x["norm_gain"][:, None, :, None] * meet),
        "score": of_tokens(x["norm_bias"][:, None, None] @ meet)[..., 0], "values": of_tokens(o @ v),
        "o": draw(layers, D, std=0.3), "w1": draw(layers, hidden, D, std=0.2), "b1": draw(layers, hidden, std=0.3),
        "w2": draw(layers, D, hidden, std=0.1), "b2": draw(layers, D, std=0.3), "out": draw(D, D, std=0.1), "c": draw(D),
    }  # fmt: skip


def layers(x: dict[str, Any]) -> Layers:
    return Layers(*(x[k] for k in Layers._fields))


def _call_cross_attention(x) -> tuple[Tensor, ...]:
    keys, score, values = x["keys"], x["score"], x["values"]
    attributes, delta = kernels.cross_attention(x["x0"], keys, score, values, x["f"], layers(x), _phi(x), x["prior"])
    return _with_change(attributes, delta)


def _cross_attention_bytes(x, out) -> int:
    return bytes_moved({k: v for k, v in x.items() if k not in UNFOLDED}, out)


def _unfolded(x, attend: Callable[[Tensor, Tensor, Tensor], Tensor]) -> tuple[Tensor, ...]:
    """`cross_attention` from queries [F,A,N,d], keys and values [F,A,T,d]."""
    of = x["f"].dtype
    rows, heads = x["keys"].shape[0], x["keys"].shape[2]
    split = lambda t, w: F.linear(t, w.to(of)).unflatten(-1, (heads, -1)).transpose(1, 2)  # noqa: E731
    own = lambda t: t.repeat_interleave(rows // len(t), 0)  # noqa: E731
    state, tokens = own(x["x0"]), x["tokens"].to(of)
    for l in range(len(x["o"])):  # noqa: E741
        o, w1, b1, w2, b2, gain, bias = (
            x[k][l].to(of) for k in ("o", "w1", "b1", "w2", "b2", "norm_gain", "norm_bias")
        )
        n = F.layer_norm(state, state.shape[-1:], gain, bias)
        mixed = attend(split(n, x["wq"][l]), split(tokens, x["wk"][l]), split(tokens, x["wv"][l]))
        state = state + F.linear(mixed.transpose(1, 2).flatten(2), x["wo"][l].to(of), o)
        n = F.layer_norm(state, state.shape[-1:])
        state = state + F.linear(F.softplus(F.linear(n, w1, b1)), w2, b2)
    delta = F.linear(state, x["out"].to(of), x["c"].to(of))
    attributes = kernels.reference.decode(own(x["f"]) + delta, _phi(x), x["prior"])
    return _with_change(attributes, delta)


def _sdpa(x) -> tuple[Tensor, ...]:
    return _unfolded(x, F.scaled_dot_product_attention)


@functools.cache
def _compiled_flex() -> Callable:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(functools.partial(_unfolded, attend=flex_attention), dynamic=False)


def _flex(x) -> tuple[Tensor, ...]:
    """FlexAttention writes the product out in memory unless it is compiled."""
    return _compiled_flex()(x)


def _part_blendshapes(n, people, frames, storage, draw, parts=256, hidden=64, near=3):
    return {
        "f": draw(people, n, FEATURES).to(storage), "hidden": draw(people, n, hidden).to(storage),
        "index": draw.below(parts, people, near, n), "weights": draw(people, near, n).softmax(1),
        "gains": draw(people * frames, parts, hidden), "readout": draw(FEATURES, hidden, std=0.1),
    }  # fmt: skip


def _call_part_blendshapes(x) -> tuple[Tensor, ...]:
    parts = Parts(x["index"], x["weights"])
    return (kernels.part_blendshapes(x["f"], x["hidden"], parts, x["gains"], x["readout"]),)


def _row_norm(n, people, frames, storage, draw, width=FEATURES, beside=FEATURES):
    """The first `width` columns of wider rows."""
    return {"x": 3 + 2 * draw(people * frames, n, width + beside).to(storage)[..., :width]}


def _norm_silu(n, people, frames, storage, draw, channels=96, groups=8, rows=1):
    """Pictures of n pixels, in channels-last memory."""
    x = 1 + 2 * draw(people * frames, rows, n // rows, channels).to(storage).movedim(-1, 1)
    return {"x": x, "weight": 1 + draw(channels, std=0.3), "bias": draw(channels), "groups": groups}


def _mean_norm(n, people, frames, storage, draw, width=FEATURES):
    return {"rows": draw(people * frames, n, width).to(storage)}


def _ssim(n, people, frames, storage, draw, rows=3, channels=3):
    """Pictures of n columns, smooth as rendered ones are and near each other, and windows that are wider than they are high."""
    size = people * frames, rows, n, channels
    smooth = draw(*size).abs().cumsum(1).cumsum(2)
    smooth = smooth / smooth.amax((1, 2, 3), keepdim=True)
    window = lambda k: (torch.eye(k, device=smooth.device) + 0.1 * draw(k, k).abs()).softmax(-1)  # noqa: E731
    near = (smooth + draw(*size, std=0.05)).clamp(0, 1)
    x = {"pred": near, "target": smooth, "rows": window(rows), "columns": window(n)}
    return {k: v.to(storage) for k, v in x.items()}


def case(name: str) -> Case:
    return next(c for c in (*CASES, *OF_TRAINING) if c.name == name)


_PHI_FLOPS = 2 * (FEATURES * HIDDEN + HIDDEN * RAW)
_SKIN_FLOPS = 2 * 12 * JOINTS + 2 * 9
_FLAME = {"batches": (32,), "rounding": 3e-7}
CASES = [
    Case("decode", _decode, lambda x: kernels.decode(x["f"], _phi(x), x["prior"]), ("f", "u1", "c1", "u2", "c2", "prior"),
         _PHI_FLOPS),
    Case("local_fusion", _local_fusion, _call_local_fusion,
         ("basis", "gain", "bias", "f", "w1", "w2", "b2", "u1", "c1", "u2", "c2", "prior"),
         _PHI_FLOPS + 4 * FEATURES * HIDDEN),
    Case("spatial_fusion", _spatial_fusion, _call_spatial_fusion,
         ("basis", "gain", "bias", "w1", "w2", "b2", *Bound._fields), 2 * (FEATURES + 9) * HIDDEN + 36),
    Case("attribute_fusion", _attribute_fusion, _call_attribute_fusion,
         ("basis", "gain", "bias", "w1", "w2", "b2", *Attributes._fields), 2 * (FEATURES + 13) * HIDDEN + 46),
    Case("cross_attention", _cross_attention, _call_cross_attention,
         ("x0", "keys", "score", "values", "f", *Layers._fields, "u1", "c1", "u2", "c2", "prior"),
         _PHI_FLOPS + 2 * (4 * 3 * 32 * FEATURES + 4 * FEATURES * HIDDEN) + 2 * FEATURES**2, _cross_attention_bytes,
         others={"sdpa": _sdpa, "flex": _flex}),
    Case("flame_skinning", _flame_skinning, _call_flame_skinning, ("expression", "pose", "template", "joints"),
         2 * 3 * (100 + CORRECTIVES) + _SKIN_FLOPS, _flame_skinning_bytes, per_gaussian=False, **_FLAME),
    Case("flame_skinning_shape", _flame_skinning_shape, _call_flame_skinning,
         ("expression", "pose", "template", "joints", "shape"),
         2 * 3 * (300 + 100 + CORRECTIVES) + _SKIN_FLOPS, _flame_skinning_bytes, per_gaussian=False, **_FLAME),
    Case("bind_gaussians", _bind_gaussians, _call_bind_gaussians, ("vertices", "means", "quats", "scales"), 135, **_FLAME),
    Case("blend_gaussians", _blend_gaussians, _call_blend_gaussians,
         (*Attributes._fields, "hidden", "readout", "bias", "unposed", "transforms"),
         2 * 64 * RAW + 2 * 12 * JOINTS + 120, **_FLAME),
    Case("part_blendshapes", _part_blendshapes, _call_part_blendshapes, ("f", "hidden", "gains", "readout"),
         2 * 64 * (FEATURES + 3) + 64 + FEATURES),
]  # fmt: skip
OF_TRAINING = [
    Case("row_norm", _row_norm, lambda x: (kernels.row_norm(x["x"]),), ("x",), 8 * FEATURES),
    Case("norm_silu", _norm_silu, lambda x: (kernels.norm_silu(x["x"], x["weight"], x["bias"], x["groups"]),),
         ("x", "weight", "bias"), 12),
    Case("mean_norm", _mean_norm, lambda x: (kernels.mean_norm(x["rows"]),), ("rows",), 2 * FEATURES),
    Case("ssim", _ssim, lambda x: (kernels.ssim(x["pred"], x["target"], x["rows"], x["columns"]),), ("pred",), 4 * 3 * 3),
]  # fmt: skip
"""Ops that no frame of an animated avatar waits for: held to their twins as the others, and not timed."""
