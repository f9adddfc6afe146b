"""Several designs side by side, each with its name: panels of one picture that the visitor's camera sees, or heads in a scene."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from i4d_bench.camera import FOV, RADIUS
from i4d_bench.play.cameras import camera_of
from i4d_bench.render.views import GREY
from i4d_bench.types import Camera

STEP = 32
"""Sides of panels are multiples of it: a CUDA graph is made for every size."""
SEEN = 2 * RADIUS * math.tan(math.radians(FOV) / 2)
"""Canonical units that the first camera sees from top to bottom; a head of its own fills them."""
LARGEST = 0.9
"""Of SEEN, a head in a scene: its name stands above it."""
LETTER = 0.55
"""A letter's width over the height of its line, at most."""


def side(panels: int, height: int, aspect: float) -> int:
    """Pixels per side of the square panels that fit into a picture of that height. aspect: its width over its height."""
    return max(STEP, int(min(height, height * aspect / panels)) // STEP * STEP)


def beside(heads: int, aspect: float) -> tuple[list[float], float]:
    """Where heads stand in a scene, their x in canonical units, and their size over that of the avatar: as panels, side by side
    in what the first camera sees. aspect: its width over its height."""
    size = min(LARGEST, aspect / heads)
    return [size * SEEN * (k - (heads - 1) / 2) for k in range(heads)], size


def seen_by(
    position: Float[np.ndarray, "3"], rotation: Float[np.ndarray, "3 3"], fov: float, size: int, device: torch.device
) -> Camera:
    """The camera of a visitor who stands at `position`. rotation: camera → world, OpenCV axes. fov: vertical, radians."""
    view = np.eye(4)
    view[:3, :3] = rotation.T
    view[:3, 3] = -rotation.T @ position
    focal = 0.5 * size / math.tan(fov / 2)
    return camera_of([(view, np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]]))], size, device)


def arranged(
    pictures: list[Float[Tensor, "S S 3"]], names: list[str], height: int, aspect: float
) -> UInt8[np.ndarray, "H W 3"]:
    """The panels in the middle of a grey picture; names stand below the heads where there are several."""
    width, grey = round(height * aspect), round(GREY * 255)
    canvas = Image.new("RGB", (width, height), (grey,) * 3)
    s = pictures[0].shape[0]
    fitting = int(s / (LETTER * max(map(len, names))))
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(max(8, min(height // 28, fitting)))
    left, top = (width - s * len(pictures)) // 2, (height - s) // 2
    for k, (picture, name) in enumerate(zip(pictures, names, strict=True)):
        x = left + k * s
        canvas.paste(Image.fromarray((picture * 255).round().byte().cpu().numpy()), (x, top))
        draw.text(
            (x + s // 2, top + s - 4), name, (255, 255, 255), font, "ms", stroke_width=1, stroke_fill=(90, 90, 90)
        )
    return np.asarray(canvas)
