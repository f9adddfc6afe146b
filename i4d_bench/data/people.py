"""Who is in a rendered world, what they do, from where they are seen, and the picture of it.

All of it depends on the world's seed, the split and the person's number there: whoever asks sees the same people.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from i4d_bench.camera import look_at, project
from i4d_bench.config.experiment import World
from i4d_bench.data.splits import SPLITS, TEST_KINDS, YAW, partner, rng
from i4d_bench.heads import expressions
from i4d_bench.heads.base import HeadIdentity, HeadWorld, Surface
from i4d_bench.render import mesh


class Person(NamedTuple):
    """`number`: in the whole data set. `index`: within the split."""

    number: int
    split: str
    index: int


class Pinhole(NamedTuple):
    """World → camera, and intrinsics in pixels."""

    viewmat: Float[np.ndarray, "4 4"]
    K: Float[np.ndarray, "3 3"]


def people(world: World) -> list[Person]:
    """Everyone in the data set, split by split."""
    out: list[Person] = []
    for split in SPLITS:
        out += [Person(len(out) + k, split, k) for k in range(getattr(world, f"{split}_identities"))]
    return out


def identity(world: World, head: HeadWorld, person: Person) -> HeadIdentity:
    return head.identity(int(rng(world.seed, person.split, person.index, "person").integers(2**31)))


def light(world: World, person: Person) -> mesh.Light:
    """What shines on this person in every picture."""
    return mesh.Light.sample(rng(world.seed, person.split, person.index, "light"))


def performed(world: World, person: Person) -> Float[np.ndarray, "E 52"]:
    """Coefficients of one person's expressions."""
    split, index = person.split, person.index
    kinds: list[expressions.Kind] = ["train"] * world.expressions
    if split != "train":
        kinds = [k for k in TEST_KINDS if k != "partner"]
    own = [expressions.sample(rng(world.seed, split, index, "expression", e), k) for e, k in enumerate(kinds)]
    if split != "train":
        other = partner(index, getattr(world, f"{split}_identities"))
        own.append(expressions.sample(rng(world.seed, split, other, "expression", 1), kinds[1]))
    return np.stack(own).astype(np.float32)


def camera(world: World, person: Person, expression: int, view: int) -> Pinhole:
    """From where the data set sees this person with this expression. `view`: in training all but the first are side views."""
    r = rng(world.seed, person.split, person.index, "view", expression, view)
    return orbit(r, view if person.split != "train" else min(view, 1), world.resolution)


def orbit(r: np.random.Generator, view: int, size: int) -> Pinhole:
    """A camera of the kind `view` of YAW, on either side, up to 10° above or below."""
    low, high = YAW[view]
    yaw = r.uniform(low, high) * r.choice([-1, 1])
    return Pinhole(*look_at(yaw, r.uniform(-10, 10), size=size))


def picture(
    head: HeadWorld,
    vertices: Float[np.ndarray, "V 3"],
    surface: Surface,
    expression: Float[np.ndarray, "52"],
    camera: Pinhole,
    size: int,
    light: mesh.Light,
) -> dict[str, np.ndarray]:
    """What a data set holds of one frame (`frames.ARRAYS` and depth), but for who and which expression it is."""
    image = mesh.render_mesh(vertices, head.faces, surface, head.face_regions, *camera, size, size, light)
    return {
        "rgb": eight_bits(image.rgb),
        "alpha": eight_bits(image.alpha),
        "region": image.region,
        "depth": image.depth.astype(np.float16),
        "viewmats": camera.viewmat.astype(np.float32),
        "Ks": camera.K.astype(np.float32),
        "coefficients": expression,
        "landmarks": project(vertices[head.landmarks], *camera).astype(np.float32),
    }


def eight_bits(image: np.ndarray) -> np.ndarray:
    """0..1 as 0..255."""
    return np.rint(image.clip(0, 1) * 255).astype(np.uint8)
