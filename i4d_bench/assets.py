"""The optional files: where they are looked for, what they give and where users get them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from i4d_bench.cache import cache_dir
from i4d_bench.errors import UserError


@dataclass(frozen=True)
class Asset:
    """An optional file: where below I4D_ASSETS (or the cache folder) it is looked for, and where users get it."""

    name: str
    path: str
    gives: str
    source: str
    sha256: str | None = None


ASSETS = (
    Asset(
        "ICT-FaceKit", "ict/ict_facekit_full_f16.npz", "the ict world (--world ict)",
        "made from ICT-VGL/ICT-FaceKit on GitHub (MIT): template, identity, expression and faces as one .npz",
    ),
    Asset(
        "MediaPipe Face Landmarker", "mediapipe/face_landmarker.task", "ingest, animate and evaluation on real video",
        "Google's MediaPipe model page, Face Landmarker (Apache-2.0)",
    ),
    Asset(
        "MobileFace", "identity/mobileface_v2_weights.npz", "CSIM by a second network (csim_mobileface)",
        "becauseofAI/MobileFace on GitHub (MIT), parameters as .npz beside the symbol .json",
    ),
)  # fmt: skip


def roots() -> list[Path]:
    """The folders in which assets are looked for, in this order. An account without a home has no cache folder to look in."""
    named = [Path(os.environ["I4D_ASSETS"])] if os.environ.get("I4D_ASSETS") else []
    try:
        return [*named, cache_dir() / "assets"]
    except UserError:
        return named


def find(path: str) -> Path | None:
    """An asset by its path below $I4D_ASSETS or the cache folder's `assets`."""
    return next((root / path for root in roots() if (root / path).is_file()), None)
