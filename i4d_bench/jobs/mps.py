"""NVIDIA's Multi-Process Service: kernels of several processes run on a GPU at the same time, in place of in turns."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from i4d_bench.progress import console

CONTROL = "nvidia-cuda-mps-control"
PIPE, LOG = "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"


@contextmanager
def shared(jobs: int) -> Iterator[None]:
    """Inside, processes that are started share GPUs through a daemon of their own, where several of them use one and there is the
    service; the log says which. A daemon that the environment names is used as it is."""
    if jobs < 2:
        yield
        return
    if os.environ.get(PIPE):
        console.print(f"{jobs} processes share a GPU through the MPS daemon in {os.environ[PIPE]}")
        yield
        return
    with tempfile.TemporaryDirectory(prefix="mps-") as folder:
        why = _start(Path(folder))
        if why:
            console.print(f"{jobs} processes share a GPU in turns, without MPS: {why}")
            yield
            return
        console.print(f"{jobs} processes share a GPU through MPS")
        try:
            yield
        finally:
            subprocess.run([CONTROL], input="quit\n", capture_output=True, timeout=60, encoding="utf-8", check=False)
            del os.environ[PIPE], os.environ[LOG]


def _start(folder: Path) -> str:
    """Starts a daemon for this process and its children. Returns why it could not, or nothing."""
    if shutil.which(CONTROL) is None:
        return f"there is no {CONTROL} here"
    os.environ |= {PIPE: str(folder), LOG: str(folder)}
    try:
        done = subprocess.run([CONTROL, "-d"], capture_output=True, timeout=60, encoding="utf-8", check=False)
        why = (done.stderr or done.stdout).strip() if done.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as e:
        why = str(e)
    if why:
        del os.environ[PIPE], os.environ[LOG]
    return why
