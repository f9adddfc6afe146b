"""What a report shows in motion: films of its runs, and in its folder avatars (avatars/*.ply) and clips (clips/*.webm, *.mp4)."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from i4d_bench.play.ply import read_ply
from i4d_bench.report.rows import Row
from i4d_bench.report.web.pictures import data_url
from i4d_bench.results.store import Store
from i4d_bench.types import Gaussians

KINDS = {".webm": "video/webm", ".mp4": "video/mp4"}


def avatars(folder: Path) -> list[dict[str, Any]]:
    """By their files' names; the viewer's rows as base64. Raises UserError for a file that is no 3DGS .ply."""
    found = sorted((folder / "avatars").glob("*.ply"))
    return [{"name": path.stem, "splats": base64.b64encode(rows(read_ply(path))).decode()} for path in found]


def clips(store: Store, designs: Mapping[str, Row]) -> list[dict[str, str]]:
    """A film of every design, of its first run that has one; then those in the folder."""
    films = {d: next((f for r in row.runs if (f := store.film(r.run_id)).exists()), None) for d, row in designs.items()}
    found = [(design, path) for design, path in films.items() if path]
    found += sorted((path.stem, path) for path in (store.folder / "clips").glob("*") if path.suffix in KINDS)
    return [{"name": name, "src": data_url(path.read_bytes(), KINDS[path.suffix])} for name, path in found]


def rows(gaussians: Gaussians) -> bytes:
    """Of one avatar, 32 bytes a Gaussian as .splat files have them: position and scales (float32), RGB and opacity, and the
    quaternion wxyz (a byte each). Turned from canonical axes (y up, z out of the face) to the viewer's (y down)."""
    g = gaussians.detach().to("cpu")
    means = g.means[0] * torch.tensor([1.0, -1.0, -1.0])
    w, x, y, z = torch.nn.functional.normalize(g.quats[0], dim=-1).unbind(-1)
    half_turn_about_x = torch.stack([-x, w, -z, y], -1)
    colors = torch.cat([g.colors[0].clamp(0, 1), g.opacities[0][:, None]], -1) * 255
    out = np.zeros(len(means), [("mean", "<f4", 3), ("scale", "<f4", 3), ("color", "u1", 4), ("quat", "u1", 4)])
    out["mean"], out["scale"], out["color"] = means, g.scales[0], colors.round()
    out["quat"] = (half_turn_about_x * 128 + 128).round().clamp(0, 255)
    return out.tobytes()
