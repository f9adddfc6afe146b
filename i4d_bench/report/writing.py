"""Text files, written whole or not at all."""

from __future__ import annotations

from pathlib import Path

from i4d_bench.cache import atomic_file


def write_text(path: Path, text: str) -> None:
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
