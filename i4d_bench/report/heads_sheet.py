"""Contact sheet of a head world: `python -m i4d_bench.report.heads_sheet --out docs/heads.png`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tyro
from PIL import Image

from i4d_bench.camera import look_at
from i4d_bench.heads import expressions
from i4d_bench.heads.worlds import head_world
from i4d_bench.render import mesh

YAWS = (0, 0, 25, -30, 12, -55)


def sheet(out: Path, world: str = "procedural", people: int = 16, size: int = 128, first: int = 0) -> None:
    """One row per person: neutral, then a training, test and extreme expressions from several sides."""
    head, rows = head_world(world), []
    for seed in range(first, first + people):
        identity, light = head.identity(seed), mesh.Light.sample(np.random.default_rng(seed))
        row = []
        for k, kind in enumerate(("neutral", "train", "train", "test", "extreme", "extreme")):
            e = expressions.sample(np.random.default_rng([seed, k]), kind)
            vertices = head.vertices(identity, e)
            surface = head.surface(identity, e, vertices)
            view, K = look_at(YAWS[k], 3, size)
            image = mesh.render_mesh(vertices, head.faces, surface, head.face_regions, view, K, size, size, light)
            row.append(image.rgb + 0.5 * (1 - image.alpha[..., None]))
        rows.append(np.concatenate(row, 1))
    half = (len(rows) + 1) // 2
    columns = [np.concatenate(rows[:half]), np.concatenate(rows[half:])] if people % 2 == 0 else [np.concatenate(rows)]
    Image.fromarray((np.concatenate(columns, 1) * 255).round().astype(np.uint8)).save(out)


if __name__ == "__main__":
    tyro.cli(sheet)
