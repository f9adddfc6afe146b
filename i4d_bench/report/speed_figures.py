"""Figures of `i4d-bench speed`: time against the number of Gaussians and of tokens, and what a frame is made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator

from i4d_bench.report.drawing import COLUMN, HUES, PAGE, SMALL, STYLE, Labelled, label_beside, looks, plain, save, short
from i4d_bench.report.rows import ORDER
from i4d_bench.speed import rig
from i4d_bench.speed.plan import IN_FULL, in_every_mode

MODES = {
    "eager": {"ls": (0, (1, 1)), "marker": "o"},
    "compiled": {"ls": (0, (4, 1, 1, 1)), "marker": "s"},
    "triton": {"ls": (0, (5, 1.5)), "marker": "^"},
    "triton+graph": {"ls": "-", "marker": "D"},
}
PARTS = {"driver": ("#dddddd", ""), "fusion": (HUES["local"], ""), "raster": ("white", "/////")}
"""Of a frame: fill and hatch, which stay apart in grey."""
Line = tuple[str, list[tuple[int, float]], dict[str, Any]]
"""A label, points (a size, ms) and a look."""


def draw(folder: Path, rows: dict, base: tuple[int, int, int], families: dict[str, str]) -> list[str]:
    """rows: by speed.keys.Key. base: batch, Gaussians and resolution that the axes start from. families: of the designs timed.
    → the names of the figures for which there are rows."""
    good = {k: row for k, row in rows.items() if row["status"] == "ok"}
    with plt.rc_context(STYLE):
        made = {
            draw.__name__: draw(good, base, families)
            for draw in (stages, over_gaussians, over_gaussians_in_all_modes, over_tokens)
        }
        for name, figure in made.items():
            if figure is not None:
                save(figure, folder, name)
    return [name for name, figure in made.items() if figure is not None]


def _fastest(rows: dict, at: Callable) -> dict[str, str]:
    """Per design, the mode of its fastest row among those that `at` accepts."""
    best: dict = {}
    for k, row in rows.items():
        if at(k) and (k.what not in best or row["ms"] < rows[best[k.what]]["ms"]):
            best[k.what] = k
    return {d: k.mode for d, k in best.items()}


def _powers(axis, ticks: Sequence[int], apart: float) -> None:
    """Logarithmic axes, with the sizes that were timed as ticks. One nearer to the next with a text than that part of the axis has
    none."""
    text = lambda v: f"{v / 2**20:g}M" if v >= 2**20 else f"{v / 2**10:g}k" if v >= 2**10 else f"{v}"  # noqa: E731
    texts, clear = [text(ticks[-1])], math.log2(ticks[-1] / ticks[0]) * apart
    last = ticks[-1]
    for v in ticks[-2::-1]:
        near = math.log2(last / v) < clear
        texts.insert(0, "" if near else text(v))
        last = last if near else v
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xticks(ticks, texts)
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.minorticks_off()
    axis.yaxis.set_major_formatter(lambda v, _: f"{v:g}")


def _panels(lines: Mapping[str, Sequence[Line]], ticks: Sequence[int], xlabel: str):
    """A panel for each title, side by side, with its lines labelled beside it."""
    most = max(len(own) for own in lines.values())
    size = (PAGE, max(1.8, 0.75 + 0.13 * most))
    figure, axes = plt.subplots(1, len(lines), figsize=size, sharex=True, sharey=True, squeeze=False)
    for axis, (title, own) in zip(axes[0], lines.items(), strict=True):
        for _, points, look in own:
            axis.plot(*zip(*points, strict=True), **{"ms": 3, "lw": 1.1, **look})
        axis.set_title(title, loc="left", fontsize=SMALL if len(lines) > 3 else None)
    _powers(axes[0][0], ticks, 0.07 * len(lines))
    for axis, own in zip(axes[0], lines.values(), strict=True):
        label_beside(axis, [Labelled(*points[-1], text, look) for text, points, look in own])
    axes[0][0].set_ylabel("fusion and decoding (ms)")
    figure.supxlabel(xlabel, fontsize=STYLE["axes.labelsize"])
    return figure


def _fusion(rows: dict, base: tuple[int, int, int]) -> tuple[dict, Callable]:
    """Fusion rows at the base's batch, and line(design, mode) → points of (Gaussians, ms)."""
    of = {k: row for k, row in rows.items() if (k.stage, k.b, k.t) == ("fusion", base[0], None)}
    return of, lambda d, m: sorted((k.n, row["ms"]) for k, row in of.items() if (k.what, k.mode) == (d, m))


