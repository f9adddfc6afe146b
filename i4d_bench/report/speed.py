"""Tables and figures of `i4d-bench speed`, rebuilt from speed.json alone."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd

from i4d_bench.cache import atomic_file
from i4d_bench.report.figures import HUES, STYLE, save
from i4d_bench.report.tables import write_text
from i4d_bench.types import UserError
from variants import design

STAGES = ("driver", "fusion", "raster", "frame")
LINES = {"eager": (":", "o"), "compiled": ("-.", "s"), "triton": ("--", "^"), "triton+graph": ("-", "D")}


@dataclass(frozen=True)
class Key:
    """stage/what/mode/bBATCH[/nGAUSSIANS][/rRESOLUTION][/tTOKENS]"""

    stage: str
    what: str
    mode: str
    b: int
    n: int | None = None
    r: int | None = None
    t: int | None = None

    @classmethod
    def parse(cls, key: str) -> Key:
        stage, what, mode, *sizes = key.split("/")
        return cls(stage, what, mode, **{s[0]: int(s[1:]) for s in sizes})


def build(folder: Path) -> None:
    """Raises UserError when the folder holds no speed.json."""
    path = folder / "speed.json"
    if not path.exists():
        raise UserError(f"{folder} holds no speed.json")
    content = json.loads(path.read_text())
    rows = {Key.parse(k): row for k, row in content["rows"].items()}
    env = content["environment"]
    with atomic_file(folder / "summary.json") as out:
        summary = {
            "schema": 1,
            "hardware": env["hardware"],
            "commit": env["commit"],
            "designs": {},
            "speed": content["rows"],
        }
        out.write_text(json.dumps(summary, indent=1) + "\n")
    roof, text = content["roof"], []
    shown = ("torch", "triton", "gsplat", "cuda")
    versions = ", ".join(f"{k} {env['versions'][k]}" for k in shown if env["versions"].get(k))
    text.append(f"# Speed on {env['hardware']}\n")
    text.append(
        f"Commit {env['commit']}{' with local changes' if env['dirty'] else ''}; {versions}. Measured in the same run: "
        f"copy {roof['copy_tb_s']:.2f} TB/s, matrix product {roof['matmul_tflop_s']:.0f} TFLOP/s, an empty call "
        f"{1000 * roof['empty_ms']:.1f} µs on the device and {1000 * roof['empty_host_ms']:.1f} µs for the host.\n"
    )
    tables = {"kernels": kernels_table(rows, roof), "stages": stages_table(rows), "frames": frames_table(rows)}
    titles = {
        "kernels": "Kernels: device time, inputs in turn that no cache holds",
        "stages": "Stages, batch 1, median (p5 to p95); a call ends before the next begins",
        "frames": "Whole frames: driving image to picture",
    }
    for name, table in tables.items():
        if not len(table):
            continue
        table.to_csv(folder / f"{name}.csv", index=False)
        write_text(folder / f"{name}.tex", table.to_latex(index=False, escape=True))
        text.append(f"## {titles[name]}\n\n{table.to_markdown(index=False)}\n")
    bad = [f"- `{k}`: {row['status']}{psnr(row)}" for k, row in content["rows"].items() if row["status"] != "ok"]
    if bad:
        text.append("## Rows that do not count\n\n" + "\n".join(bad) + "\n")
    write_text(folder / "speed.md", "\n".join(text))
    with plt.rc_context(STYLE):
        over_gaussians(folder, rows)
        over_tokens(folder, rows)
        stage_bars(folder, rows)


def psnr(row: dict[str, Any]) -> str:
    return (
        f" ({row['psnr']:.1f} dB from fp32 eager)"
        if "psnr" in row
        else f" (error {row['error']:.1f})"
        if "error" in row
        else ""
    )


def base(rows: dict[Key, dict]) -> tuple[int, int, int]:
    """Batch, Gaussians and resolution that the axes start from: what most frames share."""
    frames = [k for k in rows if k.stage == "frame"]
    if not frames:
        kernel = [k for k in rows if k.stage == "kernel"]
        return 1, pd.Series([k.n for k in kernel]).mode()[0], 0
    common = lambda name: pd.Series([getattr(k, name) for k in frames]).mode()[0]  # noqa: E731
    return common("b"), common("n"), common("r")


def cell(row: dict[str, Any] | None, digits: int = 3) -> str:
    if row is None:
        return ""
    if row["status"].startswith("failed"):
        return "failed"
    mark = "" if row["status"] == "ok" else " wrong"
    return f"{row['ms']:.{digits}f} ({row['p5']:.{digits}f} to {row['p95']:.{digits}f}){mark}"


def kernels_table(rows: dict[Key, dict], roof: dict[str, float]) -> pd.DataFrame:
    """Per op and size: ms of every mode, Triton's gain over torch.compile, and how near it is to the roof."""
    out = []
    for k in dict.fromkeys((k.what, k.b, k.n) for k in rows if k.stage == "kernel"):
        of = {m: rows.get(Key("kernel", k[0], m, k[1], k[2])) for m in ("eager", "compiled", "triton")}
        ok = {m: r for m, r in of.items() if r and r["status"] == "ok"}
        line = {
            "kernel": k[0],
            "frames": k[1],
            "Gaussians": k[2],
            **{f"{m} (ms)": cell(r, 4) for m, r in of.items() if r},
        }
        fast = ok.get("triton")
        if fast:
            line |= {f"over {m}": f"{ok[m]['ms'] / fast['ms']:.1f}×" for m in ("eager", "compiled") if m in ok}
            if "bytes" in fast:
                floor = max(fast["bytes"] / roof["copy_tb_s"] / 1e9, fast["flops"] / roof["matmul_tflop_s"] / 1e9)
                line |= {"floor (ms)": f"{floor:.4f}", "of the floor": f"{100 * floor / fast['ms']:.0f} %"}
        out.append(line)
    return pd.DataFrame(out).fillna("")


