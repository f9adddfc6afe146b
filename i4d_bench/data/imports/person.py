"""One tracked person → the arrays of a data set: crops around the tracked head, masks, landmarks, what cannot be used and why.

MediaPipe, where it is there, gives landmarks and the 52 expression coefficients, as it does for video, and tells whether the
tracked head lies on the face. Without it landmarks are the tracked mesh's, and nobody measured the 52.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from i4d_bench.data.frames import create
from i4d_bench.data.imports.tracked import Head, Placed, Shot, Take, box, cropped
from i4d_bench.data.video import headfit, matting, tracking
from i4d_bench.data.video.landmarker import Landmarker, to68
from i4d_bench.types import UserError

FEWEST = 2
"""Pictures that a person must give: a source, and one to drive it to."""
FPS = 25.0
"""Frames per second, of which neither format says anything."""
DETAIL = 256
"""Side of the crop in which MediaPipe looks for the face, at least."""
ASTRAY = 0.1
"""How far from the tracked mesh's landmarks half of the seen ones may lie: a share of the crop's side (half way between eyes)."""
UNREADABLE, NO_MASK = "image missing or damaged", "mask missing or damaged"
OTHER_SHAPE, OTHER_MASK = "image of another shape than its camera's", "mask of another size than its image"
BEHIND, OFF = "head behind the camera", "tracked head not on the face"
GIVEN = "the tracked data's own, cut off below the head"

Show = Callable[[Iterable, str, int], Iterable]
"""Passes items on and shows how far they are: (items, label, total)."""


@dataclass(frozen=True)
class Seen:
    """A usable picture, in its crop's pixels. Without MediaPipe: face is None, blendshapes and off are NaN."""

    row: int  # of the shot
    box: Float[np.ndarray, "3"]
    K: Float[np.ndarray, "3 3"]
    valid: UInt8[np.ndarray, "S S"]
    landmarks: Float[np.ndarray, "68 2"]
    face: Float[np.ndarray, "478 2"] | None
    blendshapes: Float[np.ndarray, "52"]
    off: float  # median distance of the landmarks from the tracked mesh's


