"""One self-contained page per report folder: tables and figures, rebuilt from stored results."""

from __future__ import annotations

import base64
from pathlib import Path

import jinja2

from i4d_bench.report.columns import Column, reference_rows
from i4d_bench.report.rows import Row
from i4d_bench.report.writing import write_text
from i4d_bench.results.store import Store

FIGURES = {"speed_quality": "Speed against expression error", "curves": "When designs start to follow the driver",
           "intervals": "Scores with 95% intervals", "qualitative": "Cross-reenactment",
           "search": "The gap of every setting over training"}  # fmt: skip
PAGE = jinja2.Environment(autoescape=True).from_string("""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{{ title }}</title>
<style>body{font:15px/1.45 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;font-size:13px;display:block;overflow-x:auto}
th,td{padding:.25rem .6rem;text-align:right;border-bottom:1px solid #ddd}
th:first-child,td:first-child{text-align:left;position:sticky;left:0;background:#fff}img{max-width:100%}small{color:#555}</style>
<h1>{{ title }}</h1>
{% for heading, columns in tables %}<h2>{{ heading }}</h2>
<table><tr><th>design</th>{% for c in columns %}<th>{{ c.head }}</th>{% endfor %}</tr>
{% for d, row in designs.items() %}<tr><td>{{ d }}{{ row.mark }}</td>
{% for c in columns %}<td>{% if c.values[d] == c.values[d] -%}
{% if d in c.bold %}<b>{{ "%.*f"|format(c.digits, c.values[d]) }}</b>{% else %}{{ "%.*f"|format(c.digits, c.values[d]) }}{% endif %}
{%- endif %}</td>{% endfor %}</tr>{% endfor %}
{% for name in references(columns) %}<tr><td><i>{{ name }}</i></td>
{% for c in columns %}<td>{{ c.text(c.references.get(name, nan)) }}</td>{% endfor %}</tr>{% endfor %}</table>{% endfor %}
{% for line in notes %}<p><small>{{ line }}</small></p>{% endfor %}
{% for name, data in figures %}<h2>{{ name }}</h2><img alt="{{ name }}" src="data:image/png;base64,{{ data }}">{% endfor %}
</html>""")


def write(store: Store, tables: dict[str, list[Column]], designs: dict[str, Row], notes: list[str]) -> Path:
    """Writes index.html from what `tables.write_all` or `search.write_search` returned and the figures that lie in the folder."""
    shown = lambda cs: [c for c in cs if any(v == v for v in c.values.values())]  # noqa: E731  (NaN differs from itself)
    images = [
        (title, base64.b64encode(path.read_bytes()).decode())
        for name, title in FIGURES.items()
        if (path := store.folder / f"{name}.png").exists()
    ]
    filled = [(head, shown(columns)) for head, columns in tables.items()]
    given = {"references": reference_rows, "nan": float("nan"), "designs": designs, "notes": notes, "figures": images}
    page = PAGE.render(given, title=store.folder.name, tables=filled)
    write_text(store.folder / "index.html", page)
    return store.folder / "index.html"
