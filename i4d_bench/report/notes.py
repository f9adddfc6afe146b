"""What a reader must know under a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from i4d_bench.data.splits import UNSEEN
from i4d_bench.drivers.probe import Leak
from i4d_bench.metrics.cards import CARDS
from i4d_bench.report.columns import METRICS, SET_NAMES
from i4d_bench.report.rows import Row, all_seeds, came_to_nothing, lacking
from i4d_bench.report.speeds import Speeds
from i4d_bench.results.environment import code_of
from i4d_bench.results.record import Record
from i4d_bench.results.store import FILM, IMAGES, SPLATS, Store
from i4d_bench.stats import SEEDS

NO_SPEEDS = "FPS: there is no speed report to take them from, run `i4d-bench speed` on this machine."


def conditions(records: Iterable[Record]) -> str:
    """Preset, hardware, kind of data, driver and teacher, the same for all of a folder; its renderings (one world differs in the
    last bits between kinds of CPU) and the commits by which it was measured."""
    records = list(records)
    one = records[0]
    data = ", ".join(sorted({r.data["hash"] for r in records}))
    used = sorted({code_of(r.environment) for r in records})
    return (
        f"{one.preset} preset, {one.environment['hardware']}, data {one.data['kind']} ({data}), driver {one.driver}, "
        f"{taught(one, ', ')}commit{'s' * (len(used) > 1)} {', '.join(used)}"
    )


def taught(record: Record, after: str) -> str:
    """Whose pictures a run learned from, and how; nothing where it was true frames."""
    teacher = record.config.get("teacher") or {}
    if not teacher.get("path"):
        return ""
    beside = " with true frames beside" * teacher.get("bias_sink", False)
    return f"teacher {Path(teacher['path']).name} ({teacher['supervision']}{beside}){after}"


def notes(
    designs: dict[str, Row], people: int, left_out: Sequence[Record] = (), speeds: Speeds | None = None
) -> list[str]:
    """What a reader must know under the table; people: how many the samples show; left_out: runs that are not in it; speeds: where
    its FPS come from."""
    records = [r for row in designs.values() for r in row.runs]
    if not records:
        return []
    out = [f"{conditions(records)}.", _varies(designs, people), *(speeds.notes(designs) if speeds else [NO_SPEEDS])]
    for those, lacks in _alike(lacking(designs)).items():
        out.append(f"{', '.join(lacks)} {'has' if len(lacks) == 1 else 'have'} no run of seed {those} yet.")
    if left_out:
        out.append(
            "Left out, made otherwise (by other code, of other data or on another machine; the same command makes them again): "
            f"{', '.join(sorted({r.design for r in left_out}))}."
        )
    scored = {s for r in records for s in r.metrics}
    empty = [SET_NAMES[s] for s in ("self", "cross") if scored and not {s, f"{UNSEEN}{s}"} & scored]
    if empty:
        why = ": it takes a second person" if people == 1 else ""
        out.append(f"No samples in {' and '.join(empty)}{why}.")
    leaks = {str(leak) for r in records if (leak := Leak.of(r.extras))}
    out += [f"Read linearly off the driver's code: {leak}." for leak in sorted(leaks)]
    given = {d: " and ".join(row.last.sees) for d, row in designs.items() if row.block == "privileged"}
    for what, those in _alike(given).items():
        out.append(f"{', '.join(those)} {'sees' if len(those) == 1 else 'see'} {what}.")
    out += came_to_nothing(designs.values())
    for design, row in designs.items():
        failed: dict[str, Counter[str]] = {}
        for s, m, c in ((s, m, c) for r in row.runs for s, ms in r.metrics.items() for m, c in ms.items()):
            if c["failures"]:
                failed.setdefault(CARDS[m].failed, Counter())[f"{s} {m}"] += c["failures"]
        for how, found in failed.items():
            counts = ", ".join(f"{k} {n}" for k, n in found.items())
            out.append(f"{design}: failed measurements {counts} ({how}).")
    out += dict.fromkeys(note for row in designs.values() for r in row.runs for note in r.notes)
    used = {m for r in records for ms in r.metrics.values() for m in ms}
    networks = [f"{CARDS[m].label}: {CARDS[m].network}" for m in METRICS if m in used and CARDS[m].network]
    return [*out, "; ".join(networks) + "."] if networks else out


def _alike(told: Mapping[str, str]) -> dict[str, list[str]]:
    """By what is said of them, the designs of which the same is said."""
    out: dict[str, list[str]] = {}
    for design, what in told.items():
        out.setdefault(what, []).append(design)
    return out


def gone(store: Store, designs: dict[str, Row]) -> list[str]:
    """What the page lacks: files that others here have. Pictures are every scored run's; a film and an avatar one of a design's."""
    scored = {d: runs for d, row in designs.items() if (runs := [r for r in row.runs if r.metrics])}
    pictured = any(store.runs.glob(f"*{IMAGES}"))
    lacks = {"pictures": [r.run_id for runs in scored.values() for r in runs if pictured and not store.has(r, IMAGES)]}
    for what, ending in (("film", FILM), ("avatar", SPLATS)):
        shown = {d: any(store.has(r, ending) for r in runs) for d, runs in scored.items()}
        lacks[what] = [d for d, there in shown.items() if not there and any(shown.values())]
    return [
        f"The page has no {what} of {', '.join(those)}: files are missing." for what, those in lacks.items() if those
    ]


def _varies(designs: dict[str, Row], people: int) -> str:
    """What intervals are over, and what bold means."""
    seeds = len(all_seeds(designs))
    if seeds < SEEDS:
        few = "one seed" if seeds == 1 else f"{seeds} seeds"
        few = f"{few[0].upper()}{few[1:]}: intervals are over people alone"
        return f"{few}, and no row is called better than another (that takes {SEEDS})."
    if people < 2:
        return "One person: no row is called better than another."
    return f"{seeds} seeds. Bold: best of its block and not significantly worse (paired; seeds and people are random factors)."
