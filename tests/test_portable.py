"""Accounts without a home, terminals that cannot print every sign, systems without Linux's calls."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT

from i4d_bench import cli, portable
from i4d_bench.assets import roots
from i4d_bench.cache import cache_dir
from i4d_bench.errors import UserError

CACHES = ("NUMBA_CACHE_DIR", "MPLCONFIGDIR", "TORCH_EXTENSIONS_DIR", "TORCH_HOME", "TRITON_CACHE_DIR")
NO_NAME = """
import pwd
def unknown(*_):
    raise KeyError("uid not found")
pwd.getpwuid = unknown
"""
"""An account under a number alone, as `docker run --user 12345` has."""
OTHER_SYSTEM = """
import os, sys
del os.sched_getaffinity
sys.modules.update(dict.fromkeys(("fcntl", "resource", "triton")))
"""
"""What macOS (no affinity, no Triton) and Windows (no fcntl, no resource) lack."""


def python(code: str, cwd: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess:
    """Runs `code` in a bare environment."""
    bare = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "TMPDIR": str(cwd), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, cwd=cwd, env=bare | env)


def command(*arguments: str) -> str:
    """A command that goes on where it ends well."""
    main = "try:\n    cli.main()\nexcept SystemExit as stop:\n    if stop.code:\n        raise\n"
    return f"import sys\nfrom i4d_bench import cli\nsys.argv = {['i4d-bench', *arguments]}\n{main}"


RENDER = """
import numpy as np, os
from i4d_bench.heads import posing
from i4d_bench.render import cpu, mesh
print(os.environ["NUMBA_CACHE_DIR"])
"""


@pytest.fixture
def nowhere(tmp_path) -> str:
    """A home folder that nobody, not even root, can make."""
    (tmp_path / "file").touch()
    return str(tmp_path / "file" / "home")


def test_compiled_code_goes_to_a_private_temporary_folder_where_there_is_no_home(tmp_path, nowhere):
    for prelude, env in ((NO_NAME, {}), ("", {"HOME": nowhere})):
        done = python(prelude + RENDER, tmp_path, **env)
        assert done.returncode == 0, done.stderr
        folder = Path(done.stdout.decode().strip())
        assert folder.is_relative_to(tmp_path) and folder.parent.stat().st_mode & 0o777 == 0o700
        assert not (tmp_path / "~").exists(), "a folder of that name is nobody's home"


def test_folders_that_the_user_named_or_can_write_stay(tmp_path, monkeypatch):
    for name in CACHES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    portable.use_temporary_caches()
    assert not set(CACHES) & os.environ.keys()
    monkeypatch.setenv("HOME", "/dev/null/home")
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/mine")
    monkeypatch.setattr(portable.tempfile, "gettempdir", lambda: str(tmp_path))
    portable.use_temporary_caches()
    assert os.environ["NUMBA_CACHE_DIR"] == "/mine"
    for name in CACHES[1:]:
        assert Path(os.environ[name]).is_relative_to(tmp_path)
        monkeypatch.setenv(name, os.environ[name])  # and away after the test


def test_a_temporary_folder_that_others_can_write_is_not_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(portable.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(portable.tempfile, "tempdir", str(tmp_path))
    own = portable._private_folder()
    assert portable._private_folder() == own
    own.chmod(0o777)
    other = portable._private_folder()
    assert other != own and other.stat().st_mode & 0o077 == 0
    own.rmdir()
    own.symlink_to(other)
    assert portable._private_folder() not in (own, other)


@pytest.mark.parametrize("place", ["there", "there/not/yet", "file", "file/below", "link"])
def test_whether_a_folder_can_be_written_is_known_without_making_it(tmp_path, place):
    (tmp_path / "there").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    before = sorted(tmp_path.rglob("*"))
    assert portable.can_be_written(tmp_path / place) == place.startswith("there")
    assert sorted(tmp_path.rglob("*")) == before


def test_an_account_without_a_home_is_told_what_to_set(monkeypatch):
    monkeypatch.delenv("I4D_CACHE", raising=False)
    monkeypatch.delenv("I4D_ASSETS", raising=False)
    monkeypatch.setattr(portable.Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    with pytest.raises(UserError, match="I4D_CACHE"):
        cache_dir()
    assert roots() == []


def test_without_a_home_assets_are_listed_and_the_main_job_says_what_to_set(tmp_path, nowhere, monkeypatch, capsys):
    job = ("run", "--preset", "smoke")
    done = python(NO_NAME + command("assets") + command(*job), tmp_path)
    said = done.stderr.decode()
    assert b"missing" in done.stdout and done.returncode == 2 and "I4D_CACHE" in said and said.count("\n") == 1, said
    monkeypatch.setenv("HOME", nowhere)
    monkeypatch.delenv("I4D_CACHE")
    monkeypatch.setattr(sys, "argv", ["i4d-bench", *job])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    said = capsys.readouterr().err
    assert stop.value.code == 2 and "I4D_CACHE" in said and said.count("\n") == 1, said


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_any_terminal_can_be_printed_to(tmp_path, encoding):
    """`list metrics` has ↑, rich's bars have ━, and a file's name may be no text at all."""
    code = command("list", "metrics") + 'print("caf\\udce9.mp4")\nfrom i4d_bench.progress import console, track'
    code += '\nfor _ in track(range(2), "γ", 2, note=lambda: "≥"):\n    pass'
    done = python(code, tmp_path, HOME=str(tmp_path), PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    assert ("↑" if encoding == "utf-8" else "?") in done.stdout.decode(encoding)


def test_processes_that_are_started_print_anything_too(tmp_path):
    code = "import subprocess, sys\nfrom i4d_bench.portable import print_anything\nprint_anything()\n"
    code += "sys.exit(subprocess.call([sys.executable, '-c', 'print(chr(8805))']))"
    done = python(code, tmp_path, HOME=str(tmp_path), PYTHONIOENCODING="cp1252")
    assert done.returncode == 0 and done.stdout.strip() == b"?"


def test_everything_imports_where_linux_has_its_own_calls(tmp_path):
    """All but the Triton kernels themselves, which nothing imports before it has a GPU."""
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for package in ("i4d_bench", "variants", "kernels")
        for path in sorted((ROOT / package).rglob("*.py"))
        if not {"fused", "raster"} & set(path.parts)
    ]
    code = OTHER_SYSTEM + f"import importlib\nfor name in {names}:\n    importlib.import_module(name)\n"
    code += "from i4d_bench.results.environment import hardware_name\nimport json\n"
    code += "from i4d_bench.portable import cores\nprint(json.dumps([hardware_name(), cores()]))"
    done = python(code, tmp_path, HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr.decode()
    name, cores = json.loads(done.stdout)
    assert cores == os.cpu_count() and name.endswith(f"{cores}cores")
