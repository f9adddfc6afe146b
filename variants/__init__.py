"""Fusion designs of i4d_bench, one file each. `create(name, **overrides)`, `names()`, `load(entries)`: see variants.base."""

from variants.base import Fusion, Prepared, about, create, design, given, know, load, names, register

__all__ = ["Fusion", "Prepared", "about", "create", "design", "given", "know", "load", "names", "register"]
