"""Progress with time left: a live bar on a terminal, a line now and then in a log; of the phase, and beside it of the whole job."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")
console = Console(soft_wrap=True, markup=False, emoji=False, highlight=False)
"""Prints text as it is: file names hold brackets and colons, which Rich would read as markup and emoji."""
LOG_SECONDS = 15.0


class Whole:
    """A whole job of `total` parts, `done` of them finished before. Inside, every `track` says beside its phase how far it is.

    with Whole(18, "designs", done=3) as whole:
        for name in whole.parts(names): …
    """

    def __init__(self, total: int, what: str, done: int = 0):
        self.total, self.what, self.done = total, what, done
        self.finished = 0  # since the first part began
        self.start = self.last = None

    def __enter__(self) -> Whole:
        global _whole
        self._outer, _whole = _whole, self
        return self

    def __exit__(self, *_) -> None:
        global _whole
        _whole = self._outer

    def parts(self, items: Iterable[T], say: bool = False) -> Iterator[T]:
        """Yields the parts. say: each is what another process has finished, and a line says so."""
        self.start = self.last = time.monotonic()
        for item in items:
            if say:
                self._finish()
                console.print(self.text())
            yield item
            if not say:
                self._finish()

    def begin(self) -> None:
        """The first part begins now: what was done since `parts` is no part."""
        self.start = self.last = time.monotonic()

    def _finish(self) -> None:
        self.done, self.finished, self.last = self.done + 1, self.finished + 1, time.monotonic()

    def left(self, phase: float | None = None) -> float | None:
        """Seconds, by the mean of the finished parts; before there is one, by what the first's `phase` has left, or None."""
        now, rest = time.monotonic(), self.total - self.done
        if self.start is None or self.last is None:  # what the parts share is being made
            return None
        if not self.finished:
            return None if phase is None else rest * (now - self.start + phase) - (now - self.start)
        mean = (self.last - self.start) / self.finished
        return max(rest * mean - (now - self.last), (rest - 1) * mean, 0.0)

    def text(self, phase: float | None = None) -> str:
        left = self.left(phase)
        return f"{self.done} of {self.total} {self.what}" + ("" if left is None else f", {duration(left)} left")


_whole: Whole | None = None
_bars = True
_seconds = LOG_SECONDS


def lines_only(writers: int = 1) -> None:
    """From now on this process writes lines on a terminal too: several live bars at once would overwrite each other.
    writers: so many processes write beside each other, each the more seldom."""
    global _bars, _seconds
    _bars, _seconds = False, LOG_SECONDS * writers


def silent() -> None:
    """From now on this process shows nothing: it works beside one that does."""
    lines_only()
    console.quiet = True


def duration(seconds: float) -> str:
    """40 s, 20 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def track(
    items: Iterable[T], label: str, total: int, done: int = 0, note: Callable[[], str] = lambda: ""
) -> Iterator[T]:
    """Yields the items, showing how far along `total` they are (`done` of them were finished before).

    note: called for a short text to show beside the bar, the loss for instance.
    """
    if console.is_terminal and _bars:
        text = [
            TextColumn(f"{{task.{field}}}", markup=False) for field in ("description", "fields[note]", "fields[whole]")
        ]
        columns = (text[0], BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(), *text[1:])
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(label, total=total, completed=done, note="", whole=_whole.text() if _whole else "")
            for item in items:
                yield item
                whole = _whole.text(bar.tasks[task].time_remaining) if _whole else ""
                bar.update(task, advance=1, note=note(), whole=whole)
        return
    start = last = time.monotonic()
    for k, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last > _seconds or done + k == total:
            left = (now - start) / k * (total - done - k)
            line = f"{label}: {done + k}/{total}, {duration(now - start)}, {duration(left)} left {note()}".rstrip()
            console.print(line + (f"; {_whole.text(left)}" if _whole else ""))
            last = now
