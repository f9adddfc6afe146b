"""A rendered data set is built once, whoever asks and however many ask at the same time."""

import json
import os
import subprocess
import sys

from helpers import ROOT

BUILD = """
from i4d_bench.config.experiment import World
from i4d_bench.data.synthetic import rendered
if __name__ == "__main__":
    print("at", rendered(World(resolution=16, train_identities=2, val_identities=1, test_identities=2, expressions=2, views=2)))
"""


def test_two_processes_may_build_one_data_set(tmp_path):
    (tmp_path / "build.py").write_text(BUILD)
    env = os.environ | {"I4D_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    both = [
        subprocess.Popen(
            [sys.executable, "build.py"],
            cwd=tmp_path,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=300) for process in both]
    assert [p.returncode for p in both] == [0, 0], [err for _, err in said]
    folders = {line.removeprefix("at ") for out, _ in said for line in out.splitlines() if line.startswith("at ")}
    assert len(folders) == 1
    assert sum("waiting for another process" in out for out, _ in said) == 1, "the second waits, and says so"
    data = tmp_path / "cache" / "data"
    assert [p.name for p in data.iterdir() if not p.name.startswith(".")] == [os.path.basename(folders.pop())]
    assert json.loads(next(data.glob("*/dataset.json")).read_text())["frames"] > 0
