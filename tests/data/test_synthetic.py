"""A rendered data set is built once, whoever asks and however many ask at the same time."""

import json
import os
import shutil
from pathlib import Path

from helpers import ranks

from i4d_bench.heads.worlds import exported_head

BUILD = """
from i4d_bench.config.experiment import World
from i4d_bench.data.synthetic import rendered
print("at", rendered(World(resolution=16, train_identities=2, val_identities=1, test_identities=2, expressions=2, views=2)))
"""


def test_two_processes_may_build_one_data_set(tmp_path):
    exported_head("procedural")
    cache = tmp_path / "cache"
    cache.mkdir()
    for file in Path(os.environ["I4D_CACHE"]).glob("flame-procedural-*.npz"):  # as another data set has left it
        shutil.copy(file, cache)
    env = {"I4D_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    said = ranks.end([ranks.Rank(BUILD, env) for _ in range(2)])
    assert [code for code, *_ in said] == [0, 0], [err for *_, err in said]
    folders = {line.removeprefix("at ") for _, out, _ in said for line in out.splitlines() if line.startswith("at ")}
    assert len(folders) == 1
    assert sum("waiting for another process" in out for _, out, _ in said) == 1, "the second waits, and says so"
    data = cache / "data"
    assert [p.name for p in data.iterdir() if not p.name.startswith(".")] == [os.path.basename(folders.pop())]
    assert json.loads(next(data.glob("*/dataset.json")).read_text())["frames"] > 0
