"""Triton's interpreter without what it does again and again, and unseen by coverage: a third of the time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from helpers.tracing import untraced


class _Nothing:
    """A scope in which nothing was changed."""

    def restore(self) -> None:
        pass


def quicken() -> None:
    """Within one launch `triton.language` is made interpretable once, instead of at every call of a function in the kernel; numpy's
    type of each of Triton's is looked up once; and launches are not traced: coverage leaves kernels out, whose lines no tracer sees
    on a GPU."""
    from triton.runtime import interpreter

    patch, run, look_up = interpreter._patch_lang, interpreter.GridExecutor.__call__, interpreter._get_np_dtype
    seen: set[frozenset[str]] = set()
    types: dict[str, np.dtype] = {}

    def once(function: Callable):
        known = frozenset(k for k, v in function.__globals__.items() if v is interpreter.tl or v is interpreter.tl.core)
        if known in seen:
            return _Nothing()
        seen.add(known)
        return patch(function)

    def numpy_type(of) -> np.dtype:
        name = of.scalar.name  # of a block its elements'
        if name not in types:
            types[name] = look_up(of.scalar)
        return types[name]

    def launch(self, *args, **kwargs):
        try:
            return run(self, *args, **kwargs)
        finally:
            seen.clear()

    interpreter._get_np_dtype = numpy_type
    interpreter._patch_lang, interpreter.GridExecutor.__call__ = once, untraced(launch)
