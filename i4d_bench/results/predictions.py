"""The pictures that a run's scores are of, beside its checkpoint; the record has their hashes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from i4d_bench.cache import atomic_file
from i4d_bench.reading import arrays
from i4d_bench.types import UserError

Predictions = dict[str, UInt8[np.ndarray, "T H W 3"]]
"""By set, one picture per sample."""


def save(path: Path, predictions: Predictions) -> dict[str, str]:
    """→ hashes by set. Raises OSError where the file cannot be written."""
    with atomic_file(path) as out:
        np.savez_compressed(out, **predictions)  # pyright: ignore[reportArgumentType]  (no set is called allow_pickle)
    return hashes(predictions)


def load(path: Path) -> Predictions:
    """Raises UserError for a file that holds no pictures."""
    found = arrays(path)
    if any(a.dtype != np.uint8 or a.ndim != 4 or a.shape[-1] != 3 for a in found.values()):
        raise UserError(f"{path} holds no pictures of 8 bits and three colours")
    return found


def hashes(predictions: Predictions) -> dict[str, str]:
    """Of shapes and pixels."""
    content = {name: f"{a.shape}".encode() + np.ascontiguousarray(a).tobytes() for name, a in predictions.items()}
    return {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}
