"""What differs between systems and between accounts: usable cores, folders that can be written, what a terminal can print."""

from __future__ import annotations

import io
import logging
import os
import stat
import sys
import tempfile
from pathlib import Path


def cores() -> int:
    """CPU cores that this process may use; where the system does not say (macOS, Windows), all there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def home() -> Path | None:
    """The user's home folder; None for an account without one, as containers run under a number without a name."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def can_be_written(folder: Path) -> bool:
    """Whether `folder` can be made, or files in it. Makes nothing."""
    for place in (folder, *folder.absolute().parents):
        if os.path.lexists(place):
            return place.is_dir() and os.access(place, os.W_OK | os.X_OK)
    return False


def use_temporary_caches() -> None:
    """Sends what libraries keep of compiled code and fonts to a temporary folder where this account has no place for it.

    Without one, numba stops at its first function, and others make a folder named `~`. Losing such a cache costs time alone;
    that matplotlib makes its own is not said between our sentences.
    """
    logging.getLogger("matplotlib.font_manager").addFilter(
        lambda told: "building the font cache" not in told.getMessage()
    )
    own, given = home(), os.environ.get("XDG_CACHE_HOME")
    shared = Path(given) if given else own and own / ".cache"
    places = {name: shared for name in ("NUMBA_CACHE_DIR", "MPLCONFIGDIR", "TORCH_EXTENSIONS_DIR", "TORCH_HOME")}
    places |= {"TRITON_CACHE_DIR": own and own / ".triton"}
    lost = [name for name, at in places.items() if name not in os.environ and not (at and can_be_written(at))]
    if lost:
        folder = _private_folder()
        os.environ.update({name: str(folder / name.lower()) for name in lost})


def _private_folder() -> Path:
    """A temporary folder of this user alone, the same every time: what lies in it is run as code."""
    who = os.getuid() if hasattr(os, "getuid") else 0
    folder = Path(tempfile.gettempdir()) / f"i4d_bench-{who}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        seen = folder.lstat()
        if stat.S_ISDIR(seen.st_mode) and seen.st_uid == who and not seen.st_mode & 0o077:
            return folder
    except OSError:
        pass  # somebody else's file of that name
    return Path(tempfile.mkdtemp(prefix="i4d_bench-"))


def print_anything() -> None:
    """Signs that the terminal's encoding lacks (≥ in cp1252) print as `?`, in this process and those it starts."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    encoding = os.environ.get("PYTHONIOENCODING", "").partition(":")[0]
    os.environ["PYTHONIOENCODING"] = f"{encoding}:replace"
