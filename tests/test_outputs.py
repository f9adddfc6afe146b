"""Where a command writes is looked at before its work begins: refused in one sentence, or right at the end of hours."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from i4d_bench import cli, outputs
from i4d_bench.errors import UserError

BAD = ("file/below", "file", "self", "gone")


@pytest.fixture
def place(tmp_path, monkeypatch) -> Iterator[Path]:
    """The folder one is in, with something of each kind in it."""
    here = tmp_path / "here"
    for name in ("empty", "full", "data"):
        (here / name).mkdir(parents=True)
    (here / "file").touch()
    (here / "full" / "thesis.tex").touch()
    (here / "data" / "dataset.json").touch()
    (here / "clip.mp4").touch()
    for name, target in {"link": "empty", "self": "self", "gone": "nowhere/at/all", "other": "clip.mp4"}.items():
        (here / name).symlink_to(target)
    monkeypatch.chdir(here)
    yield here
    assert (here / "full" / "thesis.tex").exists() and not (here / "new").exists(), "nothing was touched"


def test_a_data_set_takes_the_place_of_nothing_else(place):
    for name in ("new", "new/deep", "empty", "data", "link", "gone", "empty/.", "full/../new", str(place / "new")):
        assert outputs.data_set(Path(name)) == (place / name).resolve()
    for name in (".", "", "..", "/", "file", "file/below", "full", "self", str(place), "empty/.."):
        with pytest.raises(UserError):
            outputs.data_set(Path(name))


def test_a_site_takes_the_place_of_another_site_alone(place):
    (place / "full" / ".nojekyll").touch()
    (place / "data" / outputs.SITE).touch()
    inputs = [Path("reports/published"), Path("submitted")]
    for name in ("new", "empty", "data", "link", "reports/site"):
        assert outputs.site(Path(name), inputs) == (place / name).resolve()
    bad = ("", "..", "/", "file", "full", "reports", "reports/published", "submitted/new", "empty/../submitted")
    for name in (*bad, str(place)):
        with pytest.raises(UserError):
            outputs.site(Path(name), inputs)


def test_a_data_set_follows_a_link_to_its_folder(place):
    assert outputs.data_set(Path("link")) == place / "empty" and Path("link").is_symlink()


def test_a_mounted_disk_is_not_replaced(place, monkeypatch):
    """`docker run -v $PWD/data:/data … --out /data`"""
    monkeypatch.setattr(outputs.os.path, "ismount", lambda path: Path(path).name == "empty")
    with pytest.raises(UserError, match="mounted"):
        outputs.data_set(Path("empty"))
    with pytest.raises(UserError, match="mounted"):
        outputs.site(Path("empty"), [])


def test_a_file_replaces_a_file_but_no_input_and_no_folder(place):
    for name in ("out.mp4", "new/out.mp4", "file", "link/out.mp4", "gone"):
        assert outputs.file(Path(name), [Path("clip.mp4"), Path("full")]) == (place / name).resolve()
    for name in ("clip.mp4", "other", "empty", ".", "full/out.mp4", "file/out.mp4", "self"):
        with pytest.raises(UserError):
            outputs.file(Path(name), [Path("clip.mp4"), Path("full")])


def test_a_folder_is_tried_and_left_as_it_was(place):
    for name in ("new", "new/deep", "empty", "full", ".", "link"):
        outputs.folder(Path(name))
    for name in BAD:
        with pytest.raises(UserError, match="cannot write"):
            outputs.folder(Path(name))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_locked_is_refused(place):
    (place / "empty").chmod(0o500)
    with pytest.raises(UserError, match="cannot write"):
        outputs.folder(Path("empty"))


COMMANDS = {
    "run --reports": ["run", "--preset", "smoke", "--reports"],
    "run --runs": ["run", "--preset", "smoke", "--runs"],
    "speed --reports": ["speed", "--reports"],
    "costs --reports": ["costs", "--reports"],
    "ingest --out": ["ingest", "clip.mp4", "--out"],
    "tracked data": ["ingest", "data", "--format", "gagavatar", "--flame", "file", "--out"],
    "animate --out": ["animate", "--source", "clip.mp4", "--driving", "clip.mp4", "--run", "full", "--out"],
    "docs --out": ["docs", "--out"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_looks_before_it_works(place, monkeypatch, capsys, command):
    """None of them gets as far as opening an input, building data or measuring."""
    bad = "file/below.mp4"
    monkeypatch.setattr(sys, "argv", ["i4d-bench", *COMMANDS[command], bad])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    err = capsys.readouterr().err
    assert stop.value.code == 2 and err.count("\n") == 1 and "cannot write" in err and "file" in err
