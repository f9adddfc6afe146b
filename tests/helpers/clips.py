"""A data set such as real video gives, drawn in a moment: a grey head with a mouth that opens."""

from pathlib import Path

import numpy as np

from i4d_bench.data import frames as store
from i4d_bench.heads.base import REGIONS
from i4d_bench.heads.expressions import INDEX


def drawn_clips(
    path: Path, identity: list[int], times=None, kind="clips", fps=(25.0,), size=128, **more
) -> store.Frames:
    """identity: of every frame. times: seconds of every frame; without them the data set has no `times`. more: of dataset.json."""
    n, who = len(identity), np.array(identity, np.int32)
    y, x = (np.mgrid[:size, :size] + 0.5) / size - 0.5
    opened = (0.5 + 0.5 * np.sin(np.arange(n)))[:, None, None]
    head = (x / 0.3) ** 2 + (y / 0.4) ** 2 < 1
    mouth = (x / 0.1) ** 2 + ((y - 0.15) / (0.02 + 0.06 * opened)) ** 2 < 1
    eyes = (np.abs(np.abs(x) - 0.12) < 0.05) & (np.abs(y + 0.12) < 0.03)
    skin = np.where(mouth, 60, 150 + 20 * who[:, None, None]) * head
    viewmats = np.tile(np.diag([1, -1, -1, 1]).astype(np.float32), (n, 1, 1))
    viewmats[:, 2, 3] = 2.7
    focal = size / 2 / np.tan(np.radians(18.837 / 2))
    coefficients = np.zeros((n, len(INDEX)), np.float32)
    coefficients[:, INDEX["jawOpen"]] = opened[:, 0, 0]
    arrays = {
        "rgb": np.repeat(skin[..., None], 3, -1).astype(np.uint8),
        "alpha": np.repeat(255 * head[None].astype(np.uint8), n, 0),
        "region": np.where(mouth, REGIONS.index("mouth"), np.where(eyes, REGIONS.index("eyes"), head)).astype(np.uint8),
        "viewmats": viewmats,
        "Ks": np.tile(np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]], np.float32), (n, 1, 1)),
        "identity": who,
        "expression": np.arange(n, dtype=np.int32),
        "coefficients": coefficients,
        "landmarks": np.full((n, 68, 2), size / 2, np.float32),
    }
    if times is not None:
        arrays["times"] = np.array(times, float)
    meta = {"kind": kind, "source": "drawn", **more} | ({"fps": list(fps)} if fps else {})
    return store.open_frames(store.write(path, arrays, meta))
