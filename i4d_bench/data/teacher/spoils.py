"""The known errors of a 2D portrait animator, on a rendered head: what it does to people, geometry and picture.

What they stand for: textures that stick to the picture rather than to the head, features of the driver that leak into the
source, frames made one by one, and heads that are turned by a warp of a flat picture.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from scipy import ndimage

from i4d_bench.camera import RADIUS, unit
from i4d_bench.data.people import eight_bits
from i4d_bench.data.teacher.samples import Picture
from i4d_bench.heads.base import HeadIdentity
from i4d_bench.types import UserError

SLIDE = 0.1
"""Sine of the camera's angle → shift of the texture in parts of the picture, at strength 1. A head is half a picture wide."""
WAVES = 2 * np.pi
"""Standard deviation of how far the slide's waves turn across the picture, radians."""
RIM = 0.15
"""Within this of the outline, in parts of the picture, the slide grows from nothing: wide enough that it never folds."""
SHAPE, LOOKS = 0.6, 0.3
"""Shares of the driver's person in the source's at strength 1: a change of colour shows more than one of shape."""
FLAT = 0.5
"""Share of the head's depth that is lost at strength 1."""
GAIN, HUE, GRAIN = 0.1, 0.03, 0.02
"""Standard deviations at strength 1: of log brightness, of each channel's, of each spot's."""
SPOTS = 1 / 160
"""Size of a spot of the grain, in parts of the picture."""


@dataclass(frozen=True)
class Spoil:
    """How strongly each error is made, 0 (not at all) to 1. Raises UserError outside of it."""

    swim: float = 0.0  # the texture slides over the head as the camera leaves the front
    drift: float = 0.0  # shape and looks move towards the driver's person
    flicker: float = 0.0  # brightness, hue and grain change from picture to picture
    parallax: float = 0.0  # the head is flatter than it is, seen from the front

    def __post_init__(self) -> None:
        for name, strength in dataclasses.asdict(self).items():
            if not 0 <= strength <= 1:
                raise UserError(f"the strength of {name} must lie between 0 and 1, it is {strength}")

    @staticmethod
    def of(settings: Iterable[str]) -> Spoil:
        """The moderate one but for these, NAME=STRENGTH. Raises UserError."""
        spoil = Spoil.moderate()
        for setting in settings:
            name, _, strength = setting.partition("=")
            try:
                spoil = dataclasses.replace(spoil, **{name: float(strength)})
            except (TypeError, ValueError) as e:
                names = ", ".join(f.name for f in dataclasses.fields(Spoil))
                raise UserError(f"{setting!r} is no NAME=STRENGTH of {names}") from e
        return spoil

    @staticmethod
    def moderate() -> Spoil:
        """As today's animators: seen when looked for, never absurd."""
        return Spoil(swim=0.5, drift=0.5, flicker=0.5, parallax=0.5)


def drifted(source: HeadIdentity, driver: HeadIdentity, strength: float) -> HeadIdentity:
    """The source's person with a share of the driver's shape and looks."""
    if not strength:
        return source
    own, other = source.appearance, driver.appearance
    looks = {
        f.name: _between(getattr(own, f.name), getattr(other, f.name), LOOKS * strength)
        for f in dataclasses.fields(own)
    }
    return dataclasses.replace(
        source,
        shape=_between(source.shape, driver.shape, SHAPE * strength),
        appearance=dataclasses.replace(own, **looks),
    )


def _between(a: Any, b: Any, share: float) -> Any:
    if isinstance(a, tuple):
        return tuple(_between(x, y, share) for x, y in zip(a, b, strict=True))
    return a + (b - a) * share


def flattened(vertices: Float[np.ndarray, "V 3"], strength: float) -> Float[np.ndarray, "V 3"]:
    """Vertices moved along the rays of the frontal camera towards the plane through the head's middle: from the front the outlines
    stay where they are."""
    if not strength:
        return vertices
    z = vertices[:, 2:] * (1 - FLAT * strength)
    return np.concatenate([vertices[:, :2] * (RADIUS - z) / (RADIUS - vertices[:, 2:]), z], 1)


def swum(picture: Picture, strength: float, r: np.random.Generator) -> Picture:
    """Colours, regions and landmarks slid over the head, against the turn of the camera, by a smooth field that is r's. The head's
    outline stays. Nothing moves in a frontal view."""
    move = _slide(picture, strength, r)
    if not move.any():
        return picture
    at = np.indices(move.shape[1:]) - move
    rgb = np.moveaxis(picture["rgb"].astype(float), -1, 0)
    look = np.stack([_read(channel, at, order=3) for channel in rgb], -1)
    spots = picture["landmarks"].astype(float)
    moved = spots
    for _ in range(4):  # where each has gone: moved = spots + move(moved)
        yx = moved[:, ::-1].T - 0.5
        moved = spots + np.stack([_read(m, yx, order=1) for m in move[::-1]], 1)
    return {
        **picture,
        "rgb": _within(look / 255, picture),
        "region": _read(picture["region"], at, order=0),
        "landmarks": moved.astype(np.float32),
    }


def _read(image: np.ndarray, at: np.ndarray, order: int) -> np.ndarray:
    """Values of an image at places (y, x); beyond its border those of the border."""
    return np.asarray(ndimage.map_coordinates(image, at, order=order, mode="nearest"))


def _slide(picture: Picture, strength: float, r: np.random.Generator) -> Float[np.ndarray, "2 H W"]:
    """By how many pixels, down and to the right, what is seen at a pixel has slid there."""
    viewmat, size = picture["viewmats"].astype(float), len(picture["alpha"])
    right, up, _ = unit(-viewmat[:3, :3].T @ viewmat[:3, 3])
    middle = (np.arange(size) + 0.5) / size
    y, x = middle[:, None], middle
    turns, phases = r.normal(0, WAVES, (2, 2)), r.uniform(0, 2 * np.pi, 2)
    waves = np.stack([1 + 0.4 * np.sin(a * y + b * x + phase) for (a, b), phase in zip(turns, phases, strict=True)])
    inside = np.asarray(ndimage.distance_transform_edt(np.pad(picture["alpha"] > 127, 1)))[1:-1, 1:-1] / size
    ease = np.clip(inside / RIM, 0, 1)
    return SLIDE * strength * size * np.array([-up, right])[:, None, None] * waves * (ease * ease * (3 - 2 * ease))


def flickered(picture: Picture, strength: float, r: np.random.Generator) -> Picture:
    """Brightness, hue and grain that are r's; nothing moves."""
    if not strength:
        return picture
    size = len(picture["alpha"])
    tint = r.normal(0, GAIN * strength) + r.normal(0, HUE * strength, 3)
    grain = ndimage.gaussian_filter(r.normal(size=(size, size)), SPOTS * size)
    grain *= GRAIN * strength / grain.std()
    return {**picture, "rgb": _within(picture["rgb"] / 255 * np.exp(tint + grain[..., None]), picture)}


def _within(rgb: Float[np.ndarray, "H W 3"], picture: Picture) -> UInt8[np.ndarray, "H W 3"]:
    """Colours premultiplied by alpha are never above it."""
    return np.minimum(eight_bits(rgb), picture["alpha"][..., None])
