"""Tables and figures of `i4d-bench speed`, rebuilt from speed.json alone: .csv (numbers, of rows that count) and .md (text)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from i4d_bench.cache import atomic_file
from i4d_bench.report import appendix, latex, speed_figures
from i4d_bench.report.numbers import Number, as_numbers, as_text
from i4d_bench.report.speeds import described, stored, tracker, with_tracker
from i4d_bench.report.writing import write_text
from i4d_bench.speed.keys import STAGES, Key, of_roof
from i4d_bench.types import UserError


def write(folder: Path) -> dict[str, pd.DataFrame]:
    """Returns the tables of kernels, stages and frames. Raises UserError when the folder holds no speed.json."""
    path = folder / "speed.json"
    if not path.exists():
        raise UserError(f"{folder} holds no speed.json")
    content = stored(path)
    rows, at = {Key.parse(k): row for k, row in content["rows"].items()}, tuple(content["base"])
    env = content["environment"]
    with atomic_file(folder / "summary.json") as out:
        summary = {
            "schema": 1,
            "hardware": env["hardware"],
            "commit": env["commit"],
            "designs": {},
            "speed": content["rows"],
        }
        out.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    roof, designs, text = content["roof"], described(content, rows), []
    shown = ("torch", "triton", "gsplat", "cuda")
    versions = ", ".join(f"{k} {env['versions'][k]}" for k in shown if env["versions"].get(k))
    text.append(f"# Speed on {env['hardware']}\n")
    text.append(
        f"Commit {env['commit']}{' with local changes' if env['dirty'] else ''}; {versions}. Measured in the same run: "
        f"copy {roof['copy_tb_s']:.3g} TB/s, matrix product {roof['matmul_tflop_s']:.3g} TFLOP/s, an empty call "
        f"{1000 * roof['empty_ms']:.1f} µs on the device and {1000 * roof['empty_host_ms']:.1f} µs for the host. Eager and "
        f"compiled frames are drawn by {env.get('rasteriser', 'gsplat')}.\n"
    )
    tables = {
        "kernels": kernels_table(rows, roof),
        "stages": stages_table(rows, at),
        "splats": splats_table(rows),
        "frames": frames_table(rows, designs),
    }
    titles = {
        "kernels": "Kernels: device time, inputs in turn that no cache holds",
        "stages": "Stages, batch 1, median (p5 to p95); a call ends before the next begins",
        "splats": "Rasterisers, and with the gradients of all Gaussians: device time of a call, median (p5 to p95)",
        "frames": "Whole frames: driving image to picture",
    }
    floats: list[str] = []
    for name, table in tables.items():
        if not len(table):
            continue
        write_text(folder / f"{name}.csv", as_numbers(table).to_csv(index=False, float_format="%.6g"))
        floats += appendix.printed(as_text(table), titles[name])
        text.append(f"## {titles[name]}\n\n{as_text(table).to_markdown(index=False)}\n")
    bad = [f"- `{k}`: {row['status']}{psnr(row)}" for k, row in content["rows"].items() if row["status"] != "ok"]
    if bad:
        text.append("## Rows that do not count\n\n" + "\n".join(bad) + "\n")
    figures = speed_figures.draw(folder, rows, at, {d: v["family"] for d, v in designs.items()})
    text += [f"![{name}]({name}.png)\n" for name in figures]
    write_text(folder / "appendix.tex", latex.document(appendix.paged(floats)))
    write_text(folder / "speed.md", "\n".join(text))
    return tables


def psnr(row: dict[str, Any]) -> str:
    return (
        f" ({row['psnr']:.1f} dB from fp32 eager)"
        if "psnr" in row
        else f" (error {row['error']:.1f})"
        if "error" in row
        else ""
    )


def cell(row: dict[str, Any] | None, digits: int = 3) -> Number | str:
    """A median with its percentiles; that of a wrong row is printed and does not count."""
    if row is None:
        return ""
    if row["status"] not in ("ok", "wrong"):
        return row["status"].partition(":")[0]
    text = f"{row['ms']:.{digits}f} ({row['p5']:.{digits}f} to {row['p95']:.{digits}f})"
    return Number(row["ms"], text, row["p5"], row["p95"]) if row["status"] == "ok" else Number(np.nan, f"{text} wrong")


def number(value: float, form: str) -> Number:
    return Number(value, form.format(value))


def kernels_table(rows: dict[Key, dict], roof: dict[str, float]) -> pd.DataFrame:
    """Per op and size: ms of every mode, Triton's gain over the others, and how near it is to the roof."""
    kernel = {k: row for k, row in rows.items() if k.stage == "kernel"}
    out = []
    for place in dict.fromkeys((k.what, k.b, k.n) for k in kernel):
        of = {k.mode: row for k, row in kernel.items() if (k.what, k.b, k.n) == place}
        ok = {m: r for m, r in of.items() if r["status"] == "ok"}
        line = {"kernel": place[0], "frames": place[1], "Gaussians": place[2] or ""}
        line |= {f"{m} (ms)": cell(r, 4) for m, r in of.items()}
        if fast := ok.get("triton"):
            line |= {f"over {m}": number(r["ms"] / fast["ms"], "{:.1f}×") for m, r in ok.items() if m != "triton"}
            if (near := of_roof(fast, roof)) is not None:
                line |= {
                    "at the roof (ms)": number(near * fast["ms"], "{:.4f}"),
                    "of the roof": Number(near, f"{100 * near:.0f} %"),
                }
        out.append(line)
    table = pd.DataFrame(out).fillna("")
    order = [c for part in ("kernel", "frames", "Gaussians", "(ms)", "over", "roof") for c in table if part in c]
    last = "at the roof (ms)"
    columns = dict.fromkeys([*(c for c in order if c != last), *(c for c in order if c == last)])
    return table.reindex(columns=list(columns))


