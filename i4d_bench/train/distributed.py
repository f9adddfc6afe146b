"""One design on several GPUs (`torchrun -m i4d_bench.cli run …`): the only file that knows of it.

Data-parallel: every rank has the whole model and its share of a step's people; gradients are averaged before the step. All ranks
start from the same weights, so that they keep the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from i4d_bench.types import UserError

WAIT = timedelta(hours=6)
"""How long ranks wait for the first, which scores alone what all have trained."""


def ranks() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if ranks() > 1 else 0


def first() -> bool:
    """Whether this process writes, validates and prints."""
    return rank() == 0


@contextmanager
def joined() -> Iterator[None]:
    """Inside, the processes that torchrun started work together, each on its own GPU. Without torchrun, nothing.

    Raises UserError where there are fewer GPUs than processes, and where another process has stopped.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count < 2 or "RANK" not in os.environ:
        yield
        return
    backend, device = "gloo", None
    if torch.cuda.is_available():
        number = int(os.environ["LOCAL_RANK"])
        if number >= torch.cuda.device_count():
            raise UserError(f"torchrun started more processes than this machine's {torch.cuda.device_count()} GPUs")
        backend, device = "nccl", torch.device("cuda", number)
        torch.cuda.set_device(device)
    dist.init_process_group(backend, timeout=WAIT, device_id=device)
    try:
        yield
    except (dist.DistBackendError, dist.DistNetworkError, RuntimeError) as e:
        if isinstance(e, dist.DistError) or "Connection" in str(e):
            raise UserError(
                "another process of this training has stopped: the same command goes on from the last checkpoint"
            ) from e
        raise
    finally:
        dist.destroy_process_group()


def share(people: int) -> slice:
    """This rank's part of a step's people. Raises UserError where they cannot be divided evenly."""
    if people % ranks():
        raise UserError(f"a step's {people} people cannot be divided evenly among {ranks()} processes")
    own = people // ranks()
    return slice(rank() * own, (rank() + 1) * own)


def average(parameters: Iterable[nn.Parameter]) -> None:
    """Makes gradients their mean over the ranks."""
    if ranks() < 2:
        return
    grads = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in grads])
    dist.all_reduce(flat)
    flat /= ranks()
    for g, mean in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
        g.copy_(mean.view_as(g))


def mean(value: Tensor) -> Tensor:
    """Of a number over the ranks."""
    if ranks() > 1:
        value = value.clone()
        dist.all_reduce(value)
        value /= ranks()
    return value


def wait() -> None:
    """Until every rank is here."""
    if ranks() > 1:
        dist.barrier()
