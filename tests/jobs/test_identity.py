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
COMMAND = """
import os, sys
import numba, pandas, scipy.stats, statsmodels.stats.multitest, torch, torchmetrics, torchvision

for _ in sys.stdin:
    if os.fork():
        print("ended", os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
        continue
    from i4d_bench import cli
    from i4d_bench.report import figures
    figures.draw = lambda *_: None
    sys.argv = "i4d-bench run --preset smoke --designs local_mlp".split()
    sys.exit(cli.main())
"""
"""Runs the command for every line that it reads, each time by the code that lies there. What is others' is imported before."""


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The packages as an unpacked archive has them: no repository around. What is compiled of them comes along, but for files that
    are being written."""
    folder = tmp_path_factory.mktemp("copy")
    for package in ("i4d_bench", "variants", "kernels"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("*.tmp.*", "*.pyc.*"))
    return folder


@pytest.fixture(scope="module")
def run(copy):
    """run() → what the command prints that ends well, in the copy."""
    env = os.environ | {"PYTHONPATH": str(copy), "CUDA_VISIBLE_DEVICES": ""}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "encoding": "utf-8"}
    with subprocess.Popen([sys.executable, "-c", COMMAND], cwd=copy, env=env, **pipes) as process:

        def again() -> str:
            print(file=process.stdin, flush=True)
            said = ""
            for line in process.stdout or ():
                if line.startswith("ended "):
                    assert line == "ended 0\n", said
                    return said
                said += line
            pytest.fail(said)

        yield again


def edit(copy, old: str, new: str) -> None:
    path = copy / DESIGN
    text = path.read_text()
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {DESIGN}"
    path.write_text(text.replace(old, new))


def test_an_edited_design_trains_again_and_an_edited_comment_does_not(copy, run):
    finished = "already finished: local_mlp"
    assert finished not in run()
    record = json.loads(next(copy.glob("reports/*/runs/*.json")).read_text())
    assert record["environment"]["commit"] is None and record["environment"]["version"], "no git here"
    edit(copy, "from __future__ import annotations", "from __future__ import annotations  # a comment")
    assert finished in run()
    edit(copy, "prepared.fused(bias.new_ones", "prepared.fused(2 * bias.new_ones")
    assert finished not in run()
    assert len(list(copy.glob("runs/*/local_mlp-*"))) == 2, "the first checkpoint is kept"
