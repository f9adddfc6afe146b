"""Fusion designs of i4d_bench, one file each. `create(name, **overrides)`, `names(family=None)`: see variants.base."""

from variants.base import Fusion, Prepared, create, design, names, register

__all__ = ["Fusion", "Prepared", "create", "design", "names", "register"]
