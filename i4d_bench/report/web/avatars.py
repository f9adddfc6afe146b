"""What a report shows in motion: films and avatars of its runs, and in its folder avatars (avatars/*.ply) and clips (clips/*.webm,
*.mp4)."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from i4d_bench.play.ply import read_ply
from i4d_bench.play.splats import PARTS, Splats, load, rest
from i4d_bench.play.widened import in_training
from i4d_bench.report.qualitative import chosen, merits
from i4d_bench.report.rows import Row
from i4d_bench.report.web.pictures import data_url
from i4d_bench.results.store import Store

KINDS = {".webm": "video/webm", ".mp4": "video/mp4"}


def avatars(store: Store, designs: Mapping[str, Row], baseline: str | None = None) -> list[dict[str, Any]]:
    """Of the designs that the qualitative figure shows, each of its first run that kept one; then those in the folder, by their
    files' names. baseline: what others are compared with. Raises UserError for a file that is no 3DGS .ply."""
    kept = {d: _first(store.splats(r.run_id) for r in row.runs) for d, row in designs.items()}
    kept = {d: path for d, path in kept.items() if path}
    shown = chosen({d: designs[d].family for d in kept}, merits(store.measured), baseline) if kept else []
    found = [
        _packed(d, load(kept[d]), in_training(designs[d].last.config["world"]["resolution"]))
        for d in shown
        if d in kept
    ]
    own = sorted((store.folder / "avatars").glob("*.ply"))
    return found + [_packed(path.stem, rest(read_ply(path))) for path in own]


def clips(store: Store, designs: Mapping[str, Row]) -> list[dict[str, str]]:
    """A film of every design, of its first run that has one; then those in the folder."""
    films = {d: _first(store.film(r.run_id) for r in row.runs) for d, row in designs.items()}
    found = [(design, path) for design, path in films.items() if path]
    found += sorted((path.stem, path) for path in (store.folder / "clips").glob("*") if path.suffix in KINDS)
    return [{"name": name, "src": data_url(path.read_bytes(), KINDS[path.suffix])} for name, path in found]


def _first(paths: Iterable[Path]) -> Path | None:
    return next((path for path in paths if path.exists()), None)


def _packed(name: str, found: Splats, width: float = 0.0) -> dict[str, Any]:
    """What lies at rest, and the change towards every face, deflated. width: of Gaussians in training, which is added to scales."""
    faces = [
        {"name": str(face), "step": step.tolist(), "change": _deflated(change)}
        for face, step, change in zip(*(found.get(k, ()) for k in ("names", "step", "change")), strict=True)
    ]
    at_rest = {part: _deflated(found[part]) for part in PARTS}
    return {
        "name": name,
        "rest": at_rest,
        "unit": found["unit"].tolist(),
        "width": width,
        "count": found["means"].shape[1],
        "faces": faces,
    }


def _deflated(values: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(np.ascontiguousarray(values).tobytes(), 9)).decode()
