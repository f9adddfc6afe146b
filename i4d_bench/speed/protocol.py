"""How time is measured (DESIGN §6).

Changing inputs in turn, warm-up, median with p5/p95 over many calls. `measure` is what a user waits for: one call at a time,
CUDA events for the device and the wall clock for the host. `in_turn` is the same of several that are compared. `device_time` is
the device alone: many calls in one CUDA graph.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

WARMUP = 10


@dataclass(frozen=True)
class Timing:
    """Milliseconds per call."""

    ms: float  # median: device time on a GPU, host time on a CPU
    p5: float
    p95: float
    host_ms: float  # median wall clock, synchronised

    @property
    def fps(self) -> float:
        """Calls per second as a user sees them: from the wall clock."""
        return 1000 / self.host_ms

    def row(self, status: str = "ok", **more) -> dict[str, float | str]:
        """As summary.json holds it (DESIGN §7)."""
        return {
            "ms": self.ms,
            "p5": self.p5,
            "p95": self.p95,
            "host_ms": self.host_ms,
            "fps": self.fps,
            "status": status,
        } | more


def measure(call: Callable[[int], object], count: int, device: torch.device, warmup: int = WARMUP) -> Timing:
    """Times call(k) for k in 0..count-1 after `warmup` calls; each ends before the next begins."""
    return in_turn([call], count, device, warmup)[0]


def in_turn(
    calls: Sequence[Callable[[int], object]], count: int, device: torch.device, warmup: int = WARMUP
) -> list[Timing]:
    """`measure` of each, all for one k before the next: what else the host does, which comes and goes by the second, is in all."""
    for k in range(min(warmup, count)):
        for call in calls:
            call(k)
    if device.type == "cuda":
        torch.cuda.synchronize()
    times = [[_one(call, k, device) for call in calls] for k in range(count)]
    return [_timing(*zip(*of, strict=True)) for of in zip(*times, strict=True)]


def _one(call: Callable[[int], object], k: int, device: torch.device) -> tuple[float, float]:
    """Milliseconds of the device and of the host."""
    cuda = device.type == "cuda"
    if cuda:
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    t = time.perf_counter()
    if cuda:
        begin.record()
    call(k)
    if cuda:
        end.record()
        end.synchronize()
    host = 1000 * (time.perf_counter() - t)
    return begin.elapsed_time(end) if cuda else host, host


def device_time(call: Callable[[int], object], device: torch.device, rounds: int = 20, calls: int = 12) -> Timing:
    """Device time of call(k) without the host: `calls` of them, k = 0…, in a CUDA graph that is replayed `rounds` times.

    On a CPU, `measure` of `rounds` calls. Raises RuntimeError when the calls cannot be captured.
    """
    if device.type != "cuda":
        return measure(call, rounds, device)
    graph = capture(lambda: [call(k) for k in range(calls)])[0]
    times = []
    for _ in range(rounds):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / calls)
    return _timing(times, times)


def capture(run: Callable[[], object]) -> tuple[torch.cuda.CUDAGraph, object]:
    """A CUDA graph of `run` and the tensors that its replays write."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # compilers, autotuners and library handles come alive outside of the graph
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = run()
    return graph, out


def graphed(fn: Callable, example) -> Callable:
    """`fn` of one tensor or dataclass of tensors as a CUDA graph: copies its argument in, replays, returns the same output
    tensors every time."""
    static = example.clone() if isinstance(example, Tensor) else example.map(Tensor.clone)
    graph, out = capture(lambda: fn(static))
    own = list(tensors(static))

    def call(x):
        torch._foreach_copy_(own, list(tensors(x)))  # pyright: ignore[reportPrivateImportUsage]  (torch has no public name for it)
        graph.replay()
        return out

    call.holds = fn  # and with it the tensors that the graph reads
    return call


def tensors(x) -> Iterator[Tensor]:
    """The tensors of a dataclass and of the dataclasses in it, in order."""
    if isinstance(x, Tensor):
        yield x
    elif hasattr(x, "__dataclass_fields__"):
        for name in x.__dataclass_fields__:
            yield from tensors(getattr(x, name))


def worst(errors: Iterable[float]) -> float:
    """The largest, and NaN where one is NaN, which `max` does not see behind a number."""
    return float(np.max(list(errors)))


def _timing(dev: Sequence[float], host: Sequence[float]) -> Timing:
    p5, ms, p95 = np.percentile(dev, [5, 50, 95])
    return Timing(float(ms), float(p5), float(p95), float(np.median(host)))


@torch.no_grad()
def roof(device: torch.device, size: int | None = None) -> dict[str, float]:
    """The machine's limits, measured now: copy in TB/s (bytes read and written), matrix product in TFLOP/s (bf16, on a CPU
    fp32), and an empty call in ms."""
    cuda = device.type == "cuda"
    size = size or (8192 if cuda else 1024)
    dtype = torch.bfloat16 if cuda else torch.float32
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    x = torch.randn(2**28 if cuda else 2**24, device=device, dtype=torch.float32)
    y = torch.empty_like(x)
    copied = measure(lambda k: y.copy_(x), 20, device, 3).ms
    product = measure(lambda k: a @ b, 20, device, 3).ms
    one = torch.zeros(1, device=device)
    empty = measure(lambda k: one.add_(1), 200, device)
    return {"copy_tb_s": 2 * x.numel() * 4 / copied / 1e9, "matmul_tflop_s": 2 * size**3 / product / 1e9,
            "empty_ms": empty.ms, "empty_host_ms": empty.host_ms}  # fmt: skip
