"""Processes that train together, as torchrun starts them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

from helpers import ROOT


def start(code: str, count: int = 2) -> list[subprocess.Popen]:
    """Runs Python code in `count` processes, the ranks of one training."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    own = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    started = []
    for rank in range(count):
        env = os.environ | {k: str(v) for k, v in {**shared, **own, "RANK": rank, "LOCAL_RANK": rank}.items()}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8"}
        started.append(subprocess.Popen([sys.executable, "-c", code], env=env, cwd=ROOT, **pipes))
    return started


def end(started: list[subprocess.Popen]) -> list[tuple[int, str, str]]:
    """Exit code, standard output and error of each, within two minutes."""
    try:
        said = [process.communicate(timeout=120) for process in started]
    finally:
        for process in started:
            process.kill()
    return [(process.returncode, *words) for process, words in zip(started, said, strict=True)]
