"""MXNet's parameter files become MobileFace's .npz."""

from __future__ import annotations

import json

import numpy as np
import pytest
from helpers.mxnet import write_params

from i4d_bench.metrics.mxnet_params import MOBILEFACE, convert_mobileface, read_params
from i4d_bench.types import UserError

RNG = np.random.default_rng(0)
ARRAYS = {
    "arg:conv_weight": RNG.normal(size=(4, 3, 2, 2)).astype(np.float32),
    "aux:bn_moving_mean": RNG.normal(size=4).astype(np.float32),
    "arg:steps": np.arange(5),
    "half": RNG.normal(size=(2, 3)).astype(np.float16),
    "double": RNG.normal(size=3),
    "byte": np.arange(3, dtype=np.uint8),
}


@pytest.mark.parametrize("version", [0, 1, 2])
def test_every_version_and_type_is_read_and_prefixes_go(tmp_path, version):
    read = read_params(write_params(tmp_path / "a.params", ARRAYS, version))
    assert list(read) == ["conv_weight", "bn_moving_mean", "steps", "half", "double", "byte"]
    for got, true in zip(read.values(), ARRAYS.values(), strict=True):
        assert got.dtype == true.dtype
        np.testing.assert_array_equal(got, true)


@pytest.mark.parametrize("cut", [0, 5, 30, 200, -1])
def test_a_cut_or_foreign_file_is_one_sentence(tmp_path, cut):
    whole = write_params(tmp_path / "a.params", ARRAYS).read_bytes()
    (tmp_path / "cut.params").write_bytes(whole[:cut])
    (tmp_path / "foreign.params").write_bytes(b"PK\x03\x04" + whole)
    for name in ("cut", "foreign"):
        with pytest.raises(UserError, match=rf"{name}\.params is no whole \.params file"):
            read_params(tmp_path / f"{name}.params")


def network(folder, weight=(2, 3)) -> None:
    """A checkout with a network of one layer."""
    inside = folder / "MobileFace_Identification"
    inside.mkdir(parents=True)

    def node(op, name, *inputs):
        return {"op": op, "name": name, "attrs": {}, "inputs": [[i, 0] for i in inputs]}

    nodes = [node("null", "data"), node("null", "w"), node("null", "b"), node("FullyConnected", "fc", 0, 1, 2)]
    (inside / f"{MOBILEFACE}-symbol.json").write_text(json.dumps({"nodes": nodes, "heads": [[3, 0]]}))
    arrays = {"arg:w": np.ones(weight, np.float32), "arg:b": np.zeros(2, np.float32)}
    write_params(inside / f"{MOBILEFACE}-0000.params", arrays)


def test_a_checkout_becomes_the_two_files_that_are_looked_for(tmp_path):
    network(tmp_path / "MobileFace")
    weights, graph = tmp_path / "assets" / "w.npz", tmp_path / "assets" / "g.json"
    convert_mobileface(tmp_path / "MobileFace", weights, graph)
    with np.load(weights) as made:
        assert sorted(made.files) == ["b", "w"] and made["w"].shape == (2, 3)
    assert json.loads(graph.read_text())["heads"] == [[3, 0]]


def test_what_is_no_checkout_leaves_nothing(tmp_path):
    weights, graph = tmp_path / "assets" / "w.npz", tmp_path / "assets" / "g.json"
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no checkout of MobileFace"):
        convert_mobileface(tmp_path / "empty", weights, graph)
    network(tmp_path / "MobileFace")
    write_params(
        tmp_path / "MobileFace" / "MobileFace_Identification" / f"{MOBILEFACE}-0000.params", {"arg:w": np.ones(2)}
    )
    with pytest.raises(UserError, match="do not fit together"):
        convert_mobileface(tmp_path / "MobileFace", weights, graph)
    assert not (tmp_path / "assets").exists()
