"""Where files that are made or fetched once are kept: $I4D_CACHE, else ~/.cache/i4d_bench."""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import SoftFileLease, Timeout

from i4d_bench.errors import UserError
from i4d_bench.portable import home
from i4d_bench.progress import console

LOST, RENEWED, LOOK = 60.0, 10.0, 0.5
"""Seconds: without a sign of life of a lock's holder on another machine until it counts as gone; between signs; between looks."""
WORDLESS = 10.0
"""Seconds that a lock's file may be empty, while its maker writes who it is."""


def cache_dir() -> Path:
    """The cache folder (it need not exist yet). Raises UserError for an account without a home that names none."""
    if named := os.environ.get("I4D_CACHE"):
        return Path(named)
    if (own := home()) is None:
        raise UserError("this account has no home folder: set I4D_CACHE to a folder that it can write")
    return own / ".cache" / "i4d_bench"


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns what a full, missing or forbidden disk raises into a UserError that names `path`."""
    try:
        yield
    except OSError as e:  # numpy does not pass the system's reason on when only a part could be written
        raise UserError(f"cannot write {path}: {e.strerror or 'no space left on the disk'}{_hint(path)}") from e
    except RuntimeError as e:
        if "inline_container" not in str(e):  # torch.save's writer, which does not pass it on either
            raise
        raise UserError(f"cannot write {path}: no space left on the disk{_hint(path)}") from e


def _hint(path: Path) -> str:
    try:
        inside = cache_dir() in Path(path).absolute().parents
    except UserError:  # no home, hence no cache
        inside = False
    return " (I4D_CACHE names another cache folder)" if inside else ""


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` that takes its name when the block succeeds and is removed when it fails.

    Raises UserError when the file cannot be written.
    """
    partial = path.with_name(
        f".{secrets.token_hex(4)}.{path.name}"
    )  # keeps the suffix: np.savez appends a missing .npz
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def lock(path: Path) -> SoftFileLease:
    """A lock of `path`, to be acquired, among all processes of all machines on a file system, which need not know locks (NFS).

    It is a file that names its holder and is renewed. A holder that was killed on this machine is noticed at once; one of another
    machine once its file was seen unchanged for LOST seconds, by the watcher's own clock.
    """
    file = path.with_name(f".{path.name}.lease")
    return SoftFileLease(
        file,
        lease_duration=LOST,
        heartbeat_interval=RENEWED,
        poll_interval=LOOK,
        on_compromise=lambda _: console.print(f"another process took {file}: this one gave no sign for {LOST:.0f} s"),
    )


def acquire(own: SoftFileLease, seconds: float = float("inf")) -> None:
    """Acquires it, or raises Timeout after so many seconds. A file without a word, whose holder was killed as it made it, is no
    lock: filelock would wait for it for ever."""
    file, until = Path(own.lock_file), time.monotonic() + seconds
    while True:
        seen = _wordless(file)
        try:
            own.acquire(timeout=min(WORDLESS, max(0.0, until - time.monotonic())))
            return
        except Timeout:
            if seen is not None and _wordless(file) == seen:
                file.unlink(missing_ok=True)
            elif time.monotonic() >= until:
                raise


def _wordless(file: Path) -> tuple[int, int] | None:
    """Which file it is and when it was made, where it is empty."""
    try:
        now = file.stat()
    except OSError:
        return None
    return (now.st_ino, now.st_mtime_ns) if now.st_size == 0 else None


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Inside, this process is the only one on the file system that makes `path`; others wait, and say so. Raises UserError."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        own = lock(path)
        try:
            own.acquire(timeout=0)
        except Timeout:
            console.print(f"waiting for another process that makes {path}")
            acquire(own)
    try:
        yield
    finally:
        own.release()


def make_once(path: Path, make: Callable[[], object]) -> Path:
    """`path`, which `make` makes where it is not there. Of several processes that want it, one makes it and the others wait."""
    if not path.exists():
        with alone(path):
            if not path.exists():
                make()
    return path


def file_digest(path: Path) -> str:
    """A short hash of a file's bytes. Raises UserError."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as e:
        raise UserError(f"cannot read {path}: {e.strerror or e}") from e
