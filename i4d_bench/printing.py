"""Tables that fit the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from i4d_bench.progress import console

GAP = 2
"""Blanks between columns."""
LOG_WIDTH = 132
"""Of output that goes to no terminal."""


def counted(n: int, one: str, many: str = "") -> str:
    """ "1 frame", "3 frames". many: where it is not `one` with an s."""
    return f"{n} {one if n == 1 else many or f'{one}s'}"


def print_table(
    head: Sequence[str], rows: Sequence[Sequence[str]], order: Sequence[str] = (), under: Sequence[Sequence[str]] = ()
) -> list[str]:
    """Prints the columns that fit side by side; returns the heads of those that do not. The first column is always there.

    head, rows: cells as text; a head of several words stands in two lines. order: which columns matter most, the most important
    first; default: from left to right. A column without any text in rows is neither printed nor returned. under: further rows,
    which are printed where they have text in a column that is.
    """
    filled = [k for k in range(len(head)) if k == 0 or any(row[k] for row in rows)]
    above, below = zip(*(_two_lines(name) for name in head), strict=True)
    heads = [above, below] if any(below) else [above]
    width = {k: max(len(row[k]) for row in (*heads, *rows, *under)) for k in filled}
    rank = {name: place for place, name in enumerate(order or head)}
    left, shown = (console.width if console.is_terminal else LOG_WIDTH) - width[0], [0]
    for k in sorted(filled[1:], key=lambda k: rank.get(head[k], len(rank))):
        if width[k] + GAP > left:
            continue
        left -= width[k] + GAP
        shown.append(k)
    shown.sort()
    known = [row for row in under if any(row[k] for k in shown[1:])]
    for row in (*heads, ["─" * width[k] if k in shown else "" for k in range(len(head))], *rows, *known):
        cells = [row[0].ljust(width[0]), *(row[k].rjust(width[k]) for k in shown[1:])]
        print((" " * GAP).join(cells).rstrip())
    return [head[k] for k in filled if k not in shown]


def _two_lines(head: str) -> tuple[str, str]:
    """Broken where the longer line is shortest."""
    words = head.split(" ")
    ways = [(" ".join(words[:k]), " ".join(words[k:])) for k in range(1, len(words) + 1)]
    return min(ways, key=lambda way: max(map(len, way)))
