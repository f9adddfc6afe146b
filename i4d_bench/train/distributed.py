"""One design on several GPUs (`torchrun -m i4d_bench.cli run …`): the only file that knows of it.

Data-parallel: every rank has the whole model and its share of a step's people; gradients are averaged before the step. All ranks
start from the same weights and take the same steps, so that they keep the same. The first rank alone writes; what it writes the
others read, so `--runs` and the cache lie on a file system that all ranks see.

Tensors on a GPU go through NCCL, all else through gloo, by which a rank waits without keeping its GPU or its core busy.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import numba
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous

from i4d_bench import progress
from i4d_bench.portable import cores
from i4d_bench.types import UserError

T = TypeVar("T")
WAIT = timedelta(hours=6)
"""How long ranks wait for the first, which scores alone what all have trained."""
PATIENCE = (20.0, 3.0)
"""Seconds that the first rank, which may be writing a checkpoint, and the others have to end after a signal. torchrun gives 30."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)
GONE = "another process of this training has stopped: the same command goes on from the last checkpoint"
LOST = ("gloo/transport", "ncclRemoteError")
"""In what torch says of a rank that is no more."""


class _Stopped(BaseException):
    """torchrun ends this process, because another has ended."""


def ranks() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if ranks() > 1 else 0


def each(count: int) -> int:
    """The most of so many that one rank has, where all have about as many."""
    return -(-count // ranks())


def first() -> bool:
    """Whether this process writes, validates and prints."""
    return rank() == 0


@contextmanager
def joined() -> Iterator[None]:
    """Inside, the processes that torchrun started work together, each on its own GPU. Without torchrun, nothing.

    One of them says why they end, with the error itself, or a UserError where another has stopped; the others exit as quietly.
    Raises UserError where a machine has fewer GPUs than processes.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or "RANK" not in os.environ:
        yield
        return
    store, number, count = next(rendezvous("env://"))
    ending = threading.Lock()
    try:
        _listen(store, ending)
        _begin(store, number, count)
        yield
        wait()
    except BaseException as e:
        raise _end(e, store, ending) from None
    dist.destroy_process_group()


def _begin(store: Store, number: int, count: int) -> None:
    device, here = None, int(os.environ["LOCAL_WORLD_SIZE"])
    if torch.cuda.is_available():
        gpus = torch.cuda.device_count()
        if here > gpus:
            raise UserError(
                f"torchrun started {here} processes, and this machine has {gpus} GPUs: one for each is needed"
            )
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    else:
        threads = max(1, cores() // here)
        numba.set_num_threads(min(numba.get_num_threads(), threads))
        torch.set_num_threads(threads)  # after numba, whose begin undoes what torchrun has set
    backend = "cpu:gloo,cuda:nccl" if device else "gloo"
    dist.init_process_group(backend, store=store, rank=number, world_size=count, timeout=WAIT, device_id=device)
    if number:
        progress.silent()


def _listen(store: Store, ending: threading.Lock) -> None:
    """A signal raises in the main thread; where that hangs in a collective, the process ends all the same."""
    ear, mouth = socket.socketpair()
    mouth.setblocking(False)
    signal.set_wakeup_fd(mouth.detach(), warn_on_full_buffer=False)
    for number in SIGNALS:
        signal.signal(number, _interrupt)
    threading.Thread(target=_end_later, args=(ear, store, ending), daemon=True).start()


def _interrupt(number: int, _frame: object) -> None:
    _deafen()
    raise KeyboardInterrupt if number == signal.SIGINT else _Stopped


def _deafen() -> None:
    """What ends is not interrupted again."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _end_later(ear: socket.socket, store: Store, ending: threading.Lock) -> None:
    """ending: held by the thread that ends this process, for good. Where the main one does, the store is left alone: Python aborts
    where it ends within a call of it."""
    while ear.recv(1)[0] not in SIGNALS:  # a data loader's processes are heard of, too
        pass
    time.sleep(PATIENCE[0 if first() else 1])
    if ending.acquire(blocking=False) and _speaks(store):
        os.write(2, f"i4d-bench: {GONE}\n".encode())  # sys.stderr's lock, held where Python ends, would abort it
    os._exit(2)


def _end(error: BaseException, store: Store, ending: threading.Lock) -> BaseException:
    """What this rank raises: the error, or a quiet exit where another rank has said why all end."""
    _deafen()
    ending.acquire()
    if _speaks(store):
        return UserError(GONE) if _lost(error) else error
    return SystemExit(130 if isinstance(error, KeyboardInterrupt) else 2)


def _lost(error: BaseException) -> bool:
    """Whether another rank is no more."""
    if isinstance(error, (_Stopped, dist.DistNetworkError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in LOST)


def _speaks(store: Store) -> bool:
    """Whether this rank is the first that ends."""
    try:
        return store.add("i4d_bench/ended", 1) == 1
    except RuntimeError:  # the store has ended, too
        return True


def of_first(make: Callable[[], T]) -> T:
    """What the first rank makes, on every rank; the others wait."""
    if ranks() < 2:
        return make()
    made = [make() if first() else None]
    dist.broadcast_object_list(made, 0, device=torch.device("cpu"))
    return made[0]  # pyright: ignore[reportReturnType]


def after_first(make: Callable[[], T]) -> T:
    """What each rank makes, the first before the others: what it leaves on the disk they find."""
    if first():
        made = make()
        wait()
        return made
    wait()
    return make()


def wait() -> None:
    """Until every rank is here."""
    if ranks() > 1:
        dist.all_reduce(torch.zeros(1))


def share(people: int) -> slice:
    """This rank's of a step's people, every so many: parts of a step (`Lesson.parts`) then hold the same people on any number of
    ranks. Raises UserError where they cannot be divided evenly."""
    if people % ranks():
        raise UserError(f"a step's {people} people cannot be divided evenly among {ranks()} processes")
    return slice(rank(), None, ranks())


def average(parameters: Iterable[nn.Parameter]) -> None:
    """Makes gradients their mean over the ranks, in one exchange."""
    if ranks() < 2:
        return
    grads = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in grads])
    dist.all_reduce(flat)
    flat /= ranks()
    means = [m.view_as(g) for m, g in zip(flat.split([g.numel() for g in grads]), grads, strict=True)]
    torch._foreach_copy_(grads, means)  # pyright: ignore[reportPrivateImportUsage]  (as torch's own optimisers do)


def mean(value: Tensor) -> Tensor:
    """Of numbers over the ranks."""
    if ranks() > 1:
        value = value.clone()
        dist.all_reduce(value)
        value /= ranks()
    return value


def collected(value: float) -> list[float]:
    """One number of every rank, in their order."""
    numbers = torch.zeros(ranks(), dtype=torch.float64)
    numbers[rank()] = value
    if ranks() > 1:
        dist.all_reduce(numbers)
    return numbers.tolist()
