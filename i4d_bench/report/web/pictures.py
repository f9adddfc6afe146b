"""The pictures of a report's runs, for the viewer: lossless, as the error between them is computed in the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from i4d_bench.report.rows import Row
from i4d_bench.results.store import SHOWN, Store


def pictures(store: Store, designs: Mapping[str, Row]) -> dict[str, Any] | None:
    """Sheets of all samples side by side, one per design and seed and one each of what they share by the
    data's hash: source, driver and truth. None where no run has kept any."""
    shared: dict[str, dict[str, str]] = {}
    sheets: list[dict[str, Any]] = []
    shape = (0, 0, 0, 3)
    for record in (r for row in designs.values() for r in row.runs):
        found = store.pictures(record)
        if not found or not len(found["design"]):
            continue
        shape, data = found["design"].shape, record.data["hash"]
        if data not in shared:
            shared[data] = {name: sheet(found[name]) for name in SHOWN if name in found}
        own = {"name": record.design, "seed": record.seed, "data": data, "family": record.family}
        sheets.append(own | {"sheet": sheet(found["design"])})
    size = dict(zip(("count", "height", "width"), shape[:3], strict=True))
    return size | {"shared": shared, "designs": sheets} if sheets else None


def sheet(images: UInt8[np.ndarray, "K H W 3"]) -> str:
    """One lossless WebP, the images from left to right, as a data URL."""
    whole = Image.fromarray(np.ascontiguousarray(np.concatenate(list(images), axis=1)))
    encoded = io.BytesIO()
    whole.save(encoded, "webp", lossless=True, quality=60)
    return data_url(encoded.getvalue(), "image/webp")


def data_url(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
