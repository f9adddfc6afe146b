"""The tests' own cache folder: temporary, of one session, shared by its processes. Nothing of it is the developer's."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from helpers import ROOT

WEIGHTS = ROOT / ".pytest_cache" / "weights"
"""Of LPIPS, kept from session to session: they are downloaded, which takes half a minute, and their names hold their hash."""
KEPT = "lpips_*.npz"


def open_cache() -> None:
    """Points I4D_CACHE at a new folder, for this process and those it starts."""
    folder = Path(tempfile.mkdtemp(prefix="i4d_bench-tests-"))
    for file in WEIGHTS.glob(KEPT):
        (folder / file.name).symlink_to(file)
    os.environ["I4D_CACHE"] = str(folder)


def close_cache() -> None:
    """Removes the folder, but for weights."""
    folder = Path(os.environ["I4D_CACHE"])
    for file in folder.glob(KEPT):
        if not file.is_symlink():
            WEIGHTS.mkdir(parents=True, exist_ok=True)
            shutil.move(file, WEIGHTS / file.name)
    shutil.rmtree(folder)
