"""LaTeX: text, booktabs tables that are as wide as what they stand in, and documents of two columns to look at them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np

from i4d_bench.report.columns import Column, reference_rows
from i4d_bench.report.drawing import COLUMN, PAGE, plain
from i4d_bench.report.rows import Row

SIGNS = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "_": r"\_\allowbreak{}", "%": r"\%", "&": r"\&", "#": r"\#", "$": r"\$",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$", "=": "$=$", "±": r"$\pm$", "×": r"$\times$",
    "−": "$-$", "–": "--", "·": r"$\cdot$", "°": r"$^\circ$", "√": r"$\surd$", "²": "$^2$", "³": "$^3$", "†": r"$^\dagger$",
    "≤": r"$\le$", "≥": r"$\ge$", "≈": r"$\approx$", "Σ": r"$\Sigma$", "σ": r"$\sigma$", "µ": r"$\mu$", "γ": r"$\gamma$",
    "β": r"$\beta$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "→": r"$\to$", "▲": r"$\blacktriangle$", "△": r"$\vartriangle$",
    "▼": r"$\blacktriangledown$", "▽": r"$\triangledown$", "@": r"@\allowbreak{}", ",": r",\allowbreak{}", "/": r"/\allowbreak{}",
    "‡": r"$^\ddagger$",
}  # fmt: skip
BLOCK_HEADS = {
    "fair": "same information",
    "privileged": "given more than the others",
    "control": "control, never moves",
}


class Setting(NamedTuple):
    """How a table is set: sizes of its text and of the intervals in it, and the room between columns."""

    text: str
    after: str
    gap: str


WIDE = Setting(r"\footnotesize", r"\scriptsize", "3.5pt")
NARROW = Setting(r"\scriptsize", r"\fontsize{6.5}{7.5}\selectfont", "2.2pt")
DENSE = Setting(r"\scriptsize", "", "2.2pt")
"""Of both columns of a page, of one, and of both with many columns of its own."""
DOCUMENT = r"""\documentclass[10pt,twocolumn]{article}
\usepackage[T1]{fontenc}
\usepackage[utf8]{inputenc}
\usepackage{mathptmx,amsmath,amssymb,booktabs,tabularx,graphicx}
\usepackage[letterpaper,textwidth=%gin,textheight=9in,columnsep=%gin]{geometry}
\setlength{\emergencystretch}{3em}
\setlength{\belowcaptionskip}{4pt}
\begin{document}
%s
\end{document}
"""


def escape(text: str) -> str:
    """Plain text as LaTeX, with `commands` as typewriter sets them; other than SIGNS it must be what inputenc knows."""
    said, *rest = text.split("`")
    parts = [_signs(said)]
    for k, part in enumerate(rest):
        parts.append(rf"\texttt{{{_signs(part)}}}" if k % 2 == 0 else _signs(part))
    return "".join(parts)


def _signs(text: str) -> str:
    """Hyphens in a row stay hyphens, and numbers whole."""
    kept = re.sub(r"(?<=\d),(?=\d)", "\0", text.replace("--", "-\1-"))
    return "".join(SIGNS.get(c, c) for c in kept).replace("\0", ",").replace("\1", "{}")


def document(parts: Sequence[str]) -> str:
    """Two columns of COLUMN inches, PAGE in all."""
    return DOCUMENT % (PAGE, PAGE - 2 * COLUMN, "\n\n".join(parts))


def floating(body: str, caption: str, wide: bool, kind: str = "table") -> str:
    """A float of one column, or of both. caption: LaTeX."""
    star, width = "*" * wide, r"\textwidth" if wide else r"\columnwidth"
    above, below = (f"\\caption{{{caption}}}\n", "") if kind == "table" else ("", f"\n\\caption{{{caption}}}")
    body = body.replace("WIDTH", width)
    return f"\\begin{{{kind}{star}}}[tp]\n\\centering\n{above}{body}{below}\n\\end{{{kind}{star}}}"


def picture(name: str, caption: str) -> str:
    """A figure that was drawn at its printed size, for both columns."""
    return floating(rf"\includegraphics{{{name}}}", caption, True, "figure")


def tabular(heads: Sequence[str], lines: Sequence[str], columns: str, setting: Setting) -> str:
    """heads and lines: rows of LaTeX. The first column takes the room that the others (`columns`) leave and breaks its lines."""
    first = r">{\raggedright\arraybackslash\hangindent=1em}X"
    return "\n".join(
        [setting.text + rf"\setlength{{\tabcolsep}}{{{setting.gap}}}",
         rf"\begin{{tabularx}}{{WIDTH}}{{@{{}}{first}{columns}@{{}}}}", r"\toprule", *heads, r"\midrule", *lines, r"\bottomrule",
         r"\end{tabularx}"]
    )  # fmt: skip


def table(columns: Sequence[Column], designs: dict[str, Row], wide: bool) -> str:
    """Means with half their 95% intervals; the best bold; a heading for every block where there are several, and what is known
    without any avatar at the end."""
    setting = WIDE if wide else NARROW
    lines, several = [], len({row.block for row in designs.values()}) > 1
    for block, own in groupby(designs.items(), lambda item: item[1].block):
        rows = list(own)
        if several:
            lines += [
                r"\addlinespace[2pt]",
                rf"\multicolumn{{{len(columns) + 1}}}{{@{{}}l}}{{\itshape {BLOCK_HEADS[block]}}} \\",
            ]
        for k, (d, row) in enumerate(rows):
            if k and row.family != rows[k - 1][1].family:
                lines.append(r"\addlinespace[2pt]")
            lines.append(line(name(d) + escape(row.mark), [_cell(c, d, setting.after) for c in columns]))
    known = reference_rows(columns)
    if known:
        lines.append(r"\midrule")
    lines += [line(rf"\itshape {escape(n)}", [c.text(c.references.get(n, np.nan)) for c in columns]) for n in known]
    heads = [*_groups(columns), line("", [head(c.label) for c in columns])]
    return tabular(heads, lines, "r" * len(columns), setting)


def line(first: str, cells: Iterable[str]) -> str:
    """A row of LaTeX."""
    return " & ".join([first, *cells]) + r" \\"


def upright(label: str) -> str:
    """A head that is turned, for columns of single signs."""
    return rf"\rotatebox{{90}}{{{escape(label)}}}"


def name(design: str) -> str:
    return escape(plain(design).replace("\n", " "))


def _cell(column: Column, design: str, after: str) -> str:
    text, interval = column.text(column.values[design]), column.intervals.get(design)
    half = (interval.hi - interval.lo) / 2 if interval else np.nan
    if not text:
        return escape(column.absent)
    mean = rf"\textbf{{{text}}}" if design in column.bold else text
    return mean + rf"{{{after}$\,\pm${half:.{column.digits}f}}}" * bool(np.isfinite(half))


def head(label: str) -> str:
    """On two lines where it has two words or more, such as a network in brackets."""
    words = re.split(r" (?=[\w(/])", label, maxsplit=1)
    return r"\shortstack[r]{" + r"\\".join(map(escape, words)) + "}" if len(words) > 1 else escape(label)


def _groups(columns: Sequence[Column]) -> Iterator[str]:
    """A line above the heads with what columns side by side have in common, and rules under it."""
    found = [(name, len(list(own))) for name, own in groupby(columns, lambda c: c.group)]
    if not any(name for name, _ in found):
        return
    heads, rules, at = [], [], 2
    for name, count in found:
        heads.append(rf"\multicolumn{{{count}}}{{c}}{{{escape(name)}}}" if name else " &" * (count - 1))
        if name:
            rules.append(rf"\cmidrule(lr){{{at}-{at + count - 1}}}")
        at += count
    yield line("", heads)
    yield "".join(rules)
