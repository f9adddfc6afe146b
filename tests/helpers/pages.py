"""Pages in a real browser: Chromium without a window, which tests skip where it is not installed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")

WITHOUT_GPU = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader")


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser of playwright's. Skips the test where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="pages are tested with playwright")
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"pages are tested in Chromium: none of {', '.join(NAMES)} is installed")
    with api.sync_playwright() as started:
        yield started.chromium.launch(executable_path=found, args=["--no-sandbox", *WITHOUT_GPU])


@contextmanager
def opened(browser: Any, path: Path, width: int = 1400, dark: bool = False) -> Iterator[Any]:
    """A page from the disk. What it prints to the console, and any file or host that it asks for beside itself, is an error."""
    faults: list[str] = []
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light")
    page.on("console", lambda message: faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    own = path.resolve().as_uri()
    inside = (own, "data:", "blob:")
    page.on("request", lambda r: None if r.url.startswith(inside) else faults.append(f"asks for {r.url[:80]}"))
    page.goto(own)
    yield page
    page.close()
    assert not faults, faults
