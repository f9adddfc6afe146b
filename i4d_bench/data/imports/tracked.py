"""What a tracker knows of a picture, and what a data set wants to know: coefficients, camera and crop on the user's FLAME file.

Canonical space moves with the head (i4d_bench.types), so the turn of root and neck goes into the camera and jaw and eyes stay
in the coefficients. That is exact for all that hangs on neck, jaw and eyes; the collar, which hangs on the root, goes with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, UInt8

from i4d_bench.camera import FOV, RADIUS
from i4d_bench.data.video.headfit import RISE
from i4d_bench.heads.flame import METRES, FlameModel
from i4d_bench.heads.transfer import lay_over
from i4d_bench.heads.worlds import exported_head, head_world
from i4d_bench.types import UserError

NECK, JAW = 1, 6
"""The joint that carries the head, and where in a pose the angles below it begin."""
BATCH = 64
"""Meshes posed at a time."""
SIDE = 2 * RADIUS * np.tan(np.radians(FOV) / 2)
"""Of what the canonical camera sees in the plane z = 0, canonical units."""


@dataclass(frozen=True)
class Shot:
    """One picture as a tracker left it.

    image, mask: open the files; UserError where they cannot. mask is None where there are none. size: (width, height) of K.
    viewmat: FLAME's own head space (metres, the root's turn included in the pose) → camera, OpenCV axes.
    """

    label: str
    number: int  # of the frame in time
    image: Callable[[], UInt8[np.ndarray, "H W 3"]]
    mask: Callable[[], UInt8[np.ndarray, "H W"]] | None
    shape: Float[np.ndarray, " S"]
    expression: Float[np.ndarray, " E"]
    pose: Float[np.ndarray, "15"]
    viewmat: Float[np.ndarray, "4 4"]
    K: Float[np.ndarray, "3 3"]
    size: tuple[float, float]


@dataclass
class Take:
    """One person: pictures in the order of time, and the labels of those that cannot be used, with the reason.

    content: what stands for the files' content. splits: each shot's, by the names of splits.SPLITS, where the data say so.
    """

    name: str
    content: str
    shots: list[Shot] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    splits: list[str] | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Placed:
    """Shots in canonical space. viewmats: canonical space → camera, in canonical units. landmarks: of the mesh, iBUG order."""

    shape: Float[np.ndarray, "F S"]
    expression: Float[np.ndarray, "F E"]
    pose: Float[np.ndarray, "F 15"]
    viewmats: Float[np.ndarray, "F 4 4"]
    landmarks: Float[np.ndarray, "F 68 3"]


class Head:
    """The user's FLAME file, as an importer needs it."""

    def __init__(self, model: FlameModel):
        self.model = model
        known = exported_head("procedural")
        template = model.v_template.double().numpy()
        match = lay_over(template, known.v_template.double().numpy())
        marks = match.moved[head_world("procedural").landmarks]
        self.landmarks = ((template[None] - marks[:, None]) ** 2).sum(-1).argmin(1)
        """Vertices nearest to the embedded head's 68 landmarks when that is laid over the template."""

    @torch.no_grad()
    def place(self, shots: list[Shot]) -> Placed:
        """Raises UserError when the shots have coefficients that the file has no components for."""
        model = self.model
        shape = _fitting(np.stack([s.shape for s in shots]), model.n_shape, "shape")
        expression = _fitting(np.stack([s.expression for s in shots]), model.n_expression, "expression")
        pose = np.stack([s.pose for s in shots]).astype(np.float32)
        carried = np.where(np.arange(15) < JAW, 0, pose).astype(np.float32)
        turns, marks = [], []
        for i in range(0, len(shots), BATCH):
            b, e, p, c = (torch.from_numpy(a[i : i + BATCH]) for a in (shape, expression, pose, carried))
            turns.append(model.joint_transforms(b, e, p)[:, NECK])
            marks.append(model(b, e, c)[:, self.landmarks])
        head = torch.cat(turns).double().numpy()
        viewmats = np.tile(np.eye(4), (len(shots), 1, 1))
        R, t = (np.stack([s.viewmat for s in shots])[:, :3, part] for part in (slice(3), 3))
        viewmats[:, :3, :3] = R @ head[:, :3, :3]
        origin = METRES * (np.einsum("fij,j->fi", R, model.origin.numpy()) + t)
        viewmats[:, :3, 3] = np.einsum("fij,fj->fi", R, head[:, :3, 3]) + origin
        return Placed(shape, expression, carried, viewmats, torch.cat(marks).double().numpy())


def box(viewmat: Float[np.ndarray, "4 4"], K: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3"]:
    """The square (centre x, centre y, side, pixels) in which a head fills as much as before the canonical camera."""
    x, y, z = viewmat[:3, :3] @ [0, RISE, 0] + viewmat[:3, 3]
    focal = (K[0, 0] + K[1, 1]) / 2
    return np.array([K[0, 0] * x / z + K[0, 2], K[1, 1] * y / z + K[1, 2], SIDE * focal / viewmat[2, 3]])


def cropped(K: Float[np.ndarray, "3 3"], box: Float[np.ndarray, "3"], size: int) -> Float[np.ndarray, "3 3"]:
    """Intrinsics of that square on a size × size grid."""
    corner = box[:2] - box[2] / 2
    out = K.copy()
    out[:2, 2] -= corner
    out[:2] *= size / box[2]
    return out


def rigid(matrix: Float[np.ndarray, "4 4"]) -> bool:
    """Whether a camera's matrix turns and moves, and does nothing else."""
    R = matrix[:3, :3]
    return bool(np.abs(R @ R.T - np.eye(3)).max() < 1e-3 and np.linalg.det(R) > 0)


def _fitting(coefficients: Float[np.ndarray, "F K"], has: int, which: str) -> Float[np.ndarray, "F k"]:
    if np.any(coefficients[:, has:]):
        raise UserError(f"the tracked heads have {coefficients.shape[1]} {which} coefficients and the FLAME file has {has}: "
                        f"give the file that the tracker used")  # fmt: skip
    return np.ascontiguousarray(coefficients[:, :has], np.float32)
