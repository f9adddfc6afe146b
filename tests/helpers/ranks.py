"""Processes that train together, as torchrun starts them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
from multiprocessing import reduction


class Rank:
    """A process that runs Python code, started warm (`helpers.processes`); what it prints is read as a subprocess's."""

    def __init__(self, code: str, env: dict[str, str]):
        (read_out, out), (read_err, err) = os.pipe(), os.pipe()
        self.stdout, self.stderr = (open(fd, encoding="utf-8") for fd in (read_out, read_err))
        self._process = multiprocessing.get_context("spawn").Process(target=_Code(code, env, out, err))
        self._process.start()
        for fd in (out, err):
            os.close(fd)

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self, seconds: float) -> int | None:
        self._process.join(seconds)
        return self.returncode

    def kill(self) -> None:
        self._process.kill()


class _Code:
    """A process's target: calls itself there, with its output and environment."""

    def __init__(self, code: str, env: dict[str, str], *outputs: int):
        self.code, self.env, self.outputs = code, env, outputs

    def __reduce__(self):
        return _there, (self.code, self.env, *map(reduction.DupFd, self.outputs))

    def __call__(self) -> None:
        os.environ.update(self.env)
        for own, fd in enumerate(self.outputs, 1):
            os.dup2(fd, own)
            os.close(fd)
        sys.stdout, sys.stderr = (open(fd, "w", 1, encoding="utf-8", closefd=False) for fd in (1, 2))
        exec(self.code, {"__name__": "__main__"})


def command(*words: str) -> str:
    """The code of an `i4d-bench` command."""
    return f"import sys\nfrom i4d_bench import cli\nsys.argv = {['i4d-bench', *words]}\ncli.main()"


def _there(code: str, env: dict[str, str], *outputs) -> _Code:
    return _Code(code, env, *(fd.detach() for fd in outputs))


def start(code: str, count: int = 2) -> list[Rank]:
    """Runs Python code in `count` processes, the ranks of one training."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    own = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    envs = ({**shared, **own, "RANK": rank, "LOCAL_RANK": rank} for rank in range(count))
    return [Rank(code, {k: str(v) for k, v in env.items()}) for env in envs]


def end(started: list[Rank]) -> list[tuple[int | None, str, str]]:
    """Exit code, standard output and error of each, within two minutes."""
    try:
        for process in started:
            process.wait(120)
    finally:
        for process in started:
            process.kill()
            process.wait(5)
    return [(process.returncode, process.stdout.read(), process.stderr.read()) for process in started]
