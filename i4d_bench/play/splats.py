"""An avatar as a page's 3D viewer takes it: Gaussians in 32 bytes each at rest, and what changes towards named expressions.

A slider at its end shows what the design makes of that expression. In between, and with several at once, Gaussians are mixed
linearly: a blendshape design makes the same of such a face, the others something near it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int8, UInt8

from i4d_bench.cache import atomic_file
from i4d_bench.config.experiment import World
from i4d_bench.heads import expressions
from i4d_bench.heads.flame import FlameModel
from i4d_bench.loader import Loader
from i4d_bench.model.avatar import Avatar
from i4d_bench.play.face import Face, named
from i4d_bench.play.film import people
from i4d_bench.types import Gaussians

FACES = ("smile", "open", "pucker", "frown", "blink", "raise", "look left")
"""Of `face.named`."""
ROW = np.dtype([("mean", "<f4", 3), ("scale", "<f4", 3), ("color", "u1", 4), ("quat", "u1", 4)])
"""As .splat files have it: position, scales, RGB and opacity, quaternion wxyz."""
CHANGES = (3, 3, 4, 4)
"""Columns of the change of means, scales, colours with opacity, and quaternions."""

Splats = dict[str, np.ndarray]
"""rows [N,32] uint8; change [E,N,14] int8 and step [E,4] float32, by which its parts CHANGES are multiplied; names [E]."""


@torch.no_grad()
def splats(avatar: Avatar, loader: Loader, head: FlameModel, world: World) -> Splats:
    """Of the first test person, with FACES. world: that of the data."""
    source, _ = people(loader)
    own = loader.code(source)
    assert own.flame is not None  # a rendered world's
    identity = avatar.backbone.lift(loader.sources(source, avatar.backbone.config.size), head=head)
    prepared = avatar.fusion.prepare(identity, own)
    face, known = Face(world, loader.driver, head, own.flame.shape), named()
    rest = np.zeros(len(expressions.NAMES), np.float32)
    shown = [avatar.fusion.animate(prepared, face(values)) for values in (rest, *(known[name] for name in FACES))]
    start, *others = (parts(g) for g in shown)
    found = [_change(start, other) for other in others]
    return {
        "rows": rows(shown[0]),
        "change": np.stack([c for c, _ in found]),
        "step": np.stack([s for _, s in found]),
        "names": np.array(FACES),
    }


def rows(gaussians: Gaussians) -> UInt8[np.ndarray, "N 32"]:
    """Of one avatar."""
    means, scales, colors, quats = parts(gaussians)
    out = np.zeros(len(means), ROW)
    out["mean"], out["scale"], out["color"] = means, scales, (colors * 255).round()
    out["quat"] = (quats * 128 + 128).round().clip(0, 255)
    return out.view(np.uint8).reshape(len(out), -1)


def parts(gaussians: Gaussians) -> tuple[Float[np.ndarray, "N _"], ...]:
    """Means, scales, colours with opacity in 0..1, quaternions, turned from canonical axes (y up, z out of the face) to the
    viewer's (y down)."""
    g = gaussians.detach().to("cpu", torch.float32)
    w, x, y, z = torch.nn.functional.normalize(g.quats[0], dim=-1).unbind(-1)
    half_turn_about_x = torch.stack([-x, w, -z, y], -1)
    colors = torch.cat([g.colors[0], g.opacities[0][:, None]], -1).clamp(0, 1)
    means = g.means[0] * torch.tensor([1.0, -1.0, -1.0])
    return tuple(t.numpy() for t in (means, g.scales[0], colors, half_turn_about_x))


def _change(
    start: tuple[np.ndarray, ...], end: tuple[np.ndarray, ...]
) -> tuple[Int8[np.ndarray, "N 14"], Float[np.ndarray, " 4"]]:
    """In steps of a 127th of the largest change of each part."""
    a, b = list(start), list(end)
    b[3] = b[3] * np.sign((a[3] * b[3]).sum(-1, keepdims=True) + 1e-12)  # q and -q turn alike
    by = [y - x for x, y in zip(a, b, strict=True)]
    step = np.array([max(float(np.abs(d).max()), 1e-12) / 127 for d in by], np.float32)
    return np.concatenate([(d / s).round() for d, s in zip(by, step, strict=True)], 1).astype(np.int8), step


def save(path: Path, found: Splats) -> None:
    """Raises UserError where it cannot be written."""
    with atomic_file(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **found)  # pyright: ignore[reportArgumentType]  (none is called allow_pickle)


def load(path: Path) -> Splats:
    with np.load(path) as stored:
        return {name: stored[name] for name in stored.files}
