"""The version stands in one place, and the changelog knows it."""

import re
import tomllib

from helpers import ROOT

import i4d_bench

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_package_is_built_with_the_codes_own_version():
    assert "version" not in PYPROJECT["project"]
    assert PYPROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "i4d_bench.__version__"}


def test_the_changelogs_newest_release_is_this_version():
    releases = re.findall(
        r"^## (\d+\.\d+\.\d+) \(\d{4}-\d\d-\d\d\)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )
    assert releases[0] == i4d_bench.__version__


def test_tools_whose_verdict_is_a_gate_are_pinned():
    """A new release of a linter must not turn an unchanged commit red."""
    extra = PYPROJECT["project"]["optional-dependencies"]["test"]
    gates = [requirement for requirement in extra if re.match(r"(ruff|pyright)\b", requirement)]
    assert len(gates) == 2 and all("==" in requirement for requirement in gates)
