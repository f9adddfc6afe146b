"""Where a command writes, looked at before its work begins. Nothing is left behind, and nothing that stands there is touched."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from i4d_bench.errors import UserError

SITE = ".i4d_bench-site"
"""Marks a folder as a site of ours. `.nojekyll` does not: whatever GitHub Pages shows may have one of its own."""


def folder(path: Path) -> Path:
    """A folder to write into, which need not exist. Raises UserError where it cannot be made or written."""
    made = [place for place in (path, *path.absolute().parents) if not os.path.lexists(place)]
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError as e:
        raise UserError(f"cannot write in {path}: {e.strerror or e}") from e
    finally:
        with suppress(OSError):  # one that another process uses by now stays
            for place in made:
                place.rmdir()
    return path


def data_set(path: Path) -> Path:
    """The folder, links followed, that a new data set takes the place of: none, an empty one, or another data set.

    Raises UserError for one that cannot be replaced: a file, a folder of other things, a mounted disk, the folder one is in.
    """
    return _replaced(path, "dataset.json", "a data set")


def site(path: Path, inputs: Iterable[Path]) -> Path:
    """The folder, links followed, that a new site takes the place of: none, an empty one, or another site with our SITE in it.

    Raises UserError for one that cannot be replaced, as of a data set, and for one that holds an input, or lies in one.
    """
    out = _resolved(path)
    for i in map(_resolved, inputs):
        if out.is_relative_to(i) or i.is_relative_to(out):
            raise UserError(f"{path} holds {i}, or lies in it: name another folder, nothing was changed")
    return _replaced(path, SITE, "a site that this command has made")


def file(path: Path, inputs: Iterable[Path] = ()) -> Path:
    """The file, links followed, that is made or replaced. Raises UserError for a folder, one of the inputs, and where it cannot be
    written."""
    out = _resolved(path)
    if out.is_dir():
        raise UserError(f"{path} is a folder: name a file in it")
    if any(out == _resolved(i) or out.is_relative_to(_resolved(i)) for i in inputs):
        raise UserError(f"{path} is an input, or lies in one: name another file, nothing was changed")
    folder(out.parent)
    return out


def _replaced(path: Path, mark: str, what: str) -> Path:
    """mark: the file in a folder by which it is known as ours."""
    out = _resolved(path)
    here = Path.cwd()
    if out == here or out in here.parents:
        raise UserError(f"{path} is the folder you are in, or holds it, and would be replaced: name a new one in it")
    if out.exists() and not (out / mark).is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"{path} exists and is not {what}: name another folder, nothing was changed")
    if os.path.ismount(out):
        raise UserError(f"a disk is mounted at {path}, which cannot be replaced: name a new folder in it")
    folder(out.parent)
    return out


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError) as e:  # a link that leads to itself
        raise UserError(f"{path} leads nowhere: {e}") from e
