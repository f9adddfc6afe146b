"""`variants` and `kernels` are plain names, and others have packages of them (Hugging Face's `kernels`): are they ours?"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from i4d_bench.errors import UserError


def check() -> None:
    """Raises UserError when an import of `variants` or `kernels` would find somebody else's. Imports neither."""
    root = Path(__file__).resolve().parent.parent
    for name in ("variants", "kernels"):
        spec = find_spec(name)
        if spec is None:
            raise UserError(f"{root} holds no package `{name}`: install i4d-bench again")
        found = Path(spec.origin or next(iter(spec.submodule_search_locations or ["?"])))
        ours = root / name / "__init__.py"
        if found.resolve() != ours or "i4d_bench" not in ours.read_text(encoding="utf-8"):
            raise UserError(
                f"{found} is not our package `{name}` but hides it: take it off Python's path, or out of this environment "
                "and install i4d-bench again"
            )
