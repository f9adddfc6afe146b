"""An avatar as a page's 3D viewer takes it, in small integers: at rest, and what changes towards named expressions.

A slider at its end shows what the design makes of that expression. In between, and with several at once, Gaussians are mixed
linearly: a blendshape design makes the same of such a face, the others something near it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int8

from i4d_bench.cache import atomic_file
from i4d_bench.config.experiment import World
from i4d_bench.heads import expressions
from i4d_bench.heads.flame import FlameModel
from i4d_bench.loader import Loader
from i4d_bench.model.avatar import Avatar
from i4d_bench.play.face import Face, named
from i4d_bench.play.film import lifted, people
from i4d_bench.reading import arrays, reading
from i4d_bench.types import Gaussians

FACES = ("smile", "open", "pucker", "frown", "blink", "raise", "look left")
"""Of `face.named`."""
PARTS = {"means": (3, "<i2"), "scales": (3, "<i2"), "colors": (4, "u1"), "quats": (4, "i1")}
"""Numbers of each Gaussian, colours with the opacity, and their type at rest."""
FINEST = 5e-4, 2.5e-4, 4 / 255, 0.01
"""Steps of a change that nobody sees: of a canonical unit (a head is about 0.6 high), of colours and of unit quaternions."""

Splats = dict[str, np.ndarray]
"""PARTS at rest, each [C,N], and unit [4], by which they are multiplied; change [E,14,N] int8 of all parts, and step [E,4], by
which it is; names [E]."""


@torch.no_grad()
def splats(avatar: Avatar, loader: Loader, head: FlameModel, world: World) -> Splats:
    """Of the first test person, with FACES. world: that of the data."""
    source, _ = people(loader)
    own = loader.code(source)
    assert own.flame is not None  # a rendered world's
    prepared = lifted(avatar, loader, head, source)
    face, known = Face(world, loader.driver, head, own.flame.shape), named()
    still = np.zeros(len(expressions.NAMES), np.float32)
    shown = [avatar.fusion.animate(prepared, face(values)) for values in (still, *(known[name] for name in FACES))]
    found = [change(shown[0], other) for other in shown[1:]]
    changes, steps = (np.stack(values) for values in zip(*found, strict=True))
    return rest(shown[0]) | {"change": changes, "step": steps, "names": np.array(FACES)}


def rest(gaussians: Gaussians) -> Splats:
    """Of one avatar."""
    whole, out, unit = parts(gaussians), {}, []
    for (name, (_, kind)), part in zip(PARTS.items(), whole, strict=True):
        unit.append(max(float(np.abs(part).max()), 1e-12) / np.iinfo(kind).max)
        out[name] = (part / unit[-1]).round().astype(kind)
    return out | {"unit": np.array(unit, np.float32)}


def change(start: Gaussians, end: Gaussians) -> tuple[Int8[np.ndarray, "14 N"], Float[np.ndarray, " 4"]]:
    """In steps of a 127th of the largest change of each part, but no finer than FINEST."""
    a, b = parts(start), list(parts(end))
    b[3] = b[3] * np.where((a[3] * b[3]).sum(0) < 0, -1, 1)  # q and -q turn alike
    by = [y - x for x, y in zip(a, b, strict=True)]
    step = np.array([max(float(np.abs(d).max()) / 127, fine) for d, fine in zip(by, FINEST, strict=True)], np.float32)
    return np.concatenate([(d / s).round() for d, s in zip(by, step, strict=True)]).astype(np.int8), step


def parts(gaussians: Gaussians) -> tuple[Float[np.ndarray, "_ N"], ...]:
    """Means, scales, colours with opacity in 0..1, quaternions, turned from canonical axes (y up, z out of the face) to the
    viewer's (y down)."""
    g = gaussians.detach().to("cpu", torch.float32)
    w, x, y, z = torch.nn.functional.normalize(g.quats[0], dim=-1).unbind(-1)
    half_turn_about_x = torch.stack([-x, w, -z, y], -1)
    colors = torch.cat([g.colors[0], g.opacities[0][:, None]], -1).clamp(0, 1)
    means = g.means[0] * torch.tensor([1.0, -1.0, -1.0])
    return tuple(t.T.numpy() for t in (means, g.scales[0], colors, half_turn_about_x))


def save(path: Path, found: Splats) -> None:
    """Raises UserError where it cannot be written."""
    with atomic_file(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **found)  # pyright: ignore[reportArgumentType]  (none is called allow_pickle)


def load(path: Path, wrong: str = "") -> Splats:
    """wrong: as of `reading`. Raises UserError for a damaged file, or another."""
    with reading(path, wrong):
        found = arrays(path, wrong)
        for part, (size, kind) in PARTS.items():
            if found[part].dtype != kind or found[part].shape != (size, found["means"].shape[1]):
                raise ValueError(f"its {part} are others than an avatar's")
        if found["unit"].shape != (len(PARTS),):
            raise ValueError("its unit is another than an avatar's")
    return found


def read(path: Path) -> Gaussians:
    """The avatar of a file at rest, in canonical axes, a batch of 1. Raises UserError for another file."""
    found = load(path, "holds no avatar")
    means, scales, colors, quats = (
        torch.from_numpy(found[part].T.astype(np.float32) * found["unit"][k]) for k, part in enumerate(PARTS)
    )
    x, w, z, y = (quats * quats.new_tensor([-1, 1, -1, 1])).unbind(-1)  # as `parts` turned them
    turned = torch.stack([w, x, y, z], -1)
    means = means * means.new_tensor([1.0, -1.0, -1.0])
    return Gaussians(means[None], turned[None], scales[None], colors[None, :, 3], colors[None, :, :3])
