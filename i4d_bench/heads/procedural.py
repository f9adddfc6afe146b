"""The embedded world: a seeded family of human heads made from nothing but formulas.

A head is the template of `procedural_mesh`, bent by ~30 smooth identity fields, moved by 52 expression fields and five
joints. On top come effects that no linear basis holds: lids that slide on arcs around the eyeball and stop where they
meet, lips that press against each other and swell, correctives for expressions that meet, amplitudes that differ from
person to person.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float

from i4d_bench.heads import appearance
from i4d_bench.heads import procedural_mesh as mesh
from i4d_bench.heads.appearance import Appearance, Regions
from i4d_bench.heads.base import REGIONS, HeadIdentity, HeadWorld, Surface
from i4d_bench.heads.expressions import INDEX
from i4d_bench.heads.posing import pose, skin, vertex_normals
from i4d_bench.heads.procedural_field import ALMOND, EYE, MOUTH_HALF, mouth_line
from i4d_bench.heads.procedural_identity import FIELDS
from i4d_bench.heads.procedural_shapes import Lids, Shapes

IRIS = 0.0165
"""Radius of the iris."""
REMEMBERED = 64
"""People whose resting heads and paint are kept."""


@dataclass(frozen=True)
class _Person:
    """What is computed once per identity."""

    identity: HeadIdentity
    joints: np.ndarray
    linear: np.ndarray  # resting head of the linear model
    resting: np.ndarray  # the same with hair
    lids: list[Lids]
    amplitude: np.ndarray  # how strongly this person makes each expression
    painted: tuple[np.ndarray, np.ndarray]


class ProceduralWorld(HeadWorld):
    """See `i4d_bench.heads.base.HeadWorld`."""

    name = "procedural"

    def __init__(self) -> None:
        self.template = mesh.template()
        self.faces = self.template.faces
        self.shapes = Shapes(self.template)
        self.skin_weights = self.shapes.skin_weights
        self._fields, self._joint_fields = self._identity_fields()
        self._people: dict[int, _Person] = {}

    def _identity_fields(self) -> tuple[np.ndarray, np.ndarray]:
        """[K,V,3] and their values at the joints [K,5,3]. Eyeballs move as rigid bodies; teeth and tongue with the mouth."""
        where, parts = self.template.vertices.copy(), self.template.parts
        where[parts == mesh.EYE_LEFT], where[parts == mesh.EYE_RIGHT] = EYE, EYE * (-1, 1, 1)
        where[np.isin(parts, (mesh.TEETH_UPPER, mesh.TEETH_LOWER, mesh.GUM, mesh.TONGUE))] = (0, -0.055, 0.185)
        on_vertices, on_joints = (np.stack([field(q) for _, field in FIELDS]) for q in (where, self.shapes.joints))
        return on_vertices, on_joints

    @cached_property
    def regions(self) -> Regions:
        """The paint's fields on this mesh, evaluated on the average head."""
        parts = self.template.parts
        labels = np.full(len(parts), appearance.SKIN, np.uint8)
        for part, label in (
            (mesh.EYE_LEFT, appearance.EYE_LEFT), (mesh.EYE_RIGHT, appearance.EYE_RIGHT), (mesh.TEETH_UPPER, appearance.TEETH),
            (mesh.TEETH_LOWER, appearance.TEETH), (mesh.GUM, appearance.TONGUE), (mesh.TONGUE, appearance.TONGUE),
            (mesh.POCKET, appearance.INNER_MOUTH),
        ):  # fmt: skip
            labels[parts == part] = label
        t = self.template
        across = (np.abs(t.vertices[:, 0]) - EYE[0]) / ALMOND[0]
        lashes = np.zeros(len(parts))
        rims = np.unique(t.parent[parts == mesh.LID_EDGE])
        lashes[rims] = np.where(t.side[rims] > 0, 1.0, 0.3) * (1 - np.clip(np.abs(across[rims]), 0, 1) ** 6)
        return Regions.of(t.vertices, labels, np.stack([EYE, EYE * (-1, 1, 1)]), IRIS, lashes)

    @cached_property
    def face_regions(self) -> np.ndarray:
        p, parts = self.template.vertices, self.template.parts
        x, y, front = np.abs(p[:, 0]), p[:, 1], p[:, 2] > 0.1
        eyes = ((x - EYE[0]) / 0.05) ** 2 + ((y - 0.14) / 0.034) ** 2 < 1
        mouth = (x / 0.074) ** 2 + ((y + 0.053) / 0.042) ** 2 < 1
        inner = np.isin(parts, (mesh.POCKET, mesh.TEETH_UPPER, mesh.TEETH_LOWER, mesh.GUM, mesh.TONGUE))
        label = np.full(len(p), REGIONS.index("head"))
        label[(front & mouth) | inner] = REGIONS.index("mouth")
        label[(front & eyes) | np.isin(parts, (mesh.EYE_LEFT, mesh.EYE_RIGHT, mesh.LID_EDGE))] = REGIONS.index("eyes")
        corners = label[self.faces]
        return np.where((corners == corners[:, :1]).all(1), corners[:, 0], REGIONS.index("head")).astype(np.uint8)

    @cached_property
    def landmarks(self) -> np.ndarray:
        t = self.template
        on = np.flatnonzero(t.parts == mesh.SKIN)
        cost = ((t.vertices[on][None] - LANDMARKS[:, None]) ** 2).sum(-1)
        cost[65:68] += t.side[on] > 0  # the inner mouth's lower points lie on the lower lip's rim,
        cost[60:65] += t.side[on] < 0  # the upper ones on the upper lip's
        cost[60:68] += t.side[on] == 0
        return on[cost.argmin(1)]

    def identity(self, seed: int) -> HeadIdentity:
        rng = np.random.default_rng([seed, 1])
        return HeadIdentity(
            seed, rng.normal(0, 1, len(FIELDS)).clip(-2, 2), Appearance.sample(np.random.default_rng([seed, 2]))
        )

    def joints(self, identity: HeadIdentity) -> Float[np.ndarray, "5 3"]:
        return self.shapes.joints + np.tensordot(identity.shape, self._joint_fields, 1)

    def pose(self, expression: Float[np.ndarray, "52"]) -> Float[np.ndarray, "15"]:
        return pose(expression)

    def vertices(self, identity: HeadIdentity, expression, linear: bool = False) -> Float[np.ndarray, "V 3"]:
        person, angles = self._person(identity), pose(expression)
        if linear:
            points = person.linear.copy()
            self.shapes.express(expression, points)
            return skin(points, person.joints, angles, self.skin_weights)
        strength, points = expression * person.amplitude, person.resting.copy()
        self.shapes.express(strength, points)
        self.shapes.correct(expression, points)
        self.shapes.close_lids(person.lids, strength, points)
        points = skin(points, person.joints, angles, self.skin_weights)
        self.shapes.part_lips(points)
        return points

    def surface(self, identity: HeadIdentity, expression, vertices) -> Surface:
        normals = vertex_normals(vertices, self.faces)
        return appearance.surface(
            self.regions, identity.appearance, self._person(identity).painted, expression, normals
        )

    def _person(self, identity: HeadIdentity) -> _Person:
        """Remembered by the identity object itself (which the entry keeps alive), so that a changed copy is another person."""
        if id(identity) not in self._people:
            while len(self._people) >= REMEMBERED:
                del self._people[next(iter(self._people))]
            self._people[id(identity)] = self._meet(identity)
        return self._people[id(identity)]

    def _meet(self, identity: HeadIdentity) -> _Person:
        rng, t = np.random.default_rng([identity.seed, 3]), self.template
        linear = t.vertices + np.tensordot(identity.shape, self._fields, 1)
        hair = appearance.hair_mask(t.vertices, identity.appearance) * (t.parts == mesh.SKIN)
        locks = 0.75 + 0.25 * np.sin(t.vertices @ rng.normal(0, 18, 3) + rng.uniform(0, 6))
        volume = hair * locks * rng.uniform(0.004, 0.036)
        resting = linear + volume[:, None] * vertex_normals(linear, self.faces)
        amplitude = rng.uniform(0.8, 1.15, len(INDEX))
        amplitude[self.shapes.lid_shares.any((1, 2))] = 1.0  # everyone can close their eyes
        joints = self.joints(identity)
        return _Person(
            identity, joints, linear, resting, self.shapes.lids(resting, joints), amplitude,
            appearance.paint(self.regions, identity.appearance),
        )  # fmt: skip


