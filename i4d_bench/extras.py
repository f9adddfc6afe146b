"""Packages that are optional: what needs one that is not installed says which, and how it is had."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from i4d_bench.errors import UserError


def install(name: str) -> str:
    """The command that brings an extra's packages; nox's `.venv` has them all."""
    return f"pip install -e '.[{name}]' in a checkout of the suite"


@contextmanager
def extra(name: str, what: str) -> Iterator[None]:
    """Around imports of an extra's packages. what: that needs them. Raises UserError where one is not installed."""
    try:
        yield
    except ModuleNotFoundError as e:
        raise UserError(f"{what} needs {e.name}: {install(name)}") from e
