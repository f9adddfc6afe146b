"""What the page of a speed report shows: every row of speed.json, to be filtered by stage, mode and sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from i4d_bench.report.speeds import described, stored
from i4d_bench.report.web.table import Head, number, row, table
from i4d_bench.results.aggregate import finite
from i4d_bench.results.environment import code_of
from i4d_bench.speed.keys import Key

FIGURES = {
    "stages": "What a frame is made of",
    "over_gaussians": "Time over the number of Gaussians",
    "over_gaussians_in_all_modes": "Time over the number of Gaussians, in every mode",
    "over_tokens": "Time over the number of tokens",
}
HEADS = (
    Head("stage", words=True, filtered=True, wanted="frame", about="what is timed; a frame: from driving image to picture"),
    Head("mode", words=True, filtered=True, about="eager is the reference, which the others are held against"),
    Head("batch", words=True, filtered=True, wanted="1"),
    Head("Gaussians", words=True, filtered=True),
    Head("resolution", words=True, filtered=True),
    Head("ms ↓", digits=3, better="low", about="median on the device; beneath the pointer from p5 to p95"),
    Head("host ms ↓", digits=3, better="low", about="median by the host's clock"),
    Head("calls / s ↑", digits=0, better="high", about="by the host's clock; a call makes a whole batch"),
    Head("PSNR to eager (dB) ↑", digits=1, better="high", shown=False),
    Head("peak (MiB) ↓", digits=0, better="low", shown=False),
    Head("status", words=True, filtered=True),
)  # fmt: skip


def content(folder: Path) -> dict[str, Any]:
    """Of a folder with a speed.json."""
    found = stored(folder / "speed.json")
    rows, env, roof = {Key.parse(k): r for k, r in found["rows"].items()}, found["environment"], found["roof"]
    families = {name: about["family"] for name, about in described(found, rows).items()}
    batch, gaussians, resolution = found["base"]
    facts = {
        "Hardware": env["hardware"],
        "Copy": f"{roof['copy_tb_s']:.3g} TB/s",
        "Matrix product": f"{roof['matmul_tflop_s']:.3g} TFLOP/s",
        "An empty call": f"{1000 * roof['empty_ms']:.1f} µs on the device, {1000 * roof['empty_host_ms']:.1f} µs for the host",
        "Base": f"{gaussians:,} Gaussians, {resolution}², batch {batch}",
        "Rows": str(len(rows)),
        "Code": code_of(env),
    }
    versions = ", ".join(f"{k} {v}" for k, v in env["versions"].items() if v)
    wrong = (
        "A row whose output disagrees with the reference in the same process is marked wrong: its time does not count."
    )
    notes = [wrong, f"Measured with {versions}."]
    lines = [row(k.what, _cells(k, r), families.get(k.what.partition("@")[0], "")) for k, r in rows.items()]
    timed = table("Times", "rows", HEADS, lines)
    return finite(
        {
            "title": folder.resolve().name,
            "answer": _answer(rows, tuple(found["base"]), described(found, rows)),
            "facts": facts,
            "notes": notes,
            "tables": [timed],
            "figures": FIGURES,
            "runs": {},
        }
    )


def _answer(rows: dict[Key, dict[str, Any]], base: tuple[int, ...], designs: dict[str, dict[str, str]]) -> str:
    """The fastest frame at the base, of designs that are driven by the picture alone. Empty where none was timed."""
    needs = lambda k: designs[k.what.partition("@")[0]]["needs"]  # noqa: E731
    frames = {
        k: r for k, r in rows.items() if (k.stage, k.b, k.n, k.r, k.t) == ("frame", *base, None) and r["status"] == "ok"
    }
    rates = {k: k.b * r["fps"] for k, r in frames.items() if needs(k) == "motion"}
    if not rates:
        return ""
    k = max(rates, key=lambda k: rates[k])
    size = f"{k.mode}; {k.n:,} Gaussians, {k.r}², batch {k.b}"
    return f"Most frames per second of designs that need no tracker: {k.what}, {rates[k]:,.0f} ({size})."


def _cells(key: Key, r: dict[str, Any]) -> list[dict[str, Any] | None]:
    size = lambda n: None if n is None else {"v": str(n)}  # noqa: E731
    spread = {"lo": r["p5"], "hi": r["p95"], "between": "p5 to p95"} if "p5" in r else {}
    return [
        {"v": key.stage},
        {"v": key.mode},
        size(key.b),
        size(key.n),
        size(key.r),
        number(r.get("ms"), **spread),
        number(r.get("host_ms")),
        number(r.get("fps")),
        number(r.get("psnr")),
        number(r.get("peak_mib")),
        {"v": r["status"]},
    ]
