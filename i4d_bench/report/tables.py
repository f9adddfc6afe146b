"""Tables from a store alone: the main table, the further test sets, and the comparison with a baseline.

Each is written as .csv (all numbers), .md and .tex (rounded; best and not significantly worse in bold, where that can be told).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from i4d_bench.cache import atomic_file
from i4d_bench.data.splits import UNSEEN
from i4d_bench.drivers.probe import Leak
from i4d_bench.evaluate.references import NAMES
from i4d_bench.metrics.cards import CARDS
from i4d_bench.report import baseline as baselines
from i4d_bench.report.rows import BLOCKS, Row, rows
from i4d_bench.report.speeds import Speeds
from i4d_bench.results.environment import code_of
from i4d_bench.results.record import Record
from i4d_bench.results.store import Store
from i4d_bench.results.summary import scores
from i4d_bench.stats import SEEDS, Comparison, Interval, best_and_ties, compare_family, mean_ci
from variants import names
from variants.base import defaults

SET_NAMES = {"self": "self", "cross": "cross", "recon": "reconstruction", "novel": "novel view", "extreme": "extreme"}
SET_NAMES |= {f"{UNSEEN}{s}": f"unseen {SET_NAMES[s]}" for s in ("self", "cross", "recon")}
METRICS = (
    "psnr",
    "ssim",
    "lpips_alex",
    "lpips_vgg",
    "csim_dlib",
    "csim_mobileface",
    "aed_true",
    "aed_mp52",
    "akd",
    "akd_iod",
    "apd",
    "gap",
    "l1_eyes",
    "l1_mouth",
    "lpips_eyes",
    "lpips_mouth",
    "floaters",
    "reprojection",
    "leak_dlib",
    "leak_mobileface",
    "leak_driver",
)
SHOWN = ("lpips_alex", "psnr", "ssim", "csim_dlib", "csim_mobileface", "aed_true", "aed_mp52", "gap", "l1_eyes", "l1_mouth",
         "lpips_eyes", "lpips_mouth", "floaters")  # fmt: skip
MAIN = {"self": SHOWN, "cross": SHOWN, f"{UNSEEN}self": SHOWN, f"{UNSEEN}cross": SHOWN}
DIGITS = {"psnr": 2, "gap": 2, "apd": 2, "akd": 2, "floaters": 2}
MARGINS = {"psnr": 0.1, "gap": 0.1, "ssim": 0.005, "lpips_alex": 0.005, "lpips_vgg": 0.005, "aed_true": 0.005, "aed_mp52": 0.005,
           "csim_dlib": 0.005, "csim_mobileface": 0.01, "akd": 0.1, "akd_iod": 0.002, "apd": 0.1}  # fmt: skip
"""Differences inside ± this are *practically equal*."""
PAIRS = (
    "set",
    "metric",
    "design",
    "difference",
    "lo",
    "hi",
    "p",
    "n",
    "seeds",
    "people",
    "failures",
    "unpaired",
    "verdict",
)
NO_SPEEDS = "FPS: there is no speed report to take them from, run `i4d-bench speed` on this machine."
RESOLUTION = 1e-4
"""Smaller p are printed as below it: the tails of real differences are not known that far."""


@dataclass(frozen=True)
class Column:
    """One column: its head, a number per design (NaN: none) and how it is printed; `bold` designs are the best. references: what is
    known without any avatar scores there, by name. of: the set and metric of measured ones, whose means have `intervals`."""

    head: str
    values: dict[str, float]
    digits: int
    bold: frozenset[str] = frozenset()
    references: dict[str, float] = field(default_factory=dict)
    of: tuple[str, str] | None = None
    intervals: dict[str, Interval] = field(default_factory=dict)

    def text(self, value: float) -> str:
        return f"{value:.{self.digits}f}" if np.isfinite(value) else ""


def cost_columns(designs: dict[str, Row], speeds: Speeds | None) -> list[Column]:
    """Means over the seeds; FPS where there is a speed report."""

    def column(head: str, digits: int, value: Callable[[Record], float | None]) -> Column:
        return Column(head, {d: row.mean(value) for d, row in designs.items()}, digits)

    def setting(r: Record, name: str, default: float | None) -> float | None:
        """What a learned design was trained with."""
        return r.overrides.get(name, default) if r.params else None

    scaled = lambda v, by: None if v is None else v / by  # noqa: E731
    return [
        *([fps_column(designs, speeds)] if speeds else []),
        column("params (M)", 3, lambda r: scaled(r.params, 1e6)),
        column("Gaussians", 0, lambda r: r.gaussians),
        column("GFLOP / person", 3, lambda r: scaled(r.flops_identity, 1e9)),
        column("GFLOP / frame", 3, lambda r: scaled(r.flops_frame, 1e9)),
        column("memory (MiB)", 1, lambda r: scaled(r.memory, 2**20)),
        column("lr", 4, lambda r: setting(r, "lr", r.config.get("train", {}).get("lr_fusion"))),
        column("start scale", 2, lambda r: setting(r, "init_scale", _default(r.design, "init_scale"))),
        column("training (s)", 0, lambda r: r.train_seconds),
        column("onset (steps)", 0, lambda r: r.onset["step"] if r.onset else None),
        Column("seeds", {d: len(row.runs) for d, row in designs.items()}, 0),
    ]


def fps_column(designs: dict[str, Row], speeds: Speeds) -> Column:
    found = {d: speeds.fps(d) for d in designs}
    return Column("FPS ↑", found, 0 if np.nanmin([np.inf, *found.values()]) >= 10 else 2)


def _default(entry: str, setting: str) -> float | None:
    """Of a design's constructor; None where it has no such setting, or is not registered here."""
    if entry.partition("@")[0] not in names():
        return None
    return defaults(entry).get(setting)


