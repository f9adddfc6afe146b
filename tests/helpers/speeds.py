"""Speed reports that were never measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TRACKER = "tracker/mediapipe/eager/b1"


def frame(entry: str, mode: str = "triton+graph", size: str = "b1/n196608/r512") -> str:
    """The key of a whole frame."""
    return f"frame/{entry}/{mode}/{size}"


def timed(ms: float, status: str = "ok") -> dict[str, Any]:
    return {"ms": ms / 2, "p5": ms / 2, "p95": ms / 2, "host_ms": ms, "fps": 1000 / ms, "status": status}


def speed_report(folder: Path, rows: dict[str, dict[str, Any]], hardware: str = "h100", **more: Any) -> Path:
    """A folder with a speed.json of these rows; `more` in place of what it says of itself."""
    environment = {
        "hardware": hardware,
        "commit": "0123456789ab",
        "dirty": False,
        "gpu": {"name": hardware},
        "versions": {},
    }
    content = {"schema": 1, "environment": environment, "roof": {}, "base": [1, 196_608, 512], "rows": rows}
    folder.mkdir(parents=True)
    (folder / "speed.json").write_text(json.dumps(content | more), encoding="utf-8")
    return folder