@dataclass(frozen=True)
class Recorder:
    """Makes people's parts of a data set, crops of size × size pixels."""

    head: Head
    landmarker: Landmarker | None
    size: int

    def __call__(self, take: Take, folder: Path, show: Show) -> dict[str, Any]:
        """Writes one .npy per array into `folder`, if at least FEWEST pictures can be used, and says what became of them.

        Images are written as one row per shot, the usable ones first. Raises UserError where the whole person cannot be had.
        """
        shots, skipped, seen = take.shots, list(take.skipped), []
        masked = bool(shots) and shots[0].mask is not None
        info: dict[str, Any] = {
            "frames": 0,
            "skipped": skipped,
            "notes": take.notes,
            "mask": GIVEN if masked else matting.METHOD,
        }
        if not shots:
            return info
        if not masked and self.landmarker is None:
            raise UserError(f"{take.name} has no masks, and to cut heads out MediaPipe's model is needed (--model)")
        rgb, alpha, region = (
            create(folder / f"{name}.npy", np.uint8, (len(shots), self.size, self.size, *tail))
            for name, tail in (("rgb", (3,)), ("alpha", ()), ("region", ()))
        )
        placed = self.head.place(shots)
        for k, shot in enumerate(show(shots, "pictures", len(shots))):
            try:
                new, rgb[len(seen)], alpha[len(seen)] = self._look(k, shot, placed)
            except Unusable as e:
                skipped.append((shot.label, str(e)))
            else:
                seen.append(new)
        info["frames"] = n = len(seen)
        if n < FEWEST:
            return info
        self._cut(
            rgb[:n], alpha[:n], region[:n], seen, placed, np.array([shots[s.row].number for s in seen]), masked, show
        )
        for array in (rgb, alpha, region):
            array.flush()
        rows = [s.row for s in seen]
        rest = {
            "viewmats": placed.viewmats[rows].astype(np.float32),
            "Ks": np.stack([s.K for s in seen]).astype(np.float32),
            "identity": np.zeros(n, np.int32),
            "expression": np.array([shots[k].number for k in rows], np.int32),
            "coefficients": np.stack([s.blendshapes for s in seen]).astype(np.float32),
            "landmarks": np.stack([s.landmarks for s in seen]).astype(np.float32),
            "flame_shape": placed.shape[rows],
            "flame_expression": placed.expression[rows],
            "flame_pose": placed.pose[rows],
        }
        for name, array in rest.items():
            np.save(folder / f"{name}.npy", array)
        off = None if self.landmarker is None else float(np.median([s.off for s in seen]))
        return info | {"landmark_px": off, "splits": take.splits and [take.splits[k] for k in rows]}

    def _look(self, row: int, shot: Shot, placed: Placed) -> tuple[Seen, np.ndarray, np.ndarray]:
        """What is to be seen, the crop and that of the mask (empty without one). Raises Unusable."""
        viewmat, marks, size = placed.viewmats[row], placed.landmarks[row], self.size
        image = _opened(shot.image, UNREADABLE)
        h, w = image.shape[:2]
        scale = w / shot.size[0]
        if abs(h - scale * shot.size[1]) > 1:
            raise Unusable(OTHER_SHAPE)
        if min((marks @ viewmat[2, :3]).min(), 0) + viewmat[2, 3] <= 0:
            raise Unusable(BEHIND)
        K = shot.K * np.array([[scale], [scale], [1.0]])
        where, mesh = box(viewmat, K), headfit.project(marks, viewmat, K)
        if where[2] < tracking.SMALLEST:
            raise Unusable(tracking.SMALL)
        if ((mesh > 0) & (mesh < [w, h])).all(1).mean() < tracking.INSIDE:
            raise Unusable(tracking.BORDER)
        mask = np.zeros((h, w), np.uint8) if shot.mask is None else _opened(shot.mask, NO_MASK)
        if mask.shape != (h, w):
            raise Unusable(OTHER_MASK)
        K = cropped(K, where, size)
        valid = tracking.valid((0, 0, w, h), where, size)
        seen = Seen(row, where, K, valid, headfit.project(marks, viewmat, K), None, np.full(52, np.nan), np.nan)
        if self.landmarker is not None:
            seen = self._measured(self.landmarker, seen, tracking.crop(image, where, max(size, DETAIL)))
        return (
            seen,
            tracking.crop(image, where, size),
            tracking.crop(mask[..., None].repeat(3, -1), where, size)[..., 0],
        )

    def _measured(self, landmarker: Landmarker, seen: Seen, detail: UInt8[np.ndarray, "D D 3"]) -> Seen:
        """With MediaPipe's landmarks in place of the mesh's."""
        face = landmarker(detail)
        if face is None:
            raise Unusable(tracking.NO_FACE)
        points = face.landmarks[:, :2] * (self.size / len(detail))
        off = float(np.median(np.linalg.norm(to68(points) - seen.landmarks, axis=1)))
        if off > ASTRAY * self.size:
            raise Unusable(OFF)
        return replace(seen, landmarks=to68(points), face=points, blendshapes=face.blendshapes, off=off)

    def _cut(self, rgb, alpha, region, seen: list[Seen], placed: Placed, numbers, masked: bool, show: Show) -> None:
        """Masks and regions, in place: from the masks' crops in alpha, or cut out as for video."""
        if not masked:

            def shot(k: int) -> matting.Shot:
                s = seen[k]
                assert s.face is not None  # where there are no masks there is a landmarker
                return matting.Shot(rgb[k].copy(), s.valid, s.box, s.face, placed.viewmats[s.row], s.K)

            scene = headfit.scenes(np.stack([s.box for s in seen]), numbers / FPS)
            tracking.cut_out(rgb, alpha, region, shot, scene, show)
            return
        for k, s in enumerate(seen):
            mask = matting.trimmed(rgb[k], alpha[k] / 255, s.valid, s.landmarks, placed.viewmats[s.row], s.K)
            rgb[k], alpha[k], region[k] = mask.rgb, mask.alpha, mask.region


class Unusable(Exception):
    """A picture that cannot be used; its text is the reason."""


def _opened(read: Callable[[], np.ndarray], reason: str) -> np.ndarray:
    try:
        return read()
    except UserError as e:
        raise Unusable(reason) from e