def metric_column(designs: dict[str, Row], set_: str, metric: str, samples: pd.DataFrame) -> Column:
    card, bold = CARDS[metric], set()
    found = {d: s for d, s in scores(samples, set_, metric).items() if d in designs}
    intervals = {d: mean_ci(s, card.worst) for d, s in found.items()}
    means = {d: intervals[d].mean if d in intervals else np.nan for d in designs}
    for block in BLOCKS:
        own = {d: s for d, s in found.items() if designs[d].block == block}
        if len(own) > 1 and card.higher_is_better is not None and block != "control":
            bold |= best_and_ties(own, card.higher_is_better, card.worst)
    head = f"{SET_NAMES[set_]} {card.label} {card.arrow}".strip()
    known = _references(designs, set_, metric)
    return Column(head, means, DIGITS.get(metric, 3), frozenset(bold), known, (set_, metric), intervals)


def _references(designs: dict[str, Row], set_: str, metric: str) -> dict[str, float]:
    """Where they are known: the mean over all runs."""
    known: dict[str, list[float]] = {}
    for row in designs.values():
        for r in row.runs:
            for name, sets in r.references.items():
                value = sets.get(set_, {}).get(metric)
                if value is not None:
                    known.setdefault(name, []).append(value)
    return {name: float(np.mean(values)) for name, values in known.items()}


def reference_rows(columns: Iterable[Column]) -> list[str]:
    """Names of the references that any of these columns has, in their order."""
    columns = list(columns)
    return [name for name in NAMES if any(np.isfinite(c.references.get(name, np.nan)) for c in columns)]


def conditions(records: Iterable[Record]) -> str:
    """Preset, hardware, kind of data and driver, the same for all of a folder; its renderings (one world differs in the last bits
    between kinds of CPU) and the commits by which it was measured."""
    records = list(records)
    one = records[0]
    data = ", ".join(sorted({r.data["hash"] for r in records}))
    used = sorted({code_of(r.environment) for r in records})
    return (
        f"{one.preset} preset, {one.environment['hardware']}, data {one.data['kind']} ({data}), driver {one.driver}, "
        f"commit{'s' * (len(used) > 1)} {', '.join(used)}"
    )


