"""From where an animation is seen: by the driver's own camera, from the front, on a turn around the head, or on a path of yours."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from i4d_bench.camera import RADIUS, look_at
from i4d_bench.types import Camera, UserError

DRIVER = "driver"
"""The camera that saw the driver, and with it the pose of the driver's head."""
WRITTEN = f"{DRIVER}, fixed, turntable, or a path: a .json file of [yaw, pitch] or [yaw, pitch, distance]"


def cameras(name: str, count: int, size: int, device: torch.device) -> Camera | None:
    """One camera per frame, of size × size pixels; None for the driver's own. name: as WRITTEN says; the points of a path are
    passed at even times, in degrees and canonical units, and one alone stands still. Raises UserError."""
    if name == DRIVER:
        return None
    if name == "fixed":
        points = np.array([[0.0, 0.0, RADIUS]])
    elif name == "turntable":
        points = np.array([[0.0, 0.0, RADIUS], [360.0, 0.0, RADIUS]])
    elif name.lower().endswith(".json"):
        points = _path(Path(name))
    else:
        raise UserError(f"there is no camera {name!r}; there are {WRITTEN}")
    at = np.linspace(0, len(points) - 1, count, endpoint=name != "turntable")
    rows = np.stack([np.interp(at, np.arange(len(points)), column) for column in points.T], -1)
    return camera_of([look_at(yaw, pitch, size, radius) for yaw, pitch, radius in rows], size, device)


def camera_of(seen: list[tuple[np.ndarray, np.ndarray]], size: int, device: torch.device) -> Camera:
    """A batch of cameras, each a view matrix [4,4] and K [3,3]."""
    viewmats, Ks = (torch.from_numpy(np.stack(a).astype(np.float32)).to(device) for a in zip(*seen, strict=True))
    return Camera(viewmats, Ks, size, size)


def _path(file: Path) -> Float[np.ndarray, "P 3"]:
    """Yaw, pitch and distance of every point."""
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
        points = np.array([[*row, RADIUS][:3] for row in rows], float)
    except (OSError, ValueError, TypeError) as e:
        raise UserError(f"the camera path {file} cannot be read ({e})") from e
    if points.shape != (len(rows), 3) or not len(rows) or not np.isfinite(points).all() or (points[:, 2] <= 0).any():
        raise UserError(f"the camera path {file} is no list of [yaw, pitch] or [yaw, pitch, distance], in degrees")
    return points
