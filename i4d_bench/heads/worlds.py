"""Which head a world has, and its FLAME-format export."""

from __future__ import annotations

from functools import cache

from i4d_bench.cache import cache_dir
from i4d_bench.heads.base import HeadWorld
from i4d_bench.heads.export import export_flame
from i4d_bench.heads.flame import FlameModel, load
from i4d_bench.types import UserError

VERSION = 3
"""Part of the cache key: raise it when heads or the mesh renderer change what comes out."""


@cache
def head_world(kind: str) -> HeadWorld:
    """The world of that name. Raises UserError for an unknown one, or when ICT's file is missing."""
    if kind == "procedural":
        from i4d_bench.heads.procedural import ProceduralWorld

        return ProceduralWorld()
    if kind == "ict":
        from i4d_bench.heads.ict import IctWorld

        return IctWorld()
    raise UserError(f"there is no head world {kind!r}; there are procedural, ict (or --data FOLDER for video)")


def exported_head(kind: str) -> FlameModel:
    """The world's FLAME-format model, exported once into the cache."""
    path = cache_dir() / f"flame-{kind}-v{VERSION}.npz"
    if not path.exists():
        export_flame(head_world(kind), path)
    return load(path)
