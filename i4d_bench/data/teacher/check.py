"""`i4d-bench data check STORE`: every row of a teacher store held to what it says, and each bad one named."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from i4d_bench.data.splits import SPLITS
from i4d_bench.data.teacher.samples import Damaged, unpack
from i4d_bench.data.teacher.store import Row, Store, leave_out
from i4d_bench.portable import cores
from i4d_bench.printing import counted
from i4d_bench.progress import console, track


def check(folder: Path, leaving_out: bool = False, complete: bool = False) -> int:
    """Prints every bad row with what is wrong, and how many there are. Returns 1 if a row is bad, or with `complete` if a pair
    failed when it was made, else 0.

    leaving_out: bad rows are failed ones from then on, so that training goes without them.
    Raises UserError where there is no store.
    """
    store = Store(folder)
    rows = store.rows()
    bad = dict(_faults(store, rows))
    for number, reason in sorted(bad.items()):
        console.print(f"row {number}, {rows[number].id}: {reason}")
    failed = Counter(row.failure for row in rows if row.failure)
    for reason, count in failed.most_common():
        console.print(f"{count} pair(s) failed when they were made: {reason}")
    good = len(rows) - len(bad) - failed.total()
    people = {row.identity for k, row in enumerate(rows) if k not in bad and not row.failure}
    console.print(
        f"{folder}: {good} good, {len(bad)} bad, {failed.total()} failed; {counted(len(people), 'person', 'people')}"
    )
    if bad and leaving_out:
        leave_out(folder, rows, {rows[k].id: reason for k, reason in bad.items()})
        console.print(
            f"{len(bad)} bad row(s) are left out from now on; `i4d-bench teacher make --retry` makes them again"
        )
        bad, failed = {}, failed + Counter({"bad": len(bad)})
    return int(bool(bad) or (complete and bool(failed)))


def _faults(store: Store, rows: list[Row]) -> Iterator[tuple[int, str]]:
    """Numbers of bad rows, and why."""
    often = Counter(row.id for row in rows)
    sizes: dict[int, tuple[int, ...]] = {}

    def fault(number: int) -> str | None:
        row = rows[number]
        if often[row.id] > 1:
            return f"its id stands in {often[row.id]} rows"
        if row.split not in SPLITS:
            return f"there is no split {row.split!r}"
        if row.failure:
            return None
        try:
            piece = store.piece(number)
            if hashlib.sha256(piece).hexdigest() != row.sha256:
                raise Damaged("its bytes are not those that were written (sha256)")
            sizes[number] = unpack(piece, row.id)["target"]["rgb"].shape
        except Damaged as e:
            return str(e)
        return None

    with ThreadPoolExecutor(cores()) as pool:
        found = pool.map(fault, range(len(rows)))
        for number, reason in enumerate(track(found, "checking", len(rows))):
            if reason:
                yield number, reason
    usual = Counter(sizes.values()).most_common(1)
    for number, size in sizes.items():
        if size != usual[0][0]:
            yield number, f"its pictures are {size[1]} × {size[0]}, most are {usual[0][0][1]} × {usual[0][0][0]}"