def stages_table(rows: dict[Key, dict]) -> pd.DataFrame:
    b, n, r = base(rows)
    out = []
    for stage in STAGES:
        for what in dict.fromkeys(k.what for k in rows if k.stage == stage):
            line = {"stage": stage, "": what}
            for k, row in rows.items():
                if (k.stage, k.what, k.b) == (stage, what, b) and k.n in (None, n) and k.r in (None, r) and k.t is None:
                    line[f"{k.mode} (ms)"] = cell(row)
            if len(line) > 2:
                out.append(line)
    return pd.DataFrame(out).fillna("")


def frames_table(rows: dict[Key, dict]) -> pd.DataFrame:
    out = []
    for k, row in rows.items():
        if k.stage == "frame":
            ok = row["status"] == "ok"
            out.append({"design": k.what, "mode": k.mode, "batch": k.b, "Gaussians": k.n, "resolution": k.r,
                        "device (ms)": cell(row), "host (ms)": f"{row['host_ms']:.3f}" if ok else "",
                        "frames per second": f"{k.b * row['fps']:.0f}" if ok else "",
                        "PSNR to fp32 eager (dB)": f"{row['psnr']:.1f}" if "psnr" in row else "",
                        "peak memory (MiB)": f"{row['peak_mib']:.0f}" if "peak_mib" in row else ""})  # fmt: skip
    return pd.DataFrame(out)


def _fastest(rows: dict[Key, dict], at) -> dict[str, Key]:
    """Per design, the key of its fastest good row among those that `at` accepts."""
    best: dict[str, Key] = {}
    for k, row in rows.items():
        if at(k) and row["status"] == "ok" and (k.what not in best or row["ms"] < rows[best[k.what]]["ms"]):
            best[k.what] = k
    return best


