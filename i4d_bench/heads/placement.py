"""The units and axes of somebody's FLAME file, recognised from the head in it: people scale, flip and convert these files.

FLAME's own are in metres, x to the subject's left, y up, z out of the face. A head elsewhere is recognised by the distance
of its eyes and by where nose, crown and neck lie from them, in one of the 48 ways to name, flip and mirror three axes.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from i4d_bench.types import UserError

UNITS = {"metres": 1.0, "centimetres": 100.0, "millimetres": 1000.0}
"""How many of each make a metre."""
EYES_APART = (0.05, 0.08)
"""Metres between the centres of an adult's eyes, at least and at most (FLAME's average head: about 0.063)."""
COMPONENT = (0.003, 1.0)
"""Mean displacement of a head's strongest component over the distance of its eyes, at least and at most."""
NECK, LEFT_EYE, RIGHT_EYE = 1, 3, 4


@dataclass(frozen=True)
class Placement:
    """How a file's positions become FLAME's own metres: axes @ position / per_metre. note: what that changes, or empty."""

    axes: Float[np.ndarray, "3 3"]
    per_metre: float
    note: str

    def __call__(self, vectors: Float[np.ndarray, "V 3 *K"]) -> Float[np.ndarray, "V 3 *K"]:
        return np.einsum("ij,vj...->vi...", self.axes, vectors) / self.per_metre


def recognise(
    template: Float[np.ndarray, "V 3"], components: Float[np.ndarray, "V 3 K"], joints: Float[np.ndarray, "5 3"]
) -> Placement:
    """Of a FLAME-format head: its template, its shape and expression components and its joints at rest.

    Raises UserError for what is no head in any unit or axes known here, or whose components are in another unit.
    """
    between = float(np.linalg.norm(joints[LEFT_EYE] - joints[RIGHT_EYE]))
    unit = next((u for u, n in UNITS.items() if EYES_APART[0] <= between / n <= EYES_APART[1]), None)
    if unit is None:
        raise UserError(f"its eyes are {between:.3g} apart, which a head's are in none of {', '.join(UNITS)}")
    middle = (joints[LEFT_EYE] + joints[RIGHT_EYE]) / 2
    vertices, joints = ((x - middle) / between for x in (template, joints))
    axes = [a for a in every_axes() if _stands(vertices @ a.T, joints @ a.T)]
    if len(axes) != 1:
        raise UserError(
            "nose, crown and neck do not lie around its eyes as a head's do, however its axes are named and flipped"
        )
    strongest = float(np.sqrt((components**2).sum(1).mean(0)).max()) / between
    if not COMPONENT[0] <= strongest <= COMPONENT[1]:
        raise UserError(
            f"its strongest component moves the head by {strongest:.2g} of the distance between its eyes: "
            f"template and components seem to be in different units"
        )
    changes = [f"it is in {unit}"] if unit != "metres" else []
    if not np.array_equal(axes[0], np.eye(3)):
        changes.append(f"its axes are {_described(axes[0])}" + (", mirrored" if np.linalg.det(axes[0]) < 0 else ""))
    return Placement(axes[0], UNITS[unit], ", ".join(changes))


def inside_out(vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"]) -> bool:
    """Whether the triangles of a (nearly) closed surface are wound the other way: its signed volume is negative."""
    a, b, c = (vertices - vertices.mean(0))[faces.T]
    return float((a * np.cross(b, c)).sum()) < 0


def every_axes() -> list[Float[np.ndarray, "3 3"]]:
    """All signed permutations."""
    eye = np.eye(3)
    signs = itertools.product((1.0, -1.0), repeat=3)
    return [np.array(s)[:, None] * eye[list(p)] for s in signs for p in itertools.permutations(range(3))]


def _stands(vertices: Float[np.ndarray, "V 3"], joints: Float[np.ndarray, "5 3"]) -> bool:
    """Whether a head, measured from between its eyes in their distance, stands as FLAME's own does."""
    left = joints[LEFT_EYE] - joints[RIGHT_EYE]
    nose = vertices[vertices[:, 2].argmax()]
    return bool(
        left[0] > 0.97
        and abs(nose[0]) < 0.5
        and -1.3 < nose[1] < 0.1
        and 0.3 < nose[2] < 1.5
        and 1 < vertices[:, 1].max() < 3.5
        and vertices[:, 2].min() < -1.5
        and joints[NECK, 1] < -0.5
        and joints[NECK, 2] < 0
    )


def _described(axes: Float[np.ndarray, "3 3"]) -> str:
    """Where x, y and z of the file point."""
    towards = (("the subject's left", "the subject's right"), ("up", "down"), ("out of the face", "out of the back"))
    rows = np.abs(axes).argmax(0)
    return ", ".join(f"{n} {towards[r][int(axes[r, k] < 0)]}" for k, (n, r) in enumerate(zip("xyz", rows, strict=True)))
