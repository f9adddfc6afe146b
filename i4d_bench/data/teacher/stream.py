"""Batches of teacher pairs, read from the store as training goes: memory does not grow with the store.

A batch depends on (seed, step) alone and is drawn from the index, so that resuming takes one integer and every rank of a
distributed training reads its own part alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from i4d_bench.data.splits import rng
from i4d_bench.data.teacher.samples import IMAGES, NUMBERS, ROLES
from i4d_bench.data.teacher.store import Store
from i4d_bench.types import UserError

Batch = dict[str, dict[str, Tensor]]
"""By role and array (`samples.Picture`): one source of each person [S, …]; drivers and targets [S·k, …], person after person."""


class Draws:
    """Which rows a step takes: `people` of the split, each with `pairs` of theirs."""

    def __init__(self, store: Store, split: str, people: int, pairs: int, seed: int, true_views: bool = False):
        """true_views: rows that show a pair from further sides, else those that show it as the animator did (view 0).

        Raises UserError where the store has no such pictures of the split.
        """
        within = store.within(split)
        within = within[(store.view[within] > 0) == true_views]
        if not len(within):
            kind = "true views" if true_views else "pictures"
            raise UserError(f"the store {store.folder} has no {kind} of the split {split}")
        self.people, self.pairs, self.seed = people, pairs, seed
        order = within[np.argsort(store.identity[within], kind="stable")]
        _, self.begin, self.count = np.unique(store.identity[order], return_index=True, return_counts=True)
        self.order = order.astype(np.int32)

    def draw(self, step: int) -> Int[np.ndarray, " R"]:
        """Row numbers of `people` × `pairs`, identity-major. Twice the same only where there are too few."""
        r, total = rng(self.seed, "pairs", step), len(self.begin)
        rows = []
        for p in r.choice(total, self.people, replace=total < self.people):
            own = self.order[self.begin[p] : self.begin[p] + self.count[p]]
            rows.append(r.choice(own, self.pairs, replace=len(own) < self.pairs))
        return np.concatenate(rows)


class _Steps(Dataset):
    """Item `step` is its batch."""

    def __init__(self, store: Store, draws: Draws, part: slice):
        self.store, self.draws, self.part = store, draws, part

    def __getitem__(self, step: int) -> Batch | UserError:
        """An error is returned: raised in a worker, it would bring its traceback along."""
        try:
            return self._batch(step)
        except UserError as e:
            return e

    def _batch(self, step: int) -> Batch:
        rows = self.draws.draw(step).reshape(self.draws.people, -1)[self.part]
        roles = [ROLES if first else ROLES[1:] for own in rows for first in (True, *[False] * (len(own) - 1))]
        samples = [self.store.read(int(row), what) for row, what in zip(rows.ravel(), roles, strict=True)]
        if len({s["target"]["alpha"].shape for s in samples}) > 1:
            where = self.store.folder
            raise UserError(
                f"{where} holds pictures of several sizes: `i4d-bench data check {where} --leave-out` names them"
            )
        return {
            role: {
                k: torch.from_numpy(np.stack([s[role][k] for s in samples if role in s])) for k in (*IMAGES, *NUMBERS)
            }
            for role in ROLES
        }


def stream(
    store: Store, draws: Draws, steps: range, workers: int, part: slice = slice(None), pinned: bool = False
) -> Iterator[Batch]:
    """The batches of these steps, in their order, this `part` of the people of each. workers: processes that read and decode; 0:
    this one.

    Raises UserError where a row is damaged.
    """
    data = _Steps(store, draws, part)
    ahead = 2 if workers else None
    for batch in DataLoader(data, None, sampler=steps, num_workers=workers, pin_memory=pinned, prefetch_factor=ahead):
        if isinstance(batch, UserError):
            raise batch
        yield batch
