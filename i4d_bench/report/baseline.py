"""The row that others are compared with."""

from __future__ import annotations

from collections.abc import Mapping

from i4d_bench.types import UserError

DEFAULT = "local_adaln"
"""The paper's own operator, where it is among the rows."""


def pick(families: Mapping[str, str], wanted: str | None = None) -> str | None:
    """`wanted` of the rows, given in their order with their families; else DEFAULT, else the first that is no control, else none.

    Raises UserError where `wanted` is no row.
    """
    if wanted is not None:
        if wanted not in families:
            raise UserError(f"there is no row {wanted!r} to compare with; there are {', '.join(families) or 'none'}")
        return wanted
    if DEFAULT in families:
        return DEFAULT
    return next((name for name, family in families.items() if family != "control"), None)