def notes(
    designs: dict[str, Row], people: int, left_out: Sequence[Record] = (), speeds: Speeds | None = None
) -> list[str]:
    """What a reader must know under the table; people: how many the samples show; left_out: runs that are not in it; speeds: where
    its FPS come from."""
    records = [r for row in designs.values() for r in row.runs]
    if not records:
        return []
    out = [f"{conditions(records)}.", _varies(designs, people), *(speeds.notes(designs) if speeds else [NO_SPEEDS])]
    seeds = {r.seed for r in records}
    out += [
        f"{design} has no run of seed {', '.join(map(str, sorted(lacks)))} yet."
        for design, row in designs.items()
        if (lacks := seeds - set(row.seeds))
    ]
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
    for design, row in designs.items():
        if row.block == "privileged":
            out.append(f"{design} sees {' and '.join(row.last.sees)}.")
        out += row.why
        failed: Counter[str] = Counter()
        for r in row.runs:
            failed.update(
                {f"{s} {m}": c["failures"] for s, ms in r.metrics.items() for m, c in ms.items() if c["failures"]}
            )
        if failed:
            counts = ", ".join(f"{k} {n}" for k, n in failed.items())
            out.append(f"{design}: failed measurements {counts} (counted at the worst value).")
    out += dict.fromkeys(note for row in designs.values() for r in row.runs for note in r.notes)
    used = {m for r in records for ms in r.metrics.values() for m in ms}
    networks = [f"{CARDS[m].label}: {CARDS[m].network}" for m in METRICS if m in used and CARDS[m].network]
    return [*out, "; ".join(networks) + "."] if networks else out


def _varies(designs: dict[str, Row], people: int) -> str:
    """What intervals are over, and what bold means."""
    seeds = len({seed for row in designs.values() for seed in row.seeds})
    if seeds < SEEDS:
        few = "one seed" if seeds == 1 else f"{seeds} seeds"
        few = f"{few[0].upper()}{few[1:]}: intervals are over people alone"
        return f"{few}, and no row is called better than another (that takes {SEEDS})."
    if people < 2:
        return "One person: no row is called better than another."
    return f"{seeds} seeds. Bold: best of its block and not significantly worse (paired; seeds and people are random factors)."


def main_table(store: Store, speeds: Speeds | None) -> tuple[list[Column], dict[str, Row]]:
    designs, samples = rows(store), store.samples
    columns = cost_columns(designs, speeds)
    for set_ in _of_these_people(MAIN, samples):
        columns += [metric_column(designs, set_, m, samples) for m in MAIN[set_]]
    return columns, designs


def _of_these_people(sets: Iterable[str], samples: pd.DataFrame) -> list[str]:
    """Without those of unseen people where nobody was kept out of training."""
    return [s for s in sets if not s.startswith(UNSEEN) or s in set(samples["set"])]


def sets_table(store: Store) -> tuple[list[Column], dict[str, Row]]:
    designs, samples = rows(store), store.samples
    sets = _of_these_people(("recon", f"{UNSEEN}recon", "novel", "extreme"), samples)
    # the gap of a source that drives itself is 0 by definition
    shown = [(s, m) for s in sets for m in METRICS if m != "gap" or not s.endswith("recon")]
    shown.append(("cross", "leak_driver"))
    return [metric_column(designs, s, m, samples) for s, m in shown], designs


def baseline_of(store: Store, wanted: str | None = None) -> str | None:
    """What the store's designs are compared with (`baseline.pick`, of those that were scored). Raises UserError."""
    measured = set(store.samples["design"])
    return baselines.pick({d: r.family for d, r in rows(store).items() if d in measured}, wanted)


def pairs(store: Store, baseline: str | None) -> pd.DataFrame:
    """Every design against the baseline: difference, 95% interval, Holm-adjusted p over the designs, verdict."""
    found, samples = [], store.samples
    for set_ in SET_NAMES:
        for metric in METRICS:
            measured = scores(samples, set_, metric)
            if baseline not in measured or len(measured) < 2:
                continue
            card = CARDS[metric]
            for design, c in compare_family(measured, baseline, card.worst, MARGINS.get(metric)).items():
                verdict = _verdict(c, card.higher_is_better)
                found.append({"set": set_, "metric": metric, "design": design, "difference": c.difference, "lo": c.lo, "hi": c.hi,
                              "p": c.p, "n": c.n, "seeds": c.seeds, "people": c.people, "failures": c.failures,
                              "unpaired": c.unpaired, "verdict": verdict})  # fmt: skip
    return pd.DataFrame(found, columns=list(PAIRS))


def _verdict(c: Comparison, higher_is_better: bool | None) -> str:
    if not np.isfinite(c.p):
        return f"not told: {c.seeds} of {SEEDS} seeds" if c.seeds < SEEDS else "not told: one person"
    if c.equal:
        return "practically equal"
    if not c.significant:
        return "undecided"
    return "better" if (c.difference > 0) == higher_is_better else "worse"