def stages_table(rows: dict[Key, dict], base: tuple[int, int, int]) -> pd.DataFrame:
    b, n, r = base
    out = []
    for stage in STAGES:
        for what in dict.fromkeys(k.what for k in rows if k.stage == stage):
            line: dict[str, Any] = {"stage": stage, "what": what}
            for k, row in rows.items():
                if (k.stage, k.what, k.b) == (stage, what, b) and k.n in (None, n) and k.r in (None, r) and k.t is None:
                    line[f"{k.mode} (ms)"] = cell(row)
            if len(line) > 2:
                out.append(line)
    return pd.DataFrame(out).fillna("")


def splats_table(rows: dict[Key, dict]) -> pd.DataFrame:
    """Per avatar and size: what every way of splatting takes, and ours over gsplat's of the same kind."""
    found = {k: row for k, row in rows.items() if k.stage.startswith("raster")}
    out = []
    of_size = lambda k: (k.stage, k.what, k.b, k.n, k.r)  # noqa: E731
    for size in dict.fromkeys(map(of_size, found)):
        stage, what, b, n, r = size
        of = {k.mode: row for k, row in found.items() if of_size(k) == size}
        line = {
            "drawn": "with gradients" if "backward" in stage else "picture",
            "avatar": "untrained" if what == "static" else what,
            "images": b,
            "Gaussians": n,
            "resolution": r,
        }
        line |= {f"{m} (ms)": cell(row) for m, row in of.items()}
        for ours, theirs in (("triton+graph", "gsplat+graph"), ("triton", "gsplat"), ("triton", "eager")):
            if all(of.get(m, {}).get("status") == "ok" for m in (ours, theirs)):
                line[f"{ours} over {theirs}"] = number(of[theirs]["ms"] / of[ours]["ms"], "{:.1f}×")
        out.append(line)
    table = pd.DataFrame(out).fillna("")
    return table.reindex(columns=sorted(table, key=lambda c: (" over " in c, "(ms)" in c)))


def frames_table(rows: dict[Key, dict], designs: dict[str, dict[str, str]]) -> pd.DataFrame:
    """Designs on FLAME coefficients also with the tracker that finds them in a photo, one after the other."""
    out, found = [], tracker(rows)
    for k, row in rows.items():
        if k.stage == "frame":
            ok = row["status"] == "ok"
            eager = rows.get(replace(k, mode="eager"))
            gain = tracked = ""
            if ok and eager and eager["status"] == "ok":
                gain = number(eager["host_ms"] / row["host_ms"], "{:.1f}×")
            if ok and found and designs[k.what.partition("@")[0]]["needs"] == "flame":
                tracked = number(with_tracker(row, found, k.b), "{:.0f}")
            out.append({
                "design": k.what, "mode": k.mode, "batch": k.b, "Gaussians": k.n, "resolution": k.r,
                "device (ms)": cell(row),
                "host (ms)": number(row["host_ms"], "{:.3f}") if ok else "",
                "frames per second": number(k.b * row["fps"], "{:.0f}") if ok else "",
                "with tracker": tracked, "over eager": gain,
                "PSNR to fp32 eager (dB)": number(row["psnr"], "{:.1f}") if "psnr" in row else "",
                "peak memory (MiB)": number(row["peak_mib"], "{:.0f}") if "peak_mib" in row else "",
            })  # fmt: skip
    return pd.DataFrame(out)
