"""What every head world offers: seeded people whose expression, appearance and geometry are known exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int, UInt8

REGIONS = ("background", "head", "eyes", "mouth")
"""Label of a pixel or a triangle. `eyes` holds lids, eyeballs and their surround; `mouth` lips, teeth, tongue, surround."""


@dataclass(frozen=True, eq=False)  # two are equal when they are one: worlds cache by identity
class HeadIdentity:
    """One person: everything that stays when the expression changes."""

    seed: int
    shape: Float[np.ndarray, " S"]  # coefficients of the world's own identity space
    appearance: Any  # i4d_bench.heads.appearance.Appearance


@dataclass(frozen=True)
class Surface:
    """What the mesh renderer shades, per vertex."""

    normals: Float[np.ndarray, "V 3"]  # unit, wrinkles included
    albedo: Float[np.ndarray, "V 3"]  # linear RGB, 0..1
    specular: Float[np.ndarray, " V"]  # 0..1


@runtime_checkable
class HeadWorld(Protocol):
    """A seeded family of heads (see i4d_bench.types for the canonical space)."""

    name: str
    faces: Int[np.ndarray, "F 3"]
    face_regions: UInt8[np.ndarray, " F"]  # index into REGIONS
    landmarks: Int[np.ndarray, "68"]  # vertex indices, iBUG order
    skin_weights: Float[np.ndarray, "V 5"]  # root, neck, jaw, left eye, right eye

    def identity(self, seed: int) -> HeadIdentity: ...

    def joints(self, identity: HeadIdentity) -> Float[np.ndarray, "5 3"]:
        """Rest positions of root, neck, jaw, left eye, right eye."""
        ...

    def pose(self, expression: Float[np.ndarray, "52"]) -> Float[np.ndarray, "15"]:
        """Axis-angle (radians) of the five joints that this expression implies (jaw opening, gaze)."""
        ...

    def vertices(
        self, identity: HeadIdentity, expression: Float[np.ndarray, "52"], linear: bool = False
    ) -> Float[np.ndarray, "V 3"]:
        """The posed mesh. `linear` leaves out every non-linear corrective but joint rotation: what a FLAME-format model can say."""
        ...

    def surface(
        self, identity: HeadIdentity, expression: Float[np.ndarray, "52"], vertices: Float[np.ndarray, "V 3"]
    ) -> Surface: ...
