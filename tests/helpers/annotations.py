"""Annotations hold: beartype checks types and jaxtyping shapes at every call of an annotated function in the tests' process."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, Self

import jaxtyping
from beartype import BeartypeConf, beartype
from jaxtyping import _decorator, _import_hook, _storage, install_import_hook

PACKAGES = ("i4d_bench", "variants", "kernels")
STRICT = BeartypeConf(is_pep484_tower=True)
"""An int is a float (PEP 484)."""


def check_annotations() -> None:
    """From here on modules of ours are imported with their checks."""
    _import_hook.JaxtypingTransformer = _Checks
    install_import_hook(PACKAGES, f"{__name__}.checked")


def checked(what: Any) -> Any:
    """Checks what a function is given and returns, one size for each name in its shapes; of a dataclass its fields.

    In place of `jaxtyping.jaxtyped`, which binds every call to a signature and checks its arguments twice, for its messages.
    """
    if inspect.isclass(what):
        made = vars(what).get("__init__")
        if dataclasses.is_dataclass(what) and made is not None and not hasattr(made, "__wrapped__"):
            what.__init__ = checked(made)
        return what
    if inspect.isgeneratorfunction(what):  # which beartype would check when it is first asked, in another scope
        return jaxtyping.jaxtyped(what, typechecker=_strict)
    strict = _strict(what)

    @functools.wraps(what)
    def run(*args, **kwargs):
        if jaxtyping.config.jaxtyping_disable:
            return what(*args, **kwargs)
        _storage.push_shape_memo({})
        try:
            return strict(*args, **kwargs)
        finally:
            _storage.pop_shape_memo()

    return run


def _strict(function: Callable) -> Callable:
    """beartype knows Self only where it sees the whole class; what cannot be told yet is anything."""
    written = function.__annotations__
    known = {name: _decorator._destring_annotation(hint, function.__globals__) for name, hint in written.items()}
    function.__annotations__ = {name: Any if hint is Self else hint for name, hint in known.items()}
    try:
        return beartype(conf=STRICT)(function)
    finally:
        function.__annotations__ = written


class _Checks(_import_hook.JaxtypingTransformer):
    """Leaves alone what numba and Triton compile, since they read a function's source, what has no annotations, and functions
    within functions: their checks would be written and compiled anew at every call of what they are in."""

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        super().visit_ClassDef(node)
        node.decorator_list[0] = _bare(node.decorator_list[0])
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        compiled = any("jit" in ast.unparse(d) for d in node.decorator_list)
        a = node.args
        parameters = [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))]
        annotated = node.returns is not None or any(p.annotation for p in parameters)
        within = any(isinstance(p, ast.FunctionDef) for p in self._parents)
        if annotated and not compiled and not within:
            super().visit_FunctionDef(node)
            node.decorator_list[-1] = _bare(node.decorator_list[-1])
            return node
        self._parents.append(node)
        self.generic_visit(node)
        self._parents.pop()
        return node


def _bare(decorator: ast.Call) -> ast.expr:
    """`jaxtyped(typechecker=checked)` without jaxtyped, on its line."""
    inner = decorator.keywords[0].value
    for part in ast.walk(inner):
        ast.copy_location(part, decorator)
    return inner