def over_gaussians(rows: dict, base: tuple[int, int, int], families: dict[str, str]):
    """Every design in the fastest of the modes that were timed at other sizes, too (published sizes were at none), by family."""
    fusion, line = _fusion(rows, base)
    ticks, of = sorted({k.n for k in fusion}), looks(families)
    modes = _fastest(fusion, lambda k: k.n == base[1] and k.what in of and len(line(k.what, k.mode)) > 1)
    if len(ticks) < 2 or not modes:
        return None
    usual = max(modes.values(), key=list(modes.values()).count)
    drawn: dict[str, list[Line]] = {}
    for d, m in sorted(modes.items(), key=lambda item: ORDER.get(families[item[0]], len(ORDER))):
        text = short(d) if m == usual else f"{short(d)} ({m})"
        drawn.setdefault(families[d] or "designs", []).append((text, line(d, m), of[d]))
    control = drawn.pop("control", []) if len(drawn) > 1 else []
    panels = {family: [*own, *control] for family, own in drawn.items()}
    return _panels(
        panels, ticks, f"Gaussians ({usual}{'' if len(set(modes.values())) == 1 else ' where nothing else is said'})"
    )


def over_gaussians_in_all_modes(rows: dict, base: tuple[int, int, int], families: dict[str, str]):
    """The designs that were timed there in every mode, a panel each."""
    fusion, line = _fusion(rows, base)
    ticks, of = sorted({k.n for k in fusion}), looks(families)
    shown = {d: {m: line(d, m) for m in MODES if line(d, m)} for d in in_every_mode(families)}
    panels = {plain(d): [(m, points, of[d] | MODES[m]) for m, points in own.items()] for d, own in shown.items() if own}
    if len(ticks) < 2 or len({m for own in shown.values() for m in own}) < 2:
        return None
    return _panels(panels, ticks, "Gaussians")


def over_tokens(rows: dict, base: tuple[int, int, int], families: dict[str, str]):
    """The designs that attend to motion tokens, a panel each, in their fastest modes; the paper's operator, which does not, as a
    line across all."""
    b, n, _ = base
    fusion = {k: row for k, row in rows.items() if (k.stage, k.b, k.n) == ("fusion", b, n)}
    of = {k: row for k, row in fusion.items() if k.t is not None}
    if not of:
        return None
    fastest, look, full = _fastest(of, lambda k: True), looks(families), in_every_mode(families)
    ticks, panels = sorted({k.t for k in of}), {}
    for d, m in dict.fromkeys((k.what, k.mode) for k in of):
        if d in full or m == fastest[d]:
            points = sorted((k.t, row["ms"]) for k, row in of.items() if (k.what, k.mode) == (d, m))
            panels.setdefault(short(d), []).append((m, points, look[d] | MODES[m]))
    for d, m in _fastest(fusion, lambda k: k.what == IN_FULL[0] and k.t is None).items():
        ms = next(row["ms"] for k, row in fusion.items() if (k.what, k.mode, k.t) == (d, m, None))
        for own in panels.values():
            own.append((plain(d), [(t, ms) for t in ticks], {"color": HUES["local"], "lw": 0.8, "marker": ""}))
    return _panels(panels, ticks, "motion tokens")


def stages(rows: dict, base: tuple[int, int, int], families: dict[str, str]):
    """What a frame of one design is made of, by mode: the stages timed apart, and the whole frame."""
    (b, n, r), design = base, next(iter(in_every_mode(families)), "static")
    find = lambda *key: next(  # noqa: E731
        (row for k, row in rows.items() if (k.stage, k.what, k.mode, k.b) == key and k.n in (None, n) and k.r in (None, r)
         and k.t is None), None)  # fmt: skip
    frames = {m: row["host_ms"] for m in MODES if (row := find("frame", design, m, b))}
    if not frames:
        return None
    figure, axis = plt.subplots(figsize=(COLUMN, 1.05 + 0.24 * len(frames)))
    for y, (m, whole) in enumerate(frames.items()):
        x, raster = 0.0, m if m in rig.RASTERS else "eager"
        for key in (("driver", "resnet18", m), ("fusion", design, m), ("raster", "static", raster)):
            if row := find(*key, b):
                color, hatch = PARTS[key[0]]
                label = key[0] if y == 0 else None
                axis.barh(y, row["host_ms"], 0.55, x, color=color, hatch=hatch, ec="k", lw=0.4, label=label)
                x += row["host_ms"]
        axis.plot(whole, y, "kD", ms=3.5, label=f"whole frame, {plain(design)}" if y == 0 else None)
        axis.annotate(
            f"{whole:,.{max(0, 1 - math.floor(math.log10(whole)))}f}",
            (max(x, whole), y),
            (5, 0),
            textcoords="offset points",
            va="center",
            fontsize=SMALL,
        )
    axis.set_yticks(range(len(frames)), list(frames))
    axis.invert_yaxis()
    axis.margins(x=0.1)
    axis.grid(axis="y", visible=False)
    axis.set_xlabel("wall clock (ms); stages timed apart,\neach with a start of its own")
    figure.legend(loc="outside upper center", ncols=4, handlelength=1.2, columnspacing=0.9, handletextpad=0.4)
    return figure
