"""One self-contained page per report: it opens from a disk, offline, on a phone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from PIL import Image

from i4d_bench.report.drawing import hues
from i4d_bench.report.web.pictures import data_url
from i4d_bench.report.writing import write_text

HERE = Path(__file__).parent
VIEWER = ("vendor/gsplat.min.js", "assets/avatars.js")
"""Only where there are avatars."""
SCRIPTS = (
    "vendor/table-core.min.js",
    "assets/table.js",
    "assets/provenance.js",
    "assets/pictures.js",
    "assets/page.js",
)
TEMPLATES = jinja2.Environment(loader=jinja2.FileSystemLoader(HERE / "assets"), autoescape=True, trim_blocks=True)


def write(folder: Path, content: dict[str, Any], out: Path | None = None, home: str | None = None) -> Path:
    """Writes index.html of a report folder's content (`runs.content`, `speed.content`), with the figures that lie in it, into
    `out`, the folder itself by default. home: where the site begins, as a link."""
    drawn = {title: folder / f"{name}.png" for name, title in content["figures"].items()}
    images = [_figure(title, path) for title, path in drawn.items() if path.exists()]
    scripts = (*VIEWER, *SCRIPTS) if content.get("avatars") else SCRIPTS
    page = render("report.html", scripts, content, figures=images, home=home)
    write_text((out or folder) / "index.html", page)
    return (out or folder) / "index.html"


def render(template: str, scripts: tuple[str, ...], content: dict[str, Any], **more: Any) -> str:
    """A page with its style, scripts and content within. What would end a script early is written otherwise."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    inside = {
        "style": _read("assets/style.css") + _hues(content),
        "scripts": [_read(s) for s in scripts],
        "json": Markup(text),
    }
    return TEMPLATES.get_template(template).render(content=content, **inside, **more)


def _hues(content: dict[str, Any]) -> Markup:
    """A rule for every family whose name can be a class: it has the hue of the figures."""
    families = (row["family"] for table in content.get("tables", ()) for row in table["rows"])
    found = hues(f for f in families if f.isidentifier())
    return Markup("".join(f".family.{family} {{ color: {hue}; }}\n" for family, hue in found.items()))


def _figure(title: str, path: Path) -> dict[str, Any]:
    """wide: it takes a line of its own."""
    with Image.open(path) as image:
        wide = image.width > 2 * image.height
    return {"title": title, "wide": wide, "src": data_url(path.read_bytes(), "image/png")}


def _read(name: str) -> Markup:
    return Markup((HERE / name).read_text(encoding="utf-8"))
