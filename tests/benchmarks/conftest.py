"""What the benchmarks share: one way to time a call, and the machine that a stored run says it was measured on."""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch

from i4d_bench.results.environment import environment
from i4d_bench.speed import protocol, suite
from i4d_bench.speed.keys import of_roof

ROOF = pytest.StashKey[dict[str, float]]()


def pytest_benchmark_update_machine_info(config, machine_info):
    """Commit, hardware, versions, and the roof measured in this session."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    roof = config.stash.get(ROOF, None)
    machine_info |= environment() | {"schema": suite.SCHEMA, "gpu": gpu, "roof": roof}


@pytest.fixture(scope="session")
def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(scope="session")
def roof(pytestconfig, device) -> dict[str, float]:
    pytestconfig.stash[ROOF] = protocol.roof(device)
    return pytestconfig.stash[ROOF]


def rounds_of(call: Callable[[], object]) -> int:
    """How many make a second on this CPU, 10 to 200: ten of one millisecond would be within one mood of a shared machine."""
    call()
    begun = time.perf_counter()
    call()
    return int(min(200, max(10, 1 / (time.perf_counter() - begun))))


@pytest.fixture
def timed(benchmark, device, roof):
    """timed(key, call, calls=1, **more): times call(k), k in turn, and stores it as a row of speed.json is (DESIGN §7).

    calls: on a GPU, so many of them make one round, replayed from a CUDA graph, so that neither launches nor the synchronisation
    are what is measured; 1 is a call as its user meets it. A round ends when the device has.
    """
    cuda = device.type == "cuda"
    warmup = 10 if cuda else 2

    def run(key: str, call, calls: int = 1, **more) -> None:
        calls = calls if cuda else 1
        turn = itertools.count()
        once = lambda: call(next(turn))  # noqa: E731
        if calls > 1:
            once = protocol.capture(lambda: [call(k) for k in range(calls)])[0].replay
        rounds = 50 if cuda else rounds_of(once)
        on_device: list[float] = []
        if cuda:
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)

        def target():
            if cuda:
                begin.record()
            once()
            if cuda:
                end.record()
                torch.cuda.synchronize()

        benchmark.group = "/".join(key.split("/")[:2])
        note = (lambda: on_device.append(begin.elapsed_time(end))) if cuda else None
        benchmark.pedantic(target, teardown=note, rounds=rounds, warmup_rounds=warmup, iterations=1)
        if benchmark.disabled:
            return
        host = 1000 * np.array(benchmark.stats.stats.data) / calls
        p5, ms, p95 = np.percentile(np.array(on_device[warmup:]) / calls if cuda else host, [5, 50, 95])
        row = protocol.Timing(float(ms), float(p5), float(p95), float(np.median(host))).row(calls=calls, **more)
        benchmark.extra_info |= {"key": key, **row, "of_roof": of_roof(row, roof)}

    yield run
    gc.collect()
    if cuda:
        torch.cuda.empty_cache()
