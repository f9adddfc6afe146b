"""The code that a result depends on, as a hash: the source of what a job executes (DESIGN §4).

From a job's entry points the imports of our own files are followed, those within functions too; what Python would do with
each file is hashed. Comments, docstrings and formatting change nothing. A file counts whole: too much rather than too little.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OURS = ("i4d_bench", "variants", "kernels")
SILENT = {"i4d_bench.progress", "i4d_bench.metrics.cards"}
"""What prints or describes; no number depends on it."""


def digest(*entries: str | Path) -> str:
    """Of modules of ours ("i4d_bench.train.loop") or of files, a user's design for instance, with all that they import."""
    of = hashlib.sha256()
    for name, path in sorted(closure(*entries).items()):
        of.update(f"{name}\n{read(path)[0]}\n".encode())
    return of.hexdigest()[:16]


def closure(*entries: str | Path) -> dict[str, Path]:
    """The files reached from the entries, by dotted name (a file that is not ours: by its path below its package's folder)."""
    given = {e: _ours(e) if isinstance(e, str) else Path(e).resolve() for e in entries}
    todo = [path for path in given.values() if path is not None and path.is_file()]
    missing = [str(e) for e, path in given.items() if path not in todo]
    if missing:
        raise ValueError(f"no source for {', '.join(missing)}")
    found: dict[str, Path] = {}
    while todo:
        path = todo.pop()
        name = _name(path)
        if name in found or name in SILENT:
            continue
        found[name] = path
        todo += read(path)[1]
    return found


@functools.cache
def read(path: Path) -> tuple[str, tuple[Path, ...]]:
    """A file's code in one normal form, and the files of ours, or beside it, that it imports."""
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        for field in ("body", "orelse", "finalbody"):
            block = getattr(node, field, None)
            if isinstance(block, list):
                setattr(node, field, [s for s in block if not _says_nothing(s)] or ([ast.Pass()] if block else []))
    return ast.unparse(tree), tuple(dict.fromkeys(_imported(path, tree)))


def _says_nothing(statement: ast.AST) -> bool:
    """A docstring, or another string that stands alone."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _imported(path: Path, tree: ast.Module) -> Iterator[Path]:
    package = path.parent / "__init__.py"
    if package.is_file():
        yield package
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names, base = [alias.name for alias in node.names], None
        elif isinstance(node, ast.ImportFrom):
            base = path.parents[node.level - 1] if node.level else None
            module = [node.module] if node.module else []
            names = [".".join([*module, *more]) for more in ([], *([alias.name] for alias in node.names))]
        else:
            continue
        for name in filter(None, names):
            parts = name.split(".")
            for k in range(1, len(parts) + 1):  # importing a.b runs a's own file, too
                file = _below(base or _home(path, parts[0]), parts[:k])
                if file is not None:
                    yield file


def _home(path: Path, package: str) -> Path:
    """The folder in which an absolute import of a package is looked for: ours, or that of the importing file's own package."""
    if package in OURS:
        return ROOT
    folder = path.parent
    while (folder / "__init__.py").is_file():
        folder = folder.parent
    return folder


def _below(folder: Path, parts: list[str]) -> Path | None:
    place = folder.joinpath(*parts)
    return next((f for f in (place.with_name(f"{place.name}.py"), place / "__init__.py") if f.is_file()), None)


def _ours(name: str) -> Path | None:
    return _below(ROOT, name.split("."))


def _name(path: Path) -> str:
    top = path.parent
    while (top / "__init__.py").is_file():
        top = top.parent
    parts = path.relative_to(top).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
