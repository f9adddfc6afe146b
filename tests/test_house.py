"""The floor plan (DESIGN §1), read from the imports themselves: arrows point down, and no files import each other in a circle."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
STOREYS = (
    "cli",
    "listing",
    "jobs",
    "report",
    "train",
    "play",
    "evaluate",
    "speed",
    "doctor",
    "results",
    "loader",
    "drivers",
    "metrics",
    "data",
    "model",
    "render",
    "heads",
    "config",
    "assets",
    "cache printing reading",
    "camera source stats progress types",
    "extras outputs",
    "errors portable siblings",
)
"""Rooms of i4d_bench, the top one first; a line of several is one storey."""


def modules() -> dict[str, Path]:
    """Every module of ours by its dotted name."""
    found = {}
    for package in ("i4d_bench", "variants", "kernels"):
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(name: str) -> set[str]:
    """Modules of ours that a module imports, at its top or in a function."""
    out = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            out |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name} has a relative import"
            inside = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
            out |= inside or {node.module}
    return {m for m in out if m in MODULES and m != name}


def storey(name: str) -> int:
    """How far below the roof a module lies; the package's own file is in the cellar."""
    room = name.split(".")[1] if "." in name else "types"
    return next(k for k, rooms in enumerate(STOREYS) if room in rooms.split())


HARNESS = [name for name in MODULES if name.split(".")[0] == "i4d_bench"]


@pytest.mark.parametrize("name", HARNESS)
def test_arrows_point_down(name):
    ours = {m for m in imports(name) if m.split(".")[0] == "i4d_bench"}
    assert not {m for m in ours if storey(m) < storey(name)}


def test_no_circle_between_files():
    graph = {name: imports(name) - {name.rpartition(".")[0]} for name in MODULES}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as e:
        pytest.fail(" → ".join(e.args[1]))


def test_variants_know_the_nouns_of_the_harness_and_nothing_else_of_it():
    for name in MODULES:
        if name.split(".")[0] == "variants":
            assert {m for m in imports(name) if m.split(".")[0] == "i4d_bench"} <= {"i4d_bench.types"}, name


def test_kernels_import_nothing_of_ours():
    for name in MODULES:
        if name.split(".")[0] == "kernels":
            assert all(m.split(".")[0] == "kernels" for m in imports(name)), name


def is_binary(call: ast.Call) -> bool:
    mode = [*(a for a in call.args), *(k.value for k in call.keywords if k.arg == "mode")]
    return any(isinstance(m, ast.Constant) and isinstance(m.value, str) and "b" in m.value for m in mode)


@pytest.mark.parametrize("name", [*MODULES, "noxfile"])
def test_text_is_utf8_whatever_the_locale_says(name):
    """Every file and every other program's output: a locale of Latin-1 or cp1252 would read and write our signs as others."""
    tree = ast.parse((MODULES | {"noxfile": ROOT / "noxfile.py"})[name].read_text(encoding="utf-8"))
    modules = {"av", "os", "tarfile", "Image", "lmdb", "tables"}  # their functions of these names take other things
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        function, given = call.func, {k.arg for k in call.keywords}
        called = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        owner = getattr(function.value, "id", None) if isinstance(function, ast.Attribute) else None
        where = f"{name}, line {call.lineno}"
        if isinstance(function, ast.Attribute) and called in ("read_text", "write_text") and owner not in modules:
            assert "encoding" in given, where
        if called == "open" and owner not in modules and not is_binary(call):
            assert "encoding" in given, where
        assert not given & {"text", "universal_newlines"}, where


def test_one_file_knows_of_several_processes():
    """Of torch.distributed, and of what torchrun says in the environment."""
    words = ("torch.distributed", "WORLD_SIZE", "LOCAL_RANK")
    knowing = {n for n, path in MODULES.items() if any(word in path.read_text(encoding="utf-8") for word in words)}
    assert knowing == {"i4d_bench.train.distributed"}
