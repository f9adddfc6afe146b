"""`--animator warp`: a 2D animator without any network of its own, which warps the photo by MediaPipe's 478 landmarks.

What the driver's face differs by from a reference is added to the photo's landmarks in canonical space, and the photo is moved
with them, triangle by triangle, up to a ring of fixed points around the face. The reference of a video is its own neutral face:
the upper half from the frame whose brows and lids, the lower from that whose jaw and mouth are least active by the blendshapes.
A single picture says nothing about its person's neutral face: there the reference is the photo itself, so that its person takes
on the driver's expression and with it some of the driver's proportions (brows, lips, how wide the eyes are).

The inside of an opening mouth is the driver's, in the light of the photo; where the driver's is too small to be seen, it is dark.

What this animator cannot do: it never moves the head, which keeps the photo's pose, nor the gaze, nor the hair; it makes no
wrinkles, shadows or bulging cheeks, and no skin, teeth or tongue that neither picture shows; in side views landmarks are guesses.
By a video, a photo that already smiles goes on from its smile. Lids and lips are as exact as MediaPipe's landmarks.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from scipy.ndimage import gaussian_filter

from i4d_bench.data.teacher import warp_mesh as mesh
from i4d_bench.data.teacher.animators import PICTURES, Driver, Rgb
from i4d_bench.data.teacher.warp_mesh import EYES, MOUTH, Canvas
from i4d_bench.data.video import files, quiet
from i4d_bench.data.video.headfit import Similarity, align
from i4d_bench.data.video.landmarker import Face, Landmarker
from i4d_bench.heads.expressions import INDEX, NAMES
from i4d_bench.types import UserError

Seen = UInt8[np.ndarray, "Y X 3"]  # a driver's picture, which has a size of its own

LOOKED_AT = 64
"""Frames of a video, about, among which its neutral face is sought."""
UPPER = np.array([name.startswith(("brow", "eyeBlink", "eyeSquint", "eyeWide")) for name in NAMES], float)
LOWER = np.array([name.startswith(("jaw", "mouth", "cheekPuff")) for name in NAMES], float)
LOWER[INDEX["jawOpen"]] = 4
"""What each blendshape counts against a face as neutral; an open jaw most, since lips that part at rest would never close."""
SKIN = np.array([50, 101, 118, 205, 280, 330, 347, 425, 4, 5, 195, 151, 9])
"""Landmarks on cheeks, nose and forehead, whose colours tell the light."""
LIGHT = (0.3, 2.5)
"""Between these the driver's mouth is dimmed or brightened to the photo's light."""
WHITE = 235.0
"""Teeth are not brightened beyond it."""
LIPS = 0.12
"""Share of the driver's mouth, at its rim, that is left out: landmarks are not so exact that lips would never show there."""
CLEAR = 6.0
"""Pixels by which the driver's lips must part for all of what is between them to be used; less is mixed with DEPTH."""
DEPTH = np.array([58, 26, 24], np.float32)
"""Colour of a mouth whose inside cannot be seen."""
SOFT = 0.02
"""Blur of the mouth's edge, in parts of its width."""


@dataclass(frozen=True)
class Warp:
    """A `photos.Animator`. model: MediaPipe's `face_landmarker.task`, else where `i4d-bench assets` looks."""

    model: Path | None = None
    name: str = field(default="warp", init=False)
    version: str = field(default="1", init=False)
    most: int | None = field(default=None, init=False)

    @property
    def flags(self) -> dict[str, Any]:
        return {}

    def animate(self, source: Rgb, drivers: Sequence[Driver], worker: int) -> Iterator[list[Rgb] | str]:
        """For each driver, the source at its moments, black where the driver shows no face; or in a sentence why there is nothing.
        Raises UserError without mediapipe or its model."""
        with quiet.landmarker(self.model) as find:
            face = find(source)
            if face is None:
                yield from ["the source cannot be used: no face"] * len(drivers)
                return
            photo = _Photo(source, *align(face.landmarks[None]))
            for driver in drivers:
                try:
                    yield self._animated(photo, driver, find)
                except UserError as e:
                    yield f"the driver cannot be used: {e}"

    def _animated(self, photo: _Photo, driver: Driver, find: Landmarker) -> list[Rgb]:
        shown = driver.wanted()
        faces = [find(rgb) for rgb in shown]
        if not any(faces):
            raise UserError("no face")
        neutral = photo.shape if driver.path.suffix.lower() in PICTURES else _neutral(driver.path, self.model)
        return [
            np.zeros_like(photo.rgb) if face is None else photo.animated(neutral, rgb, face)
            for rgb, face in zip(shown, faces, strict=True)
        ]


