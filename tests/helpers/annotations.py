"""Annotations hold: jaxtyping and beartype check shapes and types at every call of an annotated function in the tests' process."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any, Self

from beartype import BeartypeConf, beartype
from jaxtyping import _import_hook, install_import_hook

PACKAGES = ("i4d_bench", "variants", "kernels")


def check_annotations() -> None:
    """From here on modules of ours are imported with their checks."""
    _import_hook.JaxtypingTransformer = _Checks
    install_import_hook(PACKAGES, f"{__name__}.enforced")


def enforced(function: Callable) -> Callable:
    """Checks a function's types; an int is a float (PEP 484). beartype knows Self only where it sees the whole class."""
    hints = {name: Any if hint is Self else hint for name, hint in function.__annotations__.items()}
    function.__annotations__ = hints
    return beartype(conf=BeartypeConf(is_pep484_tower=True))(function)


class _Checks(_import_hook.JaxtypingTransformer):
    """Leaves alone what numba and Triton compile, since they read a function's source, what has no annotations, and functions
    within functions: their checks would be written and compiled anew at every call of what they are in."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        compiled = any("jit" in ast.unparse(d) for d in node.decorator_list)
        a = node.args
        parameters = [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))]
        annotated = node.returns is not None or any(p.annotation for p in parameters)
        within = any(isinstance(p, ast.FunctionDef) for p in self._parents)
        if annotated and not compiled and not within:
            return super().visit_FunctionDef(node)
        self._parents.append(node)
        self.generic_visit(node)
        self._parents.pop()
        return node
