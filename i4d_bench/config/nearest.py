"""What somebody may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """The three of the known names, at most, that are most like it, the nearest first."""
    return ", ".join(difflib.get_close_matches(name, list(known), n=3, cutoff=0))
