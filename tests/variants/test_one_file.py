"""A new design is one file in variants/, and leaves the rest of the suite as it was."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from helpers import ROOT
from helpers.designs import shown_example

OVER_ALL = ("config/test_ablations.py", "report/test_designs.py", "variants/test_contract.py", "speed/test_suite.py")
"""Tests that ask the registry for its designs."""
THESE = "not (test_contract or test_suite) or (gain and not suite) or (gain and timed_moves)"
"""Of these those that say something of lists of designs, and of those that run over every design the new ones."""
ADDED = {"local": "local_gain", "global": "global_gain", "parametric": "flame_gain", "control": "still_gain"}


def test_what_ours_promise_beyond_the_contract_is_asked_of_ours_by_name():
    """A test over `variants.names(…)` would ask it of everybody's design."""
    asking = [
        p.relative_to(ROOT / "tests").as_posix()
        for p in (ROOT / "tests").rglob("test_*.py")
        if "parametrize" in (text := p.read_text(encoding="utf-8")) and "variants.names(" in text
    ]
    assert set(asking) <= {*OVER_ALL, "variants/test_load.py", "variants/test_one_file.py"}


def test_the_documented_example_in_variants_leaves_the_suite_green(tmp_path):
    """As a design of every family, too. What is compiled comes along, but for files that are being written."""
    for name in ("i4d_bench", "kernels", "variants", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.tmp.*", "*.pyc.*"))
    for name in ("docs", "reports", "pyproject.toml"):
        (tmp_path / name).symlink_to(ROOT / name)
    for family, name in ADDED.items():
        text = shown_example().replace('"local_gain"', f'"{name}"').replace('"local"', f'"{family}"')
        (tmp_path / "variants" / f"{name}.py").write_text(text, encoding="utf-8")
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")} | {"PYTHONPATH": str(tmp_path)}
    files = [f"tests/{file}" for file in OVER_ALL]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files, "-k", THESE]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