def over_gaussians(folder: Path, rows: dict[Key, dict]) -> None:
    """Fusion time against the number of Gaussians: every design in its fastest mode, and local_adaln in all of them."""
    b, _, _ = base(rows)
    fusion = {
        k: row for k, row in rows.items() if k.stage == "fusion" and k.b == b and k.t is None and row["status"] == "ok"
    }
    modes = {d: k.mode for d, k in _fastest(fusion, lambda k: k.n == base(rows)[1]).items()}
    left = [(d, m) for d, m in modes.items()]
    right = [("local_adaln", m) for m in LINES if any(k.what == "local_adaln" and k.mode == m for k in fusion)]
    if not left:
        return
    figure, axes = plt.subplots(1, 2, figsize=(7.2, 2.9), sharey=True)
    for axis, series in zip(axes, (left, right), strict=True):
        for i, (d, m) in enumerate(series):
            points = sorted((k.n, row["ms"]) for k, row in fusion.items() if (k.what, k.mode) == (d, m))
            style, marker = LINES[m]
            label = m if axis is axes[1] else f"{d} ({m})"
            axis.plot(*zip(*points, strict=True), ls=style, marker=marker, ms=3.5, lw=1.2, label=label,
                      color=HUES[design(d).family], alpha=1 - 0.08 * (i % 6))  # fmt: skip
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set_xlabel("Gaussians")
        axis.legend(fontsize=6)
    axes[0].set_ylabel("fusion and decoding (ms)")
    axes[1].set_title("local_adaln", fontsize=8)
    save(figure, folder, "over_gaussians")


def over_tokens(folder: Path, rows: dict[Key, dict]) -> None:
    """Fusion time against the number of motion tokens, for the designs that attend to them."""
    of = {k: row for k, row in rows.items() if k.t is not None and row["status"] == "ok"}
    if not of:
        return
    figure, axis = plt.subplots(figsize=(3.6, 2.6))
    for d, m in dict.fromkeys((k.what, k.mode) for k in of):
        points = sorted((k.t, row["ms"]) for k, row in of.items() if (k.what, k.mode) == (d, m))
        axis.plot(*zip(*points, strict=True), ls=LINES[m][0], marker=LINES[m][1], ms=3.5, lw=1.2, label=f"{d} ({m})",
                  color=HUES[design(d).family])  # fmt: skip
    b, n, _ = base(rows)
    local = _fastest(rows, lambda k: (k.stage, k.what, k.b, k.n, k.t) == ("fusion", "local_adaln", b, n, None))
    for key in local.values():
        axis.axhline(rows[key]["ms"], color=HUES["local"], lw=0.8, ls=(0, (4, 2)), label=f"local_adaln ({key.mode})")
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xlabel("motion tokens")
    axis.set_ylabel("fusion and decoding (ms)")
    axis.legend(fontsize=6)
    save(figure, folder, "over_tokens")


def stage_bars(folder: Path, rows: dict[Key, dict]) -> None:
    """What a frame of local_adaln is made of, by mode: the stages apart, and the whole frame."""
    b, n, r = base(rows)
    raster = {"compiled": "eager", "triton": "eager"}
    modes = [m for m in LINES if Key("frame", "local_adaln", m, b, n, r) in rows]
    if not modes:
        return
    figure, axis = plt.subplots(figsize=(4.6, 0.6 + 0.45 * len(modes)))
    colors = {"driver": "#7f8c8d", "fusion": HUES["local"], "raster": HUES["parametric"]}
    for y, m in enumerate(modes):
        x = 0.0
        keys = {"driver": Key("driver", "resnet18", m, b), "fusion": Key("fusion", "local_adaln", m, b, n),
                "raster": Key("raster", "static", raster.get(m, m), b, n, r)}  # fmt: skip
        for stage, key in keys.items():
            ms = rows.get(key, {}).get("ms", math.nan)
            if ms == ms:
                axis.barh(y, ms, left=x, color=colors[stage], height=0.5, label=stage if y == 0 else None)
                x += ms
        whole = rows[Key("frame", "local_adaln", m, b, n, r)]
        if "ms" in whole:
            axis.plot(whole["host_ms"], y, "kD", ms=4, label="whole frame, host" if y == 0 else None)
    axis.set_yticks(range(len(modes)), modes)
    axis.invert_yaxis()
    axis.set_xlabel("ms")
    axis.legend(fontsize=6, loc="lower right")
    save(figure, folder, "stages")
