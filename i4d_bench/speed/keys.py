"""Row keys of a speed report (speed.json, DESIGN §7), written and parsed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SCHEMA = 1
"""Of speed.json."""
STAGES = ("encode", "crop", "driver", "tracker", "fusion", "raster", "raster+backward", "frame")


@dataclass(frozen=True)
class Key:
    """stage/what/mode/bBATCH[/nGAUSSIANS][/rRESOLUTION][/tTOKENS]"""

    stage: str
    what: str
    mode: str
    b: int
    n: int | None = None
    r: int | None = None
    t: int | None = None

    @classmethod
    def parse(cls, key: str) -> Key:
        stage, what, mode, *sizes = key.split("/")
        return cls(stage, what, mode, **{s[0]: int(s[1:]) for s in sizes})


def of_roof(row: dict[str, Any], roof: dict[str, float]) -> float | None:
    """How near a row of a kernel is to what the machine could do: 1 is the roof. None where the row has no bytes."""
    if "bytes" not in row:
        return None
    return max(row["bytes"] / roof["copy_tb_s"], row["flops"] / roof["matmul_tflop_s"]) / 1e9 / row["ms"]
