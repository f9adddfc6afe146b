"""The suite's commands. All sessions share one environment, `.venv`, made once: torch is 6 GB.

nox -s ablations            train and evaluate the designs, write tables and figures under reports/
nox -s tests                the test suite
nox -s coverage             the same, slower, and which lines it covers
nox -s benchmarks           the speed suite (pytest --benchmark-only)
nox -s figures              rebuild every table and figure from the stored results
nox -s site                 build the web site of all published reports into site/
nox -s compile              compile every kernel for every GPU (a quarter of an hour on two cores), or those named: -- sm_89 fp16
nox -s lint                 ruff check, ruff format, pyright: the gates of every change
"""

from __future__ import annotations

import hashlib
import os
import sys
import venv
from pathlib import Path

import nox

nox.options.sessions = ["lint", "tests"]
ROOT = Path(__file__).parent
ENV = ROOT / ".venv"
EVERYTHING = ["-n", "3", "--dist", "worksteal", "tests"]
"""All tests, by as many processes as keep two cores busy."""
PYTHON = ENV / ("Scripts" if os.name == "nt" else "bin") / "python"


def shared_environment(session: nox.Session) -> None:
    """Creates `.venv` with the project and everything optional in it, or finds it as pyproject.toml wants it."""
    wanted = hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + sys.version.encode()).hexdigest()
    stamp = ENV / "installed"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return
    session.log("making the environment .venv: about 6 GB to download, once")
    if not PYTHON.exists():
        venv.create(ENV, with_pip=True)
    session.run(str(PYTHON), "-m", "pip", "install", "--quiet", "--editable", f"{ROOT}[video,test]", external=True)
    stamp.write_text(wanted, encoding="utf-8")


def python(session: nox.Session, *args: str, **env: str) -> None:
    shared_environment(session)
    session.run(str(PYTHON), *args, external=True, env=env)


@nox.session(venv_backend="none")
def ablations(session: nox.Session) -> None:
    """Trains and evaluates the designs; options go to `i4d-bench run` (nox -s ablations -- --designs all)."""
    python(session, "-m", "i4d_bench.cli", "run", *session.posargs)


@nox.session(venv_backend="none")
def tests(session: nox.Session) -> None:
    """The test suite; GPU tests skip with a reason where there is no GPU. Options go to pytest in place of EVERYTHING."""
    python(session, "-m", "pytest", *(session.posargs or EVERYTHING))


@nox.session(venv_backend="none")
def coverage(session: nox.Session) -> None:
    """The test suite, and which lines it covers: a quarter slower."""
    python(session, "-m", "pytest", "--cov", "--cov-report=term:skip-covered", *(session.posargs or EVERYTHING))


@nox.session(venv_backend="none")
def benchmarks(session: nox.Session) -> None:
    """The speed suite; options go to pytest (nox -s benchmarks -- --benchmark-json=new.json)."""
    python(session, "-m", "pytest", "--benchmark-only", *session.posargs)


@nox.session(venv_backend="none")
def figures(session: nox.Session) -> None:
    """Rebuilds every table and figure under reports/ from the stored results alone."""
    stored = [p for name in ("runs", "speed.json") for p in (ROOT / "reports").rglob(name)]
    folders = sorted({p.parent for p in stored})
    for folder in folders:
        python(session, "-m", "i4d_bench.cli", "report", str(folder.relative_to(ROOT)))
    python(session, "-m", "i4d_bench.cli", "docs")
    session.log(f"{len(folders)} report folders rebuilt")


@nox.session(venv_backend="none")
def site(session: nox.Session) -> None:
    """Builds the web site of all published reports into site/: static files, ready for GitHub Pages."""
    python(session, "-m", "i4d_bench.cli", "site", *session.posargs)


@nox.session(venv_backend="none")
def lint(session: nox.Session) -> None:
    """Ruff's rules, its formatting, and the types by pyright."""
    python(session, "-m", "ruff", "check", ".")
    python(session, "-m", "ruff", "format", "--check", ".")
    python(session, "-m", "pyright", "--pythonpath", str(PYTHON))


@nox.session(venv_backend="none")
def compile(session: nox.Session) -> None:
    """Every kernel for GPUs that are not there: that it compiles, and fits their shared memory (nox -s compile -- sm_89 fp16)."""
    python(session, "-m", "kernels.compile", *session.posargs)
