"""Links of the project's own pages: every file that they name is there and tracked, every #anchor is a heading."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from urllib.parse import unquote

import pytest
from helpers import ROOT

PAGES = sorted(
    [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "kernels/README.md")]
    + list((ROOT / "docs").glob("*.md"))
)
LINK = re.compile(r"\]\(([^()\s]+)\)")


def prose(page: Path) -> str:
    """A page without its fenced and indented code."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    return re.sub(r"^    .*$", "", text, flags=re.M)


def slugs(page: Path) -> set[str]:
    """What GitHub calls a page's headings: lower case, spaces as hyphens, punctuation gone, repeated ones numbered."""
    found, seen = set(), Counter()
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", prose(page), flags=re.M):
        shown = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


def tracked() -> set[Path] | None:
    """The files that git knows here, and their folders; None without git."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        return None
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, encoding="utf-8")
    files = {ROOT / name for name in listed.stdout.split("\0") if name}
    return files | {folder for file in files for folder in file.parents}


@pytest.fixture(scope="module")
def known() -> set[Path] | None:
    return tracked()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_relative_link_leads_somewhere(page, known):
    for link in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = unquote(link).partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert known is None or target in known, f"{link} is not tracked"
        assert not anchor or anchor in slugs(target), link


def test_slugs_are_githubs(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# The paper's `scale`, 2×\n\n## Twice\n\n```\n# code\n```\n\n## Twice\n\n## [A link](x.md)\n", encoding="utf-8"
    )
    assert slugs(page) == {"the-papers-scale-2", "twice", "twice-1", "a-link"}


def test_every_page_of_docs_is_linked_from_the_readme():
    linked = {ROOT / link.partition("#")[0] for link in LINK.findall(prose(ROOT / "README.md"))}
    assert {page for page in PAGES if page.parent.name == "docs"} <= linked


def test_the_answer_can_be_replaced():
    """Between its two marks, on the first screen."""
    first = "".join((ROOT / "README.md").read_text(encoding="utf-8").splitlines(keepends=True)[:45])
    assert first.count("<!-- answer -->") == first.count("<!-- /answer -->") == 1
