"""How files with designs get imported: ours, those of installed packages, and the user's own, from anywhere.

What goes wrong in somebody's file becomes one sentence with its line.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import pkgutil
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import SourceFileLoader
from pathlib import Path

from i4d_bench.types import UserError

ENTRY_POINTS = "i4d_bench.designs"
"""The group of entry points by which an installed package brings designs: each names a module that registers some."""


@functools.cache
def ours() -> None:
    """Every file of this folder."""
    folder = Path(__file__).parent
    for module in pkgutil.iter_modules([str(folder)]):
        with _told(folder / f"{module.name}.py"):
            importlib.import_module(f"variants.{module.name}")


@functools.cache
def installed() -> None:
    """Every entry point of the group, in this environment."""
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        package = point.dist.name if point.dist else point.name
        with _told(
            f"{point.value}, an entry point that the package {package} brings (mend it, or uninstall the package),"
        ):
            point.load()


def file(path: Path) -> None:
    """A file anywhere, which may import its neighbours. Raises UserError."""
    if path.is_dir():
        raise UserError(f"{path} is a folder: name a file in it, or a package as PACKAGE.MODULE")
    if not path.exists():
        raise UserError(f"there is no file {path}")
    name = f"design_{re.sub(r'[^0-9A-Za-z]', '_', path.stem)}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path, loader=SourceFileLoader(name, str(path)))
    assert spec is not None and spec.loader is not None, "the loader is given"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and torch.compile look a class's module up there
    try:
        with _told(path):
            spec.loader.exec_module(module)
    except UserError:
        del sys.modules[name]
        raise


def module(name: str) -> None:
    """A module of this environment or of the folder that the command was started in. Raises UserError."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    importlib.invalidate_caches()
    try:
        with _told(name):
            importlib.import_module(name)
    except UserError as e:
        cause = e.__cause__
        if isinstance(cause, ModuleNotFoundError) and f"{name}.".startswith(f"{cause.name}."):
            raise UserError(f"there is no module {name}, here or in this environment") from cause
        raise


@contextmanager
def _told(what: Path | str) -> Iterator[None]:
    """Raises UserError for whatever goes wrong inside."""
    try:
        yield
    except (Exception, SystemExit) as e:  # a script may end the process when it is imported
        raise UserError(f"{what} cannot be imported: {_reason(e, str(what))}") from e


def _reason(e: BaseException, path: str) -> str:
    """Kind, message and place of an error in one line; the place is a line of `path` where the error passed through it."""
    if isinstance(e, SyntaxError):
        return f"{e.msg} (line {e.lineno})" if e.filename == path else f"{e.msg} ({e.filename}, line {e.lineno})"
    said = f"{type(e).__name__}: {' '.join(str(e).split())}"
    passed = traceback.extract_tb(e.__traceback__)
    if here := [f.lineno for f in passed if f.filename == path]:
        return f"{said} (line {here[-1]})"
    frames = [f for f in passed if not _plumbing(f.filename)]
    return f"{said} ({frames[-1].filename}, line {frames[-1].lineno})" if frames else said


def _plumbing(filename: str) -> bool:
    """Whether a line of a traceback belongs to importing itself."""
    return filename == __file__ or filename.startswith("<frozen importlib") or Path(filename).parent.name == "importlib"
