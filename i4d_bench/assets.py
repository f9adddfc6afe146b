"""The optional files: where they are looked for, what they give, and where users get them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from i4d_bench.cache import cache_dir
from i4d_bench.errors import UserError

LANDMARKER = "mediapipe/face_landmarker.task"
ICT = "ict/ict_facekit_full_f16.npz"
MOBILEFACE = "identity/mobileface_v2_weights.npz"
MOBILEFACE_GRAPH = "identity/MobileFace_Identification_V2-symbol.json"


@dataclass(frozen=True)
class Asset:
    """An optional file. path: below one of `roots`. gives: what it is for. address: its public page or file. get: what to do there.

    sha256: of the version that the suite was tested with, where there is one file of it.
    """

    name: str
    licence: str
    path: str
    gives: str
    address: str
    get: str
    sha256: str | None = None


_MOBILEFACE = (
    "https://github.com/becauseofAI/MobileFace",
    "clone it, then `i4d-bench convert mobileface MobileFace`",
)
ASSETS = (
    Asset(
        "ICT-FaceKit", "MIT", ICT, "the ict world (--world ict)",
        "https://github.com/ICT-VGL/ICT-FaceKit", "clone it, then `i4d-bench convert ict ICT-FaceKit`",
    ),
    Asset(
        "MediaPipe's face_landmarker.task", "Apache-2.0", LANDMARKER, "ingest, animate and evaluation on real video",
        "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task",
        "download it",
        "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
    ),
    Asset("MobileFace's weights", "MIT", MOBILEFACE, "CSIM by a second network (csim_mobileface)", *_MOBILEFACE),
    Asset(
        "MobileFace's graph", "MIT", MOBILEFACE_GRAPH, "CSIM by a second network (csim_mobileface)", *_MOBILEFACE,
        "9d4f776ecb40772e3eb10338319e4a10a3cd68694dc6ef4e9042c8c4141e658f",
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
    """An asset by its path below one of the roots, the first that has it."""
    return next((root / path for root in roots() if (root / path).is_file()), None)


def place(path: str) -> Path:
    """Where an asset that is made here goes: the first root. Raises UserError when there is none."""
    return (roots() or [cache_dir()])[0] / path


def missing(path: str) -> str:
    """One sentence: which file is not where, and what to do."""
    asset = next(a for a in ASSETS if a.path == path)
    places = " or ".join(str(root / path) for root in roots()) or "I4D_ASSETS, which is not set"
    return f"{asset.name} is not at {places}: {asset.get} ({asset.address})"
