"""The embedded world: a seeded family of human heads made from nothing but formulas.

A head is the template of `procedural_mesh`, bent by ~30 smooth identity fields, moved by 52 expression fields and five
joints. On top come effects that no linear basis holds: lids that slide around the eyeball, lips that press and pull in,
correctives for expressions that meet, amplitudes that differ from person to person.
"""

from __future__ import annotations

from functools import cached_property, lru_cache

import numpy as np
from jaxtyping import Float

from i4d_bench.heads import appearance
from i4d_bench.heads import procedural_mesh as mesh
from i4d_bench.heads.appearance import Appearance, Regions
from i4d_bench.heads.base import REGIONS, HeadIdentity, Surface
from i4d_bench.heads.expressions import INDEX
from i4d_bench.heads.posing import pose, skin, vertex_normals
from i4d_bench.heads.procedural_shapes import Shapes, push_off_eyeball

IRIS = 0.0165
"""Radius of the iris."""


class ProceduralWorld:
    """See `i4d_bench.heads.base.HeadWorld`."""

    name = "procedural"

    def __init__(self) -> None:
        t = mesh.template()
        self.faces = t.faces
        self._rest, self._parts = t.vertices, t.parts
        self.shapes = Shapes(t.vertices, t.parts)
        self.skin_weights = self.shapes.skin_weights

    @cached_property
    def regions(self) -> Regions:
        """The paint's fields on this mesh, evaluated on the closed, resting average head."""
        labels = np.select(
            [self._parts == mesh.EYE_LEFT, self._parts == mesh.EYE_RIGHT,
             np.isin(self._parts, (mesh.TEETH_UPPER, mesh.TEETH_LOWER)), self._parts == mesh.TONGUE, self.shapes.inner_mouth],
            [appearance.EYE_LEFT, appearance.EYE_RIGHT, appearance.TEETH, appearance.TONGUE, appearance.INNER_MOUTH],
            appearance.SKIN,
        )  # fmt: skip
        eyes = np.stack([mesh.EYE, mesh.EYE * (-1, 1, 1)])
        return Regions.of(self._rest + self.shapes.closing, labels.astype(np.uint8), eyes, IRIS)

    @cached_property
    def face_regions(self) -> np.ndarray:
        p, skin_ = np.abs(self._rest), self._parts == mesh.SKIN
        y, front = self._rest[:, 1], self._rest[:, 2] > 0.1
        eyes = ((p[:, 0] - 0.084) / 0.05) ** 2 + ((y - 0.14) / 0.034) ** 2 < 1
        mouth = (p[:, 0] / 0.07) ** 2 + ((y + 0.053) / 0.042) ** 2 < 1
        label = np.where(skin_ & front & eyes, REGIONS.index("eyes"), REGIONS.index("head"))
        label = np.where(skin_ & front & mouth, REGIONS.index("mouth"), label)
        label = np.where(np.isin(self._parts, (mesh.EYE_LEFT, mesh.EYE_RIGHT)), REGIONS.index("eyes"), label)
        label = np.where(
            np.isin(self._parts, (mesh.TEETH_UPPER, mesh.TEETH_LOWER, mesh.TONGUE)), REGIONS.index("mouth"), label
        )
        corners = label[self.faces]
        return np.where((corners == corners[:, :1]).all(1), corners[:, 0], REGIONS.index("head")).astype(np.uint8)

    @cached_property
    def landmarks(self) -> np.ndarray:
        on_skin = np.flatnonzero((self._parts == mesh.SKIN) & ~self.shapes.inner_mouth)
        rest = (self._rest + self.shapes.closing)[on_skin]
        return on_skin[((rest[None] - LANDMARKS[:, None]) ** 2).sum(-1).argmin(1)]

    def identity(self, seed: int) -> HeadIdentity:
        rng = np.random.default_rng([seed, 1])
        return HeadIdentity(
            seed,
            rng.normal(0, 1, len(self.shapes.identity)).clip(-2, 2),
            Appearance.sample(np.random.default_rng([seed, 2])),
        )

    def joints(self, identity: HeadIdentity) -> Float[np.ndarray, "5 3"]:
        return self.shapes.joints + np.tensordot(identity.shape, self.shapes.identity_joints, 1)

    def pose(self, expression: Float[np.ndarray, "52"]) -> Float[np.ndarray, "15"]:
        return pose(expression)

    def vertices(self, identity: HeadIdentity, expression, linear: bool = False) -> Float[np.ndarray, "V 3"]:
        neutral, volume, amplitude = self._person(identity.seed)
        joints, angles = self.joints(identity), pose(expression)
        if linear:
            return skin(neutral + self.shapes.express(expression), joints, angles, self.skin_weights)
        moved = neutral + volume + self.shapes.express(expression * amplitude) + self.shapes.corrective(expression)
        moved = push_off_eyeball(moved, self.shapes, joints, expression)
        return skin(moved, joints, angles, self.skin_weights)

    @lru_cache(maxsize=64)  # noqa: B019  (one world lives as long as the process)
    def _person(self, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Closed resting head, hair volume, and how strongly this person makes each expression."""
        identity = self.identity(seed)
        rng = np.random.default_rng([seed, 3])
        neutral = self._rest + self.shapes.closing + np.tensordot(identity.shape, self.shapes.identity, 1)
        hair = appearance.hair_mask(self._rest, identity.appearance) * (self._parts == mesh.SKIN)
        thick = rng.uniform(0.0, 0.035) * (0.7 + 0.3 * np.sin(self._rest @ rng.normal(0, 18, 3) + rng.uniform(0, 6)))
        volume = (hair * thick)[:, None] * vertex_normals(neutral, self.faces)
        return neutral, volume, rng.uniform(0.8, 1.15, len(INDEX))

    @lru_cache(maxsize=64)  # noqa: B019
    def _paint(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        return appearance.paint(self.regions, self.identity(seed).appearance)

    def surface(self, identity: HeadIdentity, expression, vertices) -> Surface:
        normals = vertex_normals(vertices, self.faces)
        return appearance.surface(self.regions, identity.appearance, self._paint(identity.seed), expression, normals)


def _landmarks() -> np.ndarray:
    """Where iBUG's 68 points lie on the average head (canonical), the subject's right side first."""
    right_jaw = [(-0.185, 0.10, 0.0), (-0.183, 0.05, 0.02), (-0.172, 0.0, 0.045), (-0.157, -0.045, 0.07), (-0.13, -0.09, 0.11),
                 (-0.095, -0.13, 0.15), (-0.06, -0.16, 0.185), (-0.03, -0.175, 0.205)]  # fmt: skip
    jaw = [*right_jaw, (0, -0.18, 0.21), *[(-x, y, z) for x, y, z in right_jaw[::-1]]]
    right_brow = [
        (-0.125, 0.18, 0.19),
        (-0.105, 0.195, 0.21),
        (-0.08, 0.2, 0.225),
        (-0.055, 0.195, 0.235),
        (-0.03, 0.185, 0.24),
    ]
    brows = [*right_brow, *[(-x, y, z) for x, y, z in right_brow[::-1]]]
    nose = [(0, 0.15, 0.235), (0, 0.11, 0.25), (0, 0.07, 0.275), (0, 0.035, 0.30),
            (-0.026, 0.012, 0.255), (-0.013, 0.008, 0.27), (0, 0.006, 0.28),
            (0.013, 0.008, 0.27), (0.026, 0.012, 0.255)]  # fmt: skip
    a, b = mesh.ALMOND
    eye = [(-a, 0.0), (-a / 3, b), (a / 3, b), (a, 0.0), (a / 3, -b), (-a / 3, -b)]
    eyes = [(s * mesh.EYE[0] + x, mesh.EYE[1] + y, 0.222) for s in (-1, 1) for x, y in eye]
    w, y, z = mesh.SLIT[0], mesh.MOUTH[1], mesh.MOUTH[2]
    half = [(-w, 0.0, 0.22), (-0.035, 0.013, z - 0.01), (-0.013, 0.021, z), (0, 0.018, z + 0.003)]
    outer = [(x, y + dy, d) for x, dy, d in half]  # over the upper lip to the left, back under the lower
    outer += [(-x, y + dy, d) for x, dy, d in half[2::-1]]
    outer += [(-x, y - dy - 0.005, d) for x, dy, d in half[1:]] + [(x, y - dy - 0.005, d) for x, dy, d in half[2:0:-1]]
    inner = [(-0.045, y, 0.225), (-0.018, y + 0.003, z), (0, y + 0.006, z), (0.018, y + 0.003, z), (0.045, y, 0.225),
             (0.018, y - 0.003, z), (0, y - 0.006, z), (-0.018, y - 0.003, z)]  # fmt: skip
    return np.array([*jaw, *brows, *nose, *eyes, *outer, *inner], float)


LANDMARKS = _landmarks()
