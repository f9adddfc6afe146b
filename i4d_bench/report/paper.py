"""paper.tex: the main result for a two-column paper, as a table of one column and one of both, with its figures.

    \\usepackage{booktabs,tabularx,graphicx}
    \\input{reports/NAME/paper_column}      one column wide (3.3 inch)
    \\input{reports/NAME/paper_wide}        both (6.9 inch)

paper.tex is a document of both to look at, and shows the figures at their widths.
"""

from __future__ import annotations

from collections.abc import Sequence

from i4d_bench.report import curves, latex, qualitative, tradeoff
from i4d_bench.report.columns import Column
from i4d_bench.report.drawing import plain
from i4d_bench.report.notes import taught
from i4d_bench.report.rows import Row, all_seeds, lacking
from i4d_bench.report.speeds import NO_FPS, Speeds
from i4d_bench.report.writing import write_text
from i4d_bench.results.record import Record
from i4d_bench.results.store import Store
from i4d_bench.stats import SEEDS

CSIM, AED = ("csim_mobileface", "csim_dlib"), ("aed_true", "aed_mp52")
WIDE = (
    ("self", ("psnr",)),
    ("self", ("lpips_alex",)),
    ("self", ("gap",)),
    ("cross", ("gap",)),
    ("cross", AED),
    ("cross", CSIM),
    ("", ("onset",)),
    ("", ("fps",)),
)
"""Columns in their order: a set (that of unseen people comes before it), and metrics of which the first that is there counts."""
NARROW = (("self", ("lpips_alex",)), ("cross", ("gap",)), ("cross", AED), ("", ("onset",)), ("", ("fps",)))
FIGURES = {
    "speed_quality": "Speed against expression error; bars are 95\\,\\% intervals.{tracked}{untimed}",
    "curves": "The driving gap on validation people over training, with the last values.{lines}",
    "differences": "Paired differences from {baseline} with 95\\,\\% intervals over {varied}; filled: $p<0.05$ after Holm over all "
                   "designs. Below, on scales of their own: designs that see more.",
    "intervals": "Means with 95\\,\\% intervals over {varied}.",
    "qualitative": "Cross-reenactment. {rule}. {cases}. Error: mean absolute difference of RGB, black at {full} and above.",
}  # fmt: skip
"""Captions by their files; all span both columns."""
TRACKED = (
    " Where a design waits for FLAME coefficients, a dotted line leads to its speed with the tracker; its error is without "
    "the tracker's."
)


def write(
    store: Store, columns: Sequence[Column], designs: dict[str, Row], speeds: Speeds | None, baseline: str | None = None
) -> None:
    """paper_column.tex, paper_wide.tex and paper.tex. columns: of the main table. baseline: what others are compared with."""
    parts, people = [], len(set(store.samples["identity"]))
    for name, wanted, wide in (("paper_column", NARROW, False), ("paper_wide", WIDE, True)):
        shown = pick(columns, wanted)
        caption = latex.escape(about(designs, shown, people, speeds))
        write_text(
            store.folder / f"{name}.tex", latex.floating(latex.table(shown, designs, wide), caption, wide) + "\n"
        )
        parts.append(rf"\input{{{name}}}")
    fill = {
        "varied": varied(designs),
        "lines": curves.lines(designs),
        "baseline": latex.escape(plain(baseline or "")),
        "rule": latex.escape(qualitative.rule(store.measured, baseline)),
        "cases": qualitative.CASES,
        "full": qualitative.FULL_ERROR,
        "tracked": TRACKED if speeds and tradeoff.twice(speeds, designs) else "",
        "untimed": latex.escape(_untimed(designs, speeds)),
    }
    for name, caption in FIGURES.items():
        if (store.folder / f"{name}.pdf").exists():
            parts.append(latex.picture(name, caption.format(**fill)))
    write_text(store.folder / "paper.tex", latex.document(parts))


def pick(columns: Sequence[Column], wanted: Sequence[tuple[str, Sequence[str]]]) -> list[Column]:
    """Those that have numbers."""
    there = {c.of: c for c in columns if not c.empty}
    found = [[there.get((f"{of}{set_}", m)) for m in metrics for of in ("unseen_", "")] for set_, metrics in wanted]
    return [c for c in (next((c for c in some if c), None) for some in found) if c]


def about(designs: dict[str, Row], columns: Sequence[Column], people: int, speeds: Speeds | None) -> str:
    """A caption: world, driver, people, seeds and budget, and what is bold."""
    one = next(iter(designs.values())).last
    seeds = len(all_seeds(designs))
    out = [
        f"Fusion designs on {one.data['kind']} heads, driver {one.driver}; {taught(one, '; ')}{people} test people, "
        f"{seeds} seed{'s' * (seeds > 1)}{budget(one)}.",
        f"Mean ± half of the 95% interval over {varied(designs)}.",
    ]
    if any(c.bold for c in columns):
        out.append("Bold: best of its block, and not significantly worse (paired, Holm).")
    elif seeds < SEEDS:
        out.append(f"No row is called better than another: that takes {SEEDS} seeds.")
    if seen := _given(designs):
        out.append(f"Given more: {'; '.join(seen)}.")
    lacks = [f"{design.replace('_', ' ')} of seed {those}" for design, those in lacking(designs).items()]
    if lacks:
        out.append(f"Not yet run: {'; '.join(lacks)}.")
    if any(row.mark for row in designs.values()):
        out.append("†: a seed did not start or failed.")
    if speeds and ("", "fps") in {c.of for c in columns}:
        out.append(f"FPS: {speeds.about()}; scores are of the Gaussians trained here.")
        out += [f"{NO_FPS}: not timed there."] if speeds.missing(designs) else []
        out += speeds.resized(designs)
        if speeds.tracker and any(row.block == "privileged" for row in designs.values()):
            out.append("Scores of designs given true coefficients are without the tracker's error.")
    return " ".join(out)


def _untimed(designs: dict[str, Row], speeds: Speeds | None) -> str:
    missing = [d.replace("_", " ") for d in tradeoff.untimed(speeds, designs)] if speeds else []
    return f" Not timed, and so not drawn: {', '.join(missing)}." if missing else ""


def varied(designs: dict[str, Row]) -> str:
    """What intervals are over."""
    return "seeds and people" if len(all_seeds(designs)) >= SEEDS else "people alone"


def _given(designs: dict[str, Row]) -> list[str]:
    """What privileged rows have that others have not: what all of them have, then what some, with their names."""
    sees = {design.replace("_", " "): row.last.sees for design, row in designs.items() if row.block == "privileged"}
    having = {s: [d for d, own in sees.items() if s in own] for own in sees.values() for s in own}
    of = lambda s: "" if len(having[s]) == len(sees) else f"{', '.join(having[s])}: "  # noqa: E731
    return [of(s) + s for s in sorted(having, key=lambda s: -len(having[s]))]


def budget(record: Record) -> str:
    """Steps and pictures of a step, where the record has them."""
    stages = record.config.get("train", {}).get("stages", [])
    if not stages:
        return ""
    steps, last = sum(s["steps"] for s in stages), stages[-1]
    return f", {steps:,} training steps of {last['sources'] * last['frames']} pictures at {last['resolution']}²"
