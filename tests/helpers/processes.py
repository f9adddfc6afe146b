"""Processes that tests start by multiprocessing, without the six seconds in which each of them imports torch."""

from __future__ import annotations

import multiprocessing.context
import os
import sys
from collections.abc import Callable
from multiprocessing import forkserver, popen_forkserver, reduction
from unittest import mock

import numba

from helpers import ROOT

LIBRARIES = ["i4d_bench.jobs.local", "helpers.warm"]
"""What is imported by then, with all that it imports."""


def start_warm() -> None:
    """From here on what this process starts by `spawn` is forked off a process that has done nothing but import. It has the
    environment, folder and output of this one, as spawned ones do; what it starts in its turn is spawned."""
    multiprocessing.context.SpawnProcess._Popen = staticmethod(_started)


def _started(process) -> popen_forkserver.Popen:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    forkserver.set_forkserver_preload(LIBRARIES)
    with mock.patch.dict(os.environ, PYTHONPATH=str(ROOT)):
        forkserver.ensure_running()
    process._target = _Here(process._target)
    return popen_forkserver.Popen(process)


class _Here:
    """Calls the target with this process's environment and output, wherever it is unpickled."""

    def __init__(self, target: Callable):
        self.target = target

    def __reduce__(self):
        sys.stdout.flush()
        return _there, (dict(os.environ), *(reduction.DupFd(fd) for fd in (1, 2)), self.target)


def _there(environment: dict[str, str], out, err, target: Callable) -> Callable:
    for fd, given in ((1, out), (2, err)):
        own = given.detach()
        os.dup2(own, fd)
        os.close(own)
    os.environ.clear()
    os.environ.update(environment)
    numba.config.reload_config()  # as long as it may change how many threads there are: none has begun
    return target