def write(folder: Path, name: str, columns: list[Column], designs: dict[str, Row], under: list[str]) -> None:
    """NAME.csv, NAME.md and NAME.tex. Columns with no number at all are left out of the printed ones and named below."""
    known = reference_rows(columns)
    csv = pd.DataFrame(
        {
            "design": [*designs, *known],
            "status": [*(row.status for row in designs.values()), *("reference" for _ in known)],
            "block": [*(row.block for row in designs.values()), *("reference" for _ in known)],
        }
        | {c.head.rstrip(" ↑↓"): [*c.values.values(), *(c.references.get(n, np.nan) for n in known)] for c in columns}
    )
    shown = [c for c in columns if any(np.isfinite(v) for v in c.values.values())]
    heads = ["design", *(c.head for c in shown)]
    md = ["| " + " | ".join(heads) + " |", "|" + "---|" + "---:|" * len(shown)]
    tex = [
        r"\begin{tabular}{l" + "r" * len(shown) + "}",
        r"\toprule",
        " & ".join(map(_tex, heads)) + r" \\",
        r"\midrule",
    ]
    block = next((row.block for row in designs.values()), "fair")
    for d, row in designs.items():
        if row.block != block:
            block = row.block
            md.append(f"| *{BLOCKS[block]}:* |" + " |" * len(shown))
            tex.append(r"\midrule")
        cells = [c.text(c.values[d]) for c in shown]
        bold = [bool(t) and d in c.bold for t, c in zip(cells, shown, strict=True)]
        md.append(
            f"| {d}{row.mark} | " + " | ".join(f"**{t}**" if b else t for t, b in zip(cells, bold, strict=True)) + " |"
        )
        printed = [rf"\textbf{{{t}}}" if b else t for t, b in zip(cells, bold, strict=True)]
        tex.append(" & ".join([_tex(d + row.mark), *printed]) + r" \\")
    if known:
        tex.append(r"\midrule")
    for known_name in known:
        cells = [c.text(c.references.get(known_name, np.nan)) for c in shown]
        md.append(f"| *{known_name}* | " + " | ".join(cells) + " |")
        tex.append(" & ".join([rf"\textit{{{known_name}}}", *cells]) + r" \\")
    tex += [r"\bottomrule", r"\end{tabular}", *(f"% {line}" for line in under)]
    write_text(folder / f"{name}.csv", csv.to_csv(index=False, float_format="%.6g"))
    write_text(folder / f"{name}.md", "\n".join([*md, "", *(f"{line}  " for line in under)]) + "\n")
    write_text(folder / f"{name}.tex", "\n".join(tex) + "\n")


def _tex(text: str) -> str:
    for plain, command in (
        ("_", r"\_"),
        ("↑", r"$\uparrow$"),
        ("↓", r"$\downarrow$"),
        ("†", r"$^\dagger$"),
        ("²", "$^2$"),
    ):
        text = text.replace(plain, command)
    return text


def write_text(path: Path, text: str) -> None:
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def compute(store: Store, speeds: Speeds | None) -> tuple[dict[str, list[Column]], dict[str, Row], list[str]]:
    """The main and the sets table by their titles, their rows, and the notes."""
    columns, designs = main_table(store, speeds)
    under = notes(designs, len(set(store.samples["identity"])), store.left_out, speeds)
    return {"Self- and cross-reenactment": columns, "Other test sets": sets_table(store)[0]}, designs, under


def write_all(
    store: Store, speeds: Speeds | None, baseline: str | None = None
) -> tuple[dict[str, list[Column]], dict[str, Row], list[str]]:
    """Writes every table; returns what `compute` does."""
    baseline = baseline_of(store, baseline)
    found, designs, under = compute(store, speeds)
    columns, more = found.values()
    write(store.folder, "main", columns, designs, under)
    write(store.folder, "sets", more, designs, [])
    table = pairs(store, baseline)
    write_text(store.folder / "pairs.csv", table.to_csv(index=False, float_format="%.6g"))
    head = f"Differences from {baseline}; p after Holm over the designs.\n\n"
    shown = table.assign(p=[_p(p) for p in table["p"]])
    write_text(
        store.folder / "pairs.md",
        head + (shown.to_markdown(index=False, floatfmt=".4g") if len(table) else "none") + "\n",
    )
    return found, designs, under


def _p(p: float) -> str:
    return "" if not np.isfinite(p) else f"<{RESOLUTION:g}" if p < RESOLUTION else f"{p:.4f}"
