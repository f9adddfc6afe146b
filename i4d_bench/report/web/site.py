"""A site of all reports: a folder of pages that any web server, or none, can show. What is better known stands apart from what is
less well known: every tier has cards of its own, and no ranking goes beyond one report."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from i4d_bench import outputs, reading
from i4d_bench.progress import console, track
from i4d_bench.report import content
from i4d_bench.report.web import page
from i4d_bench.report.web.table import Head, number, row, table
from i4d_bench.report.writing import write_text
from i4d_bench.results.evidence import check_of, reproductions
from i4d_bench.results.store import Store
from i4d_bench.results.submissions import ENDING, unpacked
from i4d_bench.types import UserError

SHOWN = ("Data", "Driver", "Designs", "Seeds", "Preset", "Hardware", "Base", "Measured")
"""Of a report's facts, on its card."""
KINDS = {
    "": "comparison",
    "supervision-": "supervision",
    "ablation-": "ablation",
    "speed-": "speed",
    "papers": "printed",
}
"""By how a folder's name begins, in this order."""
TIERS = {
    "Reproduced": "Published here, and every design trained again with numbers that agree (i4d-bench reproduce).",
    "Published here": "Trained by this project's own code and machines; every number is rebuilt from stored samples.",
    "Submitted": "Trained by others. Files, splits and means were checked, and the pictures of self and cross scored again.",
    "From papers": "Numbers as their papers print them: other data, other networks, other machines.",
}
"""The best known first, and what is known of each."""
REPORTED = "reported.csv"
"""Beside the reports: what papers print."""


def write(reports: Path, out: Path, submitted: Path | None = None) -> Path:
    """Makes `out` anew: index.html, and a folder per report under `reports`, and per submission in `submitted`, with its page.
    Nothing under either changes. Raises UserError where there is no report, a submission was not checked or holds runs of another
    or of a report, or `out` is a folder that this did not make or that cannot be replaced (`outputs.site`)."""
    folders = sorted({p.parent for name in ("runs", "speed.json") for p in reports.rglob(name)})
    if not folders:
        raise UserError(f"{reports} holds no reports (folders with runs/ or speed.json)")
    packs = sorted(submitted.glob(f"*{ENDING}")) if submitted else []
    if submitted and not packs:
        raise UserError(f"{submitted} holds no submissions (.zip)")
    checks = {pack: check_of(pack) for pack in packs}
    out = outputs.site(out, [reports, *([submitted] if submitted else [])])
    _empty(out)
    cards: dict[str, list[dict[str, Any]]] = {tier: [] for tier in TIERS}
    for folder in track(folders, "pages", len(folders)):
        name = folder.relative_to(reports).as_posix()
        tier, told = _known(folder)
        home = "../" * (name.count("/") + 1) + "index.html"
        cards[tier].append(_card(name, _report(folder, out / name, home, tier, told)))
    known = {r.training: folder for folder in folders for r in Store(folder).records} if packs else {}
    for pack in track(packs, "submissions", len(packs)):
        name = f"submitted/{pack.stem}"
        found, who = _submission(pack, out / name, checks[pack].created[:10], known)
        cards["Submitted"].append(_card(name, found, who))
    if (reports / REPORTED).exists():
        cards["From papers"].append(_card("papers", _papers(reports / REPORTED, out / "papers")))
    tiers = [
        {"title": tier, "about": TIERS[tier], "cards": sorted(own, key=_order)} for tier, own in cards.items() if own
    ]
    write_text(out / "index.html", page.render("site.html", (), {"tiers": tiers}))
    console.print(f"{out}: {len(folders) + len(packs)} reports, {_size(out) / 1e6:.1f} MB")
    return out / "index.html"


