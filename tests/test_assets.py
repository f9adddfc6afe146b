"""The optional files are looked up where `i4d-bench assets` says, and checked by what reads them."""

from __future__ import annotations

import hashlib

import pytest

from i4d_bench import assets, doctor
from i4d_bench.data.video.landmarker import find_model
from i4d_bench.heads.ict import IctWorld
from i4d_bench.metrics.identity import MobileFaceEmbedder
from i4d_bench.types import UserError


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """No asset anywhere; the cache is `tmp_path`."""
    monkeypatch.delenv("I4D_ASSETS", raising=False)
    monkeypatch.setenv("I4D_CACHE", str(tmp_path))
    return tmp_path


NEEDED = {
    assets.LANDMARKER: find_model,
    assets.ICT: IctWorld,
    assets.MOBILEFACE: MobileFaceEmbedder,
}


@pytest.mark.parametrize("path", NEEDED)
def test_who_needs_a_missing_file_says_where_it_goes_and_where_to_get_it(empty, path):
    with pytest.raises(UserError) as e:
        NEEDED[path]()
    asset = next(a for a in assets.ASSETS if a.path == path)
    assert str(empty / "assets" / path) in str(e.value) and asset.address in str(e.value) and "\n" not in str(e.value)


def test_a_folder_of_ones_own_goes_before_the_cache(empty, monkeypatch):
    def put(root):
        (root / assets.ICT).parent.mkdir(parents=True)
        (root / assets.ICT).write_bytes(b"")
        return root / assets.ICT

    cached = put(empty / "assets")
    assert assets.find(assets.ICT) == assets.place(assets.ICT) == cached
    monkeypatch.setenv("I4D_ASSETS", str(empty / "own"))
    assert assets.find(assets.ICT) == cached and assets.place(assets.ICT) == empty / "own" / assets.ICT
    own = put(empty / "own")
    assert assets.find(assets.ICT) == own


def test_the_landmarker_lies_where_assets_says(empty):
    model = empty / "assets" / assets.LANDMARKER
    model.parent.mkdir(parents=True)
    model.write_bytes(b"x")
    assert find_model() == model
    with pytest.raises(UserError, match="nowhere"):
        find_model(empty / "nowhere")


def test_the_list_names_what_is_missing_with_its_address(empty, capsys):
    assert doctor.list_assets() == 0, "every asset is optional"
    printed = capsys.readouterr().out
    assert str(empty / "assets") in printed
    for asset in assets.ASSETS:
        assert f"missing  {asset.path}" in printed and asset.address in printed and asset.get in printed


def test_the_list_names_what_is_broken(empty, capsys):
    for asset in assets.ASSETS:
        file = empty / "assets" / asset.path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"damaged")
    assert doctor.list_assets() == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert all(line.startswith(("  BROKEN", "  unread")) for line in lines)
    assert hashlib.sha256(b"damaged").hexdigest()[:16] in lines[0]
    assert [line for line in lines if "not the tested version" in line and assets.LANDMARKER in line]


def test_addresses_are_public_pages():
    assert all(a.address.startswith(("https://github.com/", "https://storage.googleapis.com/")) for a in assets.ASSETS)
