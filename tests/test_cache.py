"""Files appear whole or not at all, and a full disk is one sentence."""

from __future__ import annotations

import shutil
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from helpers.clips import drawn_clips
from helpers.disk import full_disk

from i4d_bench.cache import atomic_file
from i4d_bench.data import frames as store
from i4d_bench.data.video import files
from i4d_bench.report.drawing import save
from i4d_bench.types import UserError

NOISE = np.random.default_rng(0).random(200_000)
WRITERS = {
    "torch": lambda path: torch.save({"a": torch.from_numpy(NOISE), "b": torch.zeros(3)}, path),
    "npy": lambda path: np.save(path, NOISE),
    "npz": lambda path: np.savez_compressed(path, a=NOISE),
    "text": lambda path: path.write_text("x" * 2_000_000),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk_is_one_sentence_and_the_old_file_stays(tmp_path, kind):
    path = tmp_path / f"a.{'npz' if kind == 'npz' else 'npy'}"
    path.write_bytes(b"old")
    with (
        full_disk(500_000),
        pytest.raises(UserError, match=r"cannot write .*/a\.np.") as e,
        atomic_file(path) as partial,
    ):
        WRITERS[kind](partial)
    assert "\n" not in str(e.value) and "enforce" not in str(e.value)
    assert [p.name for p in tmp_path.iterdir()] == [path.name] and path.read_bytes() == b"old"


def test_other_errors_pass_through(tmp_path):
    with pytest.raises(RuntimeError, match="out of luck"), atomic_file(tmp_path / "a"):
        raise RuntimeError("out of luck")
    assert not list(tmp_path.iterdir())


def test_the_hint_names_the_cache_for_files_in_it_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("I4D_CACHE", str(tmp_path / "cache"))
    for folder, hinted in (("cache", True), ("elsewhere", False)):
        with full_disk(10), pytest.raises(UserError) as e, atomic_file(tmp_path / folder / "a") as partial:
            partial.write_text("x" * 100)
        assert ("I4D_CACHE" in str(e.value)) == hinted


def test_a_data_set_is_replaced_whole_or_stays(tmp_path):
    before = drawn_clips(tmp_path / "data", [0, 0]).meta["hash"]
    with full_disk(200_000), pytest.raises(UserError, match="cannot write"):
        drawn_clips(tmp_path / "data", [0] * 8)
    assert store.open_frames(tmp_path / "data").meta["hash"] == before
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


def test_figures_and_films_leave_no_half_file(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 255, (30, 64, 64, 3), np.uint8)
    with full_disk(5000), pytest.raises(UserError, match="cannot write"):
        files.write_video(tmp_path / "a.mp4", pictures, 25)
    figure, axis = plt.subplots()
    axis.imshow(pictures[0])
    with full_disk(1000), pytest.raises(UserError, match="cannot write"):
        save(figure, tmp_path, "figure")
    plt.close(figure)
    assert not list(tmp_path.iterdir())


def test_a_mapped_array_has_its_room_before_it_is_filled(tmp_path):
    """On a disk that is truly full (a small tmpfs): a sparse file ends the process by SIGBUS where it is filled."""
    unshare = shutil.which("unshare")
    inside = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(tmp_path)]
    if not unshare or subprocess.run([unshare, "-rm", *inside], capture_output=True).returncode:
        pytest.skip("no tmpfs may be mounted here")
    script = (
        "import sys, pathlib, numpy\nfrom i4d_bench.data.frames import create\n"
        f"try: create(pathlib.Path({str(tmp_path)!r}) / 'a.npy', numpy.uint8, (600, 1000))[:] = 1\n"
        "except OSError as e: sys.exit(e.strerror)\n"
    )
    command = f'{" ".join(inside)} && exec {sys.executable} -c "$1"'
    done = subprocess.run([unshare, "-rm", "sh", "-c", command, "sh", script], capture_output=True, text=True)
    assert done.returncode == 1 and "No space left" in done.stderr, done


def test_a_mapped_array_is_a_npy_of_zeros(tmp_path):
    made = store.create(tmp_path / "a.npy", np.float32, (3, 500, 1000))
    made[1] = 2
    made.flush()
    read = np.load(tmp_path / "a.npy")
    assert read.dtype == np.float32 and read.shape == made.shape and read.sum((1, 2)).tolist() == [0, 1e6, 0]
