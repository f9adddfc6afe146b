"""Figures of `i4d-bench speed`: time against the number of Gaussians and of tokens, and what a frame is made of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator

from i4d_bench.report.figures import HUES, STYLE, beside_a_legend, legend, looks, save
from i4d_bench.speed import rig
from i4d_bench.speed.plan import IN_FULL, in_every_mode

LINES = {"eager": (":", "o"), "compiled": ("-.", "s"), "triton": ("--", "^"), "triton+graph": ("-", "D")}
PARTS = {"driver": "#7f8c8d", "fusion": HUES["local"], "raster": HUES["parametric"]}


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


def _powers(axis, ticks: list[int], label: str) -> None:
    """A logarithmic axis with its own values as ticks."""
    short = lambda v: f"{v / 2**20:g}M" if v >= 2**20 else f"{v / 2**10:g}k" if v >= 2**10 else f"{v}"  # noqa: E731
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xticks(ticks, [short(v) for v in ticks])
    low, high = axis.get_ylim()
    axis.yaxis.set_major_locator(LogLocator(subs=(1,) if high / low > 100 else (1, 2, 5)))
    axis.minorticks_off()
    axis.yaxis.set_major_formatter(lambda v, _: f"{v:g}")
    axis.set_xlabel(label)
    axis.set_ylabel("fusion and decoding (ms)")


def _fusion(rows: dict, base: tuple[int, int, int]) -> tuple[dict, Callable]:
    """Fusion rows at the base's batch, and line(design, mode) → points of (Gaussians, ms)."""
    of = {k: row for k, row in rows.items() if (k.stage, k.b, k.t) == ("fusion", base[0], None)}
    return of, lambda d, m: sorted((k.n, row["ms"]) for k, row in of.items() if (k.what, k.mode) == (d, m))


def over_gaussians(rows: dict, base: tuple[int, int, int], families: dict[str, str]):
    """Every design in the fastest of the modes that were timed at other sizes, too (published sizes were at none)."""
    fusion, line = _fusion(rows, base)
    ticks, of = sorted({k.n for k in fusion}), looks(families)
    modes = _fastest(fusion, lambda k: k.n == base[1] and k.what in of and len(line(k.what, k.mode)) > 1)
    if len(ticks) < 2:
        return None
    figure, axis = beside_a_legend(len(modes))
    for d, m in modes.items():
        axis.plot(*zip(*line(d, m), strict=True), ms=3.5, lw=1.2, label=f"{d} ({m})", **of[d])
    _powers(axis, ticks, "Gaussians")
    legend(axis)
    return figure


def over_gaussians_in_all_modes(rows: dict, base: tuple[int, int, int], families: dict[str, str]):
    """The designs that were timed there in every mode."""
    fusion, line = _fusion(rows, base)
    ticks, of = sorted({k.n for k in fusion}), looks(families)
    shown = {(d, m): line(d, m) for d in in_every_mode(families) for m in LINES if line(d, m)}
    if len(ticks) < 2 or len({m for _, m in shown}) < 2:
        return None
    figure, axis = beside_a_legend(len(shown))
    for (d, m), points in shown.items():
        look = {**of[d], "ls": LINES[m][0], "marker": LINES[m][1]}
        axis.plot(*zip(*points, strict=True), ms=3.5, lw=1.2, label=f"{d} ({m})", **look)
    _powers(axis, ticks, "Gaussians")
    legend(axis)
    return figure


def over_tokens(rows: dict, base: tuple[int, int, int], families: dict[str, str]):
    """The designs that attend to motion tokens, in their fastest modes; the paper's operator, which does not, as a line across."""
    b, n, _ = base
    fusion = {k: row for k, row in rows.items() if (k.stage, k.b, k.n) == ("fusion", b, n)}
    of = {k: row for k, row in fusion.items() if k.t is not None}
    if not of:
        return None
    fastest, look, full = _fastest(of, lambda k: True), looks(families), in_every_mode(families)
    series = [(d, m) for d, m in dict.fromkeys((k.what, k.mode) for k in of) if d in full or m == fastest[d]]
    figure, axis = beside_a_legend(len(series) + 1)
    for d, m in series:
        points = sorted((k.t, row["ms"]) for k, row in of.items() if (k.what, k.mode) == (d, m))
        style, marker = LINES[m]
        line = {**look[d], "ls": style, "marker": marker}
        axis.plot(*zip(*points, strict=True), ms=3.5, lw=1.2, label=f"{d} ({m})", **line)
    for d, m in _fastest(fusion, lambda k: k.what == IN_FULL[0] and k.t is None).items():
        ms = next(row["ms"] for k, row in fusion.items() if (k.what, k.mode, k.t) == (d, m, None))
        axis.axhline(ms, color=HUES["local"], lw=0.8, ls=(0, (4, 2)), label=f"{d} ({m})")
    _powers(axis, sorted({k.t for k in of}), "motion tokens")
    legend(axis)
    return figure


def stages(rows: dict, base: tuple[int, int, int], families: dict[str, str]):
    """What a frame of one design is made of, by mode: the stages timed apart, and the whole frame."""
    (b, n, r), design = base, next(iter(in_every_mode(families)), "static")
    find = lambda *key: next(  # noqa: E731
        (row for k, row in rows.items() if (k.stage, k.what, k.mode, k.b) == key and k.n in (None, n) and k.r in (None, r)
         and k.t is None), None)  # fmt: skip
    modes = [m for m in LINES if find("frame", design, m, b)]
    if not modes:
        return None
    figure, axis = plt.subplots(figsize=(5.2, 0.7 + 0.4 * len(modes)))
    for y, m in enumerate(modes):
        x, raster = 0.0, m if m in rig.RASTERS else "eager"
        for key in (("driver", "resnet18", m), ("fusion", design, m), ("raster", "static", raster)):
            if row := find(*key, b):
                axis.barh(y, row["host_ms"], left=x, color=PARTS[key[0]], height=0.5, label=key[0] if y == 0 else None)
                x += row["host_ms"]
        if whole := find("frame", design, m, b):
            axis.plot(whole["host_ms"], y, "kD", ms=4, label=f"whole frame,\n{design}" if y == 0 else None)
    axis.set_yticks(range(len(modes)), modes)
    axis.invert_yaxis()
    axis.set_xlabel("wall clock (ms); stages timed apart, a call ends before the next begins")
    legend(axis)
    return figure
