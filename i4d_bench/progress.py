"""Progress with time left: a live bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")
console = Console(soft_wrap=True, markup=False, emoji=False, highlight=False)
"""Prints text as it is: file names hold brackets and colons, which Rich would read as markup and emoji."""
LOG_SECONDS = 15.0


def track(items: Iterable[T], label: str, total: int, done: int = 0, note=lambda: "") -> Iterator[T]:
    """Yields the items, showing how far along `total` they are (`done` of them were finished before).

    note: called for a short text to show beside the bar, the loss for instance.
    """
    if console.is_terminal:
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                   TimeRemainingColumn(), TextColumn("{task.fields[note]}", markup=False))  # fmt: skip
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(label, total=total, completed=done, note="")
            for item in items:
                yield item
                bar.update(task, advance=1, note=note())
        return
    start = last = time.monotonic()
    for k, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last > LOG_SECONDS or done + k == total:
            left = (now - start) / k * (total - done - k)
            console.print(f"{label}: {done + k}/{total}, {now - start:.0f} s, {left:.0f} s left {note()}".rstrip())
            last = now
