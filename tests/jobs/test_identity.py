"""A finished run stands for the code that made it: a changed number trains again, a changed comment does not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
from helpers import ROOT

DESIGN = "variants/local_mlp.py"


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The packages as an unpacked archive has them: no repository around. What is compiled of them comes along, but for files that
    are being written."""
    folder = tmp_path_factory.mktemp("copy")
    for package in ("i4d_bench", "variants", "kernels"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("*.tmp.*", "*.pyc.*"))
    return folder


def run(copy) -> str:
    command = [sys.executable, "-m", "i4d_bench.cli", "run", "--preset", "smoke", "--designs", "local_mlp"]
    env = os.environ | {"PYTHONPATH": str(copy), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=copy, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def edit(copy, old: str, new: str) -> None:
    path = copy / DESIGN
    text = path.read_text()
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {DESIGN}"
    path.write_text(text.replace(old, new))


def test_an_edited_design_trains_again_and_an_edited_comment_does_not(copy):
    finished = "already finished: local_mlp"
    assert finished not in run(copy)
    record = json.loads(next(copy.glob("reports/*/runs/*.json")).read_text())
    assert record["environment"]["commit"] is None and record["environment"]["version"], "no git here"
    edit(copy, "from __future__ import annotations", "from __future__ import annotations  # a comment")
    assert finished in run(copy)
    edit(copy, "prepared.fused(bias.new_ones", "prepared.fused(2 * bias.new_ones")
    assert finished not in run(copy)
    assert len(list(copy.glob("runs/*/local_mlp-*"))) == 2, "the first checkpoint is kept"
