"""Which head a world has, and its FLAME-format export."""

from __future__ import annotations

from functools import cache

from i4d_bench.assets import ICT, find
from i4d_bench.cache import cache_dir, file_digest, make_once
from i4d_bench.heads.base import HeadWorld
from i4d_bench.heads.export import export_flame
from i4d_bench.heads.flame import FlameModel, load
from i4d_bench.heads.ict import IctWorld
from i4d_bench.heads.procedural import ProceduralWorld
from i4d_bench.source import digest
from i4d_bench.types import UserError

MODULES = {"procedural": "i4d_bench.heads.procedural", "ict": "i4d_bench.heads.ict"}


@cache
def head_world(kind: str) -> HeadWorld:
    """The world of that name. Raises UserError for an unknown one, or when ICT's file is missing."""
    if kind == "procedural":
        return ProceduralWorld()
    if kind == "ict":
        return IctWorld()
    raise UserError(f"there is no head world {kind!r}; there are procedural, ict (or --data FOLDER for video)")


def exported_head(kind: str) -> FlameModel:
    """The world's FLAME-format model, exported into the cache once for each state of the world."""
    path = cache_dir() / f"flame-{kind}-{world_version(kind)}.npz"
    return load(make_once(path, lambda: export_flame(head_world(kind), path)))


def world_version(kind: str) -> str:
    """A hash of what a world's heads depend on: its source, and its file where it has one. Raises UserError as `head_world`."""
    if kind != "procedural":  # which there always is, and takes two seconds to build
        head_world(kind)
    source = digest(MODULES[kind], "i4d_bench.heads.export")
    file = find(ICT) if kind == "ict" else None
    return f"{source}-{file_digest(file)}" if file else source