def _known(folder: Path) -> tuple[str, str]:
    """A report's tier, and which of its designs were trained again where. Of several trainings of a design the newest counts."""
    again = reproductions(folder)
    if not again:
        return "Published here", ""
    runs = {r.run_id: r.design for r in Store(folder).records}
    newest = {d: a for a in again for d, run in a.runs.items() if runs.get(run) == d}  # of runs that still stand here
    agreed = {d: a for d, a in sorted(newest.items()) if d in a.agreed}
    machines = sorted({f"{a.hardware}, {a.code}" for a in agreed.values()})
    told = f"{', '.join(agreed)} ({'; '.join(machines)})" if agreed else "none of its designs"
    return "Reproduced" if set(agreed) == set(runs.values()) else "Published here", told


def _report(folder: Path, out: Path, home: str, tier: str, told: str) -> dict[str, Any]:
    """Writes one report's page; returns its content."""
    found = content(folder)
    found["facts"] |= {"Evidence": tier.lower()} | ({"Trained again": told} if told else {})
    page.write(folder, found, out, home)
    return found


def _submission(pack: Path, out: Path, checked: str, known: dict[tuple, Path]) -> tuple[dict[str, Any], str]:
    """Writes the page of one; returns its content and whose it is. known: where trainings are, which it must be others than."""
    with unpacked(pack) as (manifest, folder):
        for r in Store(folder).records:
            if (where := known.setdefault(r.training, pack)) != pack:
                raise UserError(f"{pack} holds {r.run_id}, which is a run of {where}: it was not trained by others")
        who = f"{manifest['name']} {manifest['url']}".strip()
        found = content(folder)
        found["facts"] |= {"Evidence": f"submitted by {who}; checked {checked}"}
        for run in found["runs"].values():
            own = run["command"].replace(folder.as_posix(), pack.stem)
            run["command"] = f"python -m zipfile -e {pack.name} {pack.stem} && {own}"
        page.write(folder, found, out, "../../index.html")
    return found, manifest["name"]


def _papers(file: Path, out: Path) -> dict[str, Any]:
    """Writes the page of printed numbers; returns its content."""
    printed = reading.table(file, ("method", "set", "metric", "value", "note", "source"), keep_default_na=False)
    heads = [
        Head("set", words=True, filtered=True),
        Head("metric", words=True, filtered=True),
        Head("value", digits=3, about="as printed"),
        Head("note", words=True),
        Head("source", words=True, filtered=True),
    ]
    rows = [
        row(
            r["method"], [{"v": r["set"]}, {"v": r["metric"]}, number(r["value"]), {"v": r["note"]}, {"v": r["source"]}]
        )
        for r in printed.to_dict("records")
    ]
    found = {
        "title": "Numbers that papers print",
        "answer": f"{len(printed)} numbers of {printed['method'].nunique()} methods, from "
        f"{', '.join(printed['source'].str.split(',').str[0].unique())}.",
        "facts": {"Evidence": "from papers", "Methods": str(printed["method"].nunique()), "Numbers": str(len(printed))},
        "notes": [f"{TIERS['From papers']} They do not compare with any report of this site."],
        "tables": [table("As printed", "numbers", heads, rows)],
        "figures": {},
        "runs": {},
    }
    page.write(file.parent, found, out, "../index.html")
    return found


def _card(name: str, found: dict[str, Any], who: str = "") -> dict[str, Any]:
    """What the first page says of a report: its answer, and under which conditions that was found. who: submitted it."""
    kind = KINDS[max((start for start in KINDS if name.rpartition("/")[2].startswith(start)), key=len)]
    facts = {"by": who, **{h.lower(): found["facts"].get(h, "") for h in SHOWN}}
    return {"name": name, "kind": kind, "answer": found["answer"], "facts": {h: v for h, v in facts.items() if v}}


def _order(card: dict[str, Any]) -> tuple[int, int, str]:
    """Kind after kind, the report of most designs first."""
    return list(KINDS.values()).index(card["kind"]), -int(card["facts"].get("designs", 0)), card["name"]


def _empty(out: Path) -> None:
    """Anew, with the mark of a site of ours; `.nojekyll` tells GitHub Pages to take it as it is."""
    if out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True)
    for mark in (outputs.SITE, ".nojekyll"):
        (out / mark).touch()


def _size(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
