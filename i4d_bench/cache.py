"""Where files that are made or fetched once are kept: $I4D_CACHE, else ~/.cache/i4d_bench."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from i4d_bench.types import UserError


def cache_dir() -> Path:
    """The cache folder (it need not exist yet)."""
    return Path(os.environ.get("I4D_CACHE") or Path.home() / ".cache" / "i4d_bench")


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` that takes its name when the block succeeds and is removed when it fails.

    Raises UserError when the folder cannot be written.
    """
    partial = path.with_name(f".{os.getpid()}.{path.name}")  # keeps the suffix: np.savez appends a missing .npz
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as e:
        raise UserError(f"cannot write {path}: {e.strerror or e} (I4D_CACHE names another cache folder)") from e