def _landmarks() -> np.ndarray:
    """Where iBUG's 68 points lie on the average head (canonical), the subject's right side first."""
    mirror = lambda points: [(-x, y, z) for x, y, z in points[::-1]]  # noqa: E731
    jaw = [(-0.172, 0.10, 0.03), (-0.168, 0.05, 0.035), (-0.155, 0.0, 0.045), (-0.145, -0.045, 0.06), (-0.122, -0.09, 0.10),
           (-0.092, -0.13, 0.15), (-0.06, -0.16, 0.19), (-0.03, -0.175, 0.21)]  # fmt: skip
    brow = [
        (-0.125, 0.18, 0.19),
        (-0.105, 0.195, 0.21),
        (-0.08, 0.2, 0.225),
        (-0.055, 0.195, 0.235),
        (-0.03, 0.185, 0.24),
    ]
    wing = [(-0.026, 0.012, 0.255), (-0.013, 0.008, 0.265)]
    nose = [
        (0, 0.15, 0.235),
        (0, 0.11, 0.25),
        (0, 0.075, 0.275),
        (0, 0.04, 0.305),
        *wing,
        (0, 0.006, 0.265),
        *mirror(wing),
    ]
    a, b = ALMOND
    eye = [(-a, 0.0), (-a / 3, 0.95 * b), (a / 3, 0.95 * b), (a, 0.0), (a / 3, -0.85 * b), (-a / 3, -0.85 * b)]
    eyes = [(s * EYE[0] + x, EYE[1] + y, 0.223) for s in (-1, 1) for x, y in eye]
    lip = lambda x, dy, z: (x, mouth_line(x) + dy, z)  # noqa: E731
    top = [lip(-MOUTH_HALF, 0, 0.234), lip(-0.036, 0.018, 0.25), lip(-0.014, 0.024, 0.258)]
    low = [lip(0.036, -0.020, 0.245), lip(0.014, -0.028, 0.258)]
    outer = [*top, lip(0, 0.020, 0.262), *mirror(top), *low, lip(0, -0.030, 0.26), *mirror(low)]
    across = (-0.052, -0.022, 0, 0.022, 0.052, 0.022, 0, -0.022)
    return np.array([*jaw, (0, -0.18, 0.215), *mirror(jaw), *brow, *mirror(brow), *nose, *eyes, *outer,
                     *[lip(x, 0, 0.25) for x in across]], float)  # fmt: skip


LANDMARKS = _landmarks()
