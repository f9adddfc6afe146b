"""Provenance is right wherever the package lies: a checkout, an archive, site-packages, without git."""

import shutil
import subprocess

import pytest

from i4d_bench.results import environment


def git(folder, *arguments):
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path):
    """A repository that tracks our package's file."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    (tmp_path / "i4d_bench").mkdir()
    (tmp_path / "variants").mkdir()
    (tmp_path / "i4d_bench" / "__init__.py").write_text("")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "one")
    return tmp_path


def test_a_checkout_has_its_commit(checkout):
    commit, dirty = environment._commit(checkout)
    assert commit is not None and len(commit) == 12 and not dirty


def test_a_design_that_git_does_not_know_makes_it_dirty(checkout):
    (checkout / "variants" / "mine.py").write_text("GAIN = 2\n")
    assert environment._commit(checkout)[1]


def test_files_that_no_number_depends_on_do_not(checkout):
    (checkout / "reports").mkdir()
    (checkout / "reports" / "main.md").write_text("table\n")
    assert not environment._commit(checkout)[1]


def test_site_packages_inside_somebody_elses_repository_have_no_commit(checkout):
    inside = checkout / "venv" / "site-packages"
    (inside / "i4d_bench").mkdir(parents=True)
    (inside / "i4d_bench" / "__init__.py").write_text("")
    assert environment._commit(inside) == (None, False)


def test_an_archive_says_its_commit(tmp_path):
    (tmp_path / ".git_archival.txt").write_text("0123456789abcdef0123\n")
    assert environment._commit(tmp_path) == ("0123456789ab", False)
    (tmp_path / ".git_archival.txt").write_text("$Format:%H$\n")
    assert environment._commit(tmp_path) == (None, False)


def test_without_git_there_is_no_commit_and_no_failure(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    found = environment.environment()
    assert found["commit"] is None and found["dirty"] is False and found["version"]