@functools.lru_cache(1024)
def _neutral(video: Path, model: Path | None) -> Float[np.ndarray, "478 3"]:
    """The neutral shape of a video's person. It is the same whichever moments are wanted. Raises UserError without a face."""
    every = max(1, files.frame_count(video) // LOOKED_AT)
    with quiet.landmarker(model) as find:
        faces = [find(p.rgb) for p in files.read_frames(video) if p.number % every == 0]
    found = [face for face in faces if face is not None]
    if not found:
        raise UserError("no face")
    above, below = (min(found, key=lambda face: face.blendshapes @ part) for part in (UPPER, LOWER))
    shape, _ = align(above.landmarks[None])
    is_above = shape[:, 1:2] > shape[mesh.TIP, 1]
    return np.where(is_above, shape, mesh.laid_on(shape, below.landmarks))


@dataclass(frozen=True)
class _Photo:
    """A source. shape, pose: its landmarks in canonical space, and from there to the photo's pixels."""

    rgb: Rgb
    shape: Float[np.ndarray, "478 3"]
    pose: Similarity

    @functools.cached_property
    def pixels(self) -> Float[np.ndarray, "478 3"]:
        return mesh.to_pixels(self.shape, self.pose)

    def animated(self, neutral: Float[np.ndarray, "478 3"], seen: Seen, face: Face) -> Rgb:
        """seen, face: the driver's picture and what was found in it."""
        driver = mesh.laid_on(neutral, face.landmarks)
        shape = mesh.moved(self.shape, neutral, driver)
        now, fixed = mesh.to_pixels(shape, self.pose), mesh.ring(self.pixels)
        canvas = Canvas.around(fixed, self.rgb.shape[1], self.rgb.shape[0])
        still = canvas.places()
        at = still.copy()
        depth = np.r_[self.pixels[:, 2], np.full(len(fixed), self.pixels[:, 2].max())]
        faces = mesh.triangles()
        faces = faces[np.argsort(-depth[faces].mean(1), kind="stable")]
        canvas.draw(at, np.r_[now[:, :2], fixed], np.r_[self.pixels[:, :2], fixed], faces)
        for rims in (*EYES, MOUTH):
            inside = mesh.uncovered(self.pixels, now, rims)
            canvas.draw(at, now[rims, :2].reshape(-1, 2), inside.reshape(-1, 2), mesh.strip(rims.shape[1]))
        changed = (np.abs(at - still).max(-1, keepdims=True) > 0.01).astype(np.float32)
        colours = _read(self.rgb, at)
        opened = 1 - mesh.gap(self.shape, MOUTH) / max(mesh.gap(shape, MOUTH), 1e-9)
        if opened > 0:
            mouth, share = self._mouth(canvas, now, seen, face)
            share = share * min(2 * opened, 1.0)  # a mouth that the photo shows half as far open is the photo's no more
            colours += share * (mouth - colours)
            changed = np.maximum(changed, share > 0)
        out = self.rgb.copy()
        part = out[canvas.window]
        part[:] = (part + canvas.pixels(changed) * (canvas.pixels(colours) - part)).clip(0, 255).round()
        return out

    def _mouth(
        self, canvas: Canvas, now: Float[np.ndarray, "478 3"], seen: Seen, face: Face
    ) -> tuple[Float[np.ndarray, "h w 3"], Float[np.ndarray, "h w 1"]]:
        """The inside of the driver's mouth between the moved lips, and how much of it shows."""
        theirs = face.landmarks[MOUTH, :2].astype(float)
        parted = np.linalg.norm(theirs[0] - theirs[1], axis=-1)[1:-1].mean()
        theirs += LIPS * (theirs.mean(0) - theirs)
        rim = now[MOUTH, :2]
        at = np.full((*canvas.places().shape[:2], 2), -1, np.float32)
        canvas.draw(at, rim.reshape(-1, 2), theirs.reshape(-1, 2), mesh.strip(rim.shape[1]))
        inside = (at[..., :1] >= 0).astype(np.float32)
        light = _skin(self.rgb, self.pixels) / _skin(seen, face.landmarks)
        mouth = _read(seen, at) * np.clip(np.sqrt(light.mean() * light), *LIGHT)
        brightest = np.quantile(np.append(mouth[inside[..., 0] > 0], WHITE), 0.99)
        mouth = DEPTH + min(parted / CLEAR, 1.0) * (mouth * min(1.0, WHITE / brightest) - DEPTH)
        blur = SOFT * canvas.fine * float(np.linalg.norm(rim[0, 0] - rim[0, -1]))
        soft = np.clip(2 * gaussian_filter(inside, (blur, blur, 0)) - 1, 0, 1)
        return mouth.astype(np.float32), inside * soft


def _skin(rgb: Seen, pixels: Float[np.ndarray, "478 3"]) -> Float[np.ndarray, " 3"]:
    """Its colour, never black."""
    x, y = np.clip(pixels[SKIN, :2].astype(int), 0, [rgb.shape[1] - 1, rgb.shape[0] - 1]).T
    return np.maximum(np.median(rgb[y, x].astype(float), 0), 1)


def _read(rgb: Seen, at: Float[np.ndarray, "h w 2"]) -> Float[np.ndarray, "h w 3"]:
    """Colours at places of a picture; beyond its border those of the border."""
    import cv2

    x, y = (np.ascontiguousarray(at[..., k] - 0.5, np.float32) for k in (0, 1))
    return cv2.remap(rgb, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
