"""Designs from anywhere: files, modules and installed packages; and what is no design says so in one sentence."""

from __future__ import annotations

import sys

import pytest
from helpers.designs import awake, differ, shown_example

import variants
from i4d_bench import source
from i4d_bench.types import UserError
from variants import base, imports

pytestmark = pytest.mark.usefixtures("outside")
TWO = shown_example() + shown_example().replace('"local_gain"', '"other_gain"').replace("LocalGain", "OtherGain")


def test_the_documented_example_is_a_design_from_a_file(outside, tiny):
    (outside / "my_gain.py").write_text(shown_example())
    assert variants.load(["static", "./my_gain.py@hidden=128"]) == ("static", "local_gain@hidden=128")
    assert "local_gain" in variants.names("local")
    assert base.source_of("local_gain@hidden=128") == outside / "my_gain.py"
    assert variants.create("local_gain@hidden=128").gain[0].out_features == 128
    fusion, identity = awake("local_gain"), tiny.identity(2)
    prepared = fusion.prepare(identity, tiny.code(2))
    out = fusion.animate(prepared, tiny.code(6, seed=2))
    assert out.means.shape[0] == 6 and differ(out, fusion.animate(prepared, tiny.code(6, seed=3)))


def test_what_is_given_makes_the_same_designs_known_elsewhere(outside):
    """Whole paths: another process may stand in another folder."""
    (outside / "two.py").write_text(TWO)
    assert variants.load(["two.py"]) == ("local_gain", "other_gain")
    assert variants.given(["static", "other_gain@hidden=8", "local_gain"]) == (str(outside / "two.py"),)
    assert variants.load(variants.given(["other_gain"])) == ("local_gain", "other_gain")


def test_a_module_brings_what_it_registers_and_what_lies_below_it(outside):
    (outside / "mine" / "gains").mkdir(parents=True)
    (outside / "mine" / "gains" / "__init__.py").write_text("from mine.gains import one\n")
    (outside / "mine" / "gains" / "one.py").write_text(shown_example())
    assert variants.load(["mine.gains@hidden=8"]) == ("local_gain@hidden=8",)
    assert variants.load(["mine.gains.one"]) == ("local_gain",)
    assert variants.given(["local_gain"]) == ("mine.gains.one",)


def test_an_installed_package_brings_its_designs_by_entry_point(outside, monkeypatch):
    (outside / "their_gain.py").write_text(shown_example())
    (outside / "theirs-1.0.dist-info").mkdir()
    (outside / "theirs-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (outside / "theirs-1.0.dist-info" / "entry_points.txt").write_text(
        f"[{imports.ENTRY_POINTS}]\ngains = their_gain\n"
    )
    monkeypatch.syspath_prepend(outside)
    imports.installed.cache_clear()
    assert "local_gain" in variants.names()
    assert variants.given(["local_gain"]) == (), "another process finds it by itself"
    (outside / "their_gain.py").write_text("import nothing_of_that_name\n")
    del sys.modules["their_gain"]
    imports.installed.cache_clear()
    with pytest.raises(UserError, match=r"the package theirs brings .* No module named 'nothing_of_that_name'"):
        variants.names()


def test_a_file_of_ours_is_named_by_its_path_too():
    path = base.source_of("local_film")
    assert variants.load([str(path)]) == ("local_film",) and variants.given(["local_film"]) == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\n", "registers no design"),
        ("import nothing_of_that_name\n", "No module named 'nothing_of_that_name' .line 1"),
        ("import torch\n\ntorch.zeros(2).nope\n", "AttributeError: .*nope.* .line 3"),
        ("def f(:\n", "invalid syntax .line 1"),
        ("raise SystemExit(0)\n", "SystemExit"),
        (shown_example().replace('"local_gain"', '"static"'), r"two fusion designs are called 'static': Static in .*static.py"),
        (TWO.replace('"other_gain"', '"local_gain"'), "two fusion designs are called 'local_gain'"),
        (shown_example().replace('"local_gain"', '"my/gain"'), "cannot be called 'my/gain'"),
        (shown_example().replace("def animate", "def animated"), "'local_gain' lacks animate"),
        (shown_example().replace('    needs = "motion"\n', ""), "'local_gain' lacks needs"),
        (shown_example().replace("hidden: int = 64", "hidden: int"), "no default for hidden"),
        (shown_example().replace("(Fusion)", ""), "no subclass of variants.base.Fusion"),
    ],
)  # fmt: skip
def test_a_file_that_holds_no_design_is_one_sentence(outside, text, said):
    (outside / "mine.py").write_text(text)
    with pytest.raises(UserError, match=said) as e:
        variants.load(["./mine.py"])
    assert str(outside / "mine.py") in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("./nowhere.py", "there is no file /"),
        ("./notes.txt", "notes.txt cannot be imported: invalid syntax"),
        ("./folder.py", "is a folder"),
        ("package.nowhere", "there is no module package.nowhere"),
        ("json.decoder", "json.decoder registers no design"),
    ],
)
def test_a_place_without_designs_is_one_sentence(outside, entry, said):
    (outside / "folder.py").mkdir()
    (outside / "notes.txt").write_text("no Python")
    with pytest.raises(UserError, match=said):
        variants.load([entry])


def test_a_file_may_import_its_neighbours(outside):
    """And what it imports is part of its source, of which a run's identity is made."""
    (outside / "width_of_mine.py").write_text("WIDTH = 48\n")
    (outside / "gain.py").write_text(
        shown_example().replace("from torch import", "import width_of_mine\nfrom torch import")
    )
    assert variants.load(["./gain.py"]) == ("local_gain",)
    before = source.digest(base.source_of("local_gain"))
    (outside / "width_of_mine.py").write_text("WIDTH = 8\n")
    source.read.cache_clear()
    assert source.digest(base.source_of("local_gain")) != before


@pytest.mark.parametrize(("first", "encoding"), [("\ufeff", "utf-8"), ("# -*- coding: latin-1 -*-  é\n", "latin-1")])
def test_a_file_may_say_how_it_is_encoded(outside, first, encoding):
    (outside / "gain.py").write_bytes((first + shown_example()).encode(encoding, "replace"))
    assert variants.load(["./gain.py"]) == ("local_gain",)
    assert source.digest(base.source_of("local_gain"))


def test_a_path_may_hold_what_separates_settings(outside):
    (outside / "me@home, here").mkdir()
    (outside / "me@home, here" / "a.b.py").write_text(shown_example())
    assert variants.load(["me@home, here/a.b.py@hidden=8"]) == ("local_gain@hidden=8",)
    assert variants.load(["me@home, here/a.b.py"]) == ("local_gain",)
