"""`i4d-bench teacher make`: pairs into a store, by several workers, going on where it was stopped.

What makes them is a `Maker`: photos and drivers of the user's through a 2D animator (`photos`), or a rendered world (`world`).
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from i4d_bench import outputs
from i4d_bench.cache import alone
from i4d_bench.data.teacher.samples import Sample
from i4d_bench.data.teacher.store import INDEX, SHARDS, Row, Writer, standing, write_index
from i4d_bench.printing import counted
from i4d_bench.progress import console, track
from i4d_bench.types import UserError


@runtime_checkable
class Maker(Protocol):
    """Makes pairs. It is pickled into the workers."""

    def jobs(self) -> Sequence[Any]:
        """What workers take one after the other: usually one source with all its drivers. Raises UserError for bad input."""
        ...

    def rows(self, job: Any) -> list[Row]:
        """The rows that a job makes, without their places in the store."""
        ...

    def make(self, job: Any, rows: list[Row], worker: int) -> Iterator[tuple[Row, Sample | str]]:
        """Makes these rows of the job: a sample, or in a sentence why there is none. worker: which of them does it, from 0."""
        ...


def make(maker: Maker, out: Path, workers: int = 1, retry: bool = False, complete: bool = False) -> int:
    """Makes what the store lacks. retry: also what failed before. Returns 1 if nothing was made at all, or with `complete` if
    a pair failed, else 0.

    Raises UserError for a folder that is no store or holds these pairs made with other settings, for bad input, and for a full
    disk; what was made until then is kept.
    """
    out = _place(out)
    with alone(out / INDEX):
        there = standing(out)
        stands = {i for i, r in there.items() if not (r.failure and retry)}
        todo = []
        for job in maker.jobs():
            asked = maker.rows(job)
            _check_alike(asked, there, out)
            rows = [r for r in asked if r.id not in stands]
            if rows:
                todo.append((job, rows))
        if stands:
            console.print(
                f"{counted(len(stands), 'pair is', 'pairs are')} there, {sum(len(rows) for _, rows in todo)} are to be made"
            )
        try:
            _run(maker, todo, out, workers)
        finally:
            write_index(out)
    final = standing(out)
    failed = Counter(r.failure for r in final.values() if r.failure)
    for reason, count in failed.most_common():
        console.print(f"{count} failed: {reason}")
    good = len(final) - failed.total()
    console.print(
        f"{out}: {counted(good, 'pair')}, {failed.total()} failed (`i4d-bench data check {out}` reads them through)"
    )
    return int(not good or (complete and bool(failed)))


def _place(out: Path) -> Path:
    if out.exists() and any(out.iterdir()) and not (out / SHARDS).is_dir():
        raise UserError(f"{out} exists and is no store of teacher pairs: name another folder, nothing was changed")
    return outputs.folder(out)


def _check_alike(asked: list[Row], there: dict[str, Row], out: Path) -> None:
    """Raises UserError where a pair that is asked for is there, but was made in another way."""
    for row in asked:
        old = there.get(row.id)
        if old is not None and not old.failure and (old.animator, old.flags) != (row.animator, row.flags):
            ways = f"by {old.animator} with {old.flags}, not by {row.animator} with {row.flags}"
            raise UserError(f"{out} holds {row.id}, made {ways}: name another folder, nothing was changed")


def _run(maker: Maker, todo: list, out: Path, workers: int) -> None:
    if workers <= 1:
        with Writer(out) as writer:
            for job, rows in track(todo, "making pairs", len(todo)):
                _write(maker, job, rows, writer, 0)
        return
    context = multiprocessing.get_context("spawn")
    numbers = context.SimpleQueue()
    for k in range(workers):
        numbers.put(k)
    with ProcessPoolExecutor(workers, context, _begin, (numbers,)) as pool:
        jobs = [pool.submit(_work, maker, job, rows, out) for job, rows in todo]
        try:
            for job in track(as_completed(jobs), "making pairs", len(jobs)):
                job.result()
        except BrokenProcessPool as e:
            raise UserError(
                "a worker was killed (by the system, for memory?): the same command goes on from here"
            ) from e
        finally:
            pool.shutdown(cancel_futures=True)


_worker = 0


def _begin(numbers) -> None:
    global _worker
    _worker = numbers.get()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose command was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(maker: Maker, job: Any, rows: list[Row], out: Path) -> None:
    try:
        with Writer(out, str(_worker)) as writer:
            _write(maker, job, rows, writer, _worker)
    except KeyboardInterrupt:  # the command says so, once
        os._exit(130)


def _write(maker: Maker, job: Any, rows: list[Row], writer: Writer, worker: int) -> None:
    for row, made in maker.make(job, rows, worker):
        if isinstance(made, str):
            writer.fail(row, made)
        else:
            writer.add(row, made)
