"""The user's encoder: its file's kinds, what it sees, what it may not do, and what a run's identity makes of it."""

from __future__ import annotations

import dataclasses
import shutil
import sys

import numpy as np
import pytest
import torch
from helpers.encoders import TinyEncoder, onnx, torchscript
from torch import nn

from i4d_bench.drivers.crop import MARGIN, SIDE, crops
from i4d_bench.drivers.driver import Driver, check, label
from i4d_bench.drivers.external import Encoder, located
from i4d_bench.types import UserError

WRITERS = {"pt": torchscript, "ts": torchscript, "onnx": onnx}


@pytest.fixture
def face():
    """68 landmarks in a box of 20 × 10 pixels around (30, 20)."""
    return torch.stack([torch.linspace(20, 40, 68), torch.linspace(15, 25, 68)], -1)[None]


@pytest.mark.parametrize("shape", [(512,), (32, 16)])
@pytest.mark.parametrize("ending", WRITERS)
def test_a_file_gives_the_codes_of_the_network_that_it_was_made_of(tmp_path, smoke_frames, ending, shape):
    network = TinyEncoder(shape)
    path = WRITERS[ending](tmp_path / f"own.{ending}", network)
    driver, index = Driver(str(path), smoke_frames), np.arange(70)
    code = driver.encode(smoke_frames, index)
    seen = driver.crop(smoke_frames.rgb[index], smoke_frames.landmarks[index])
    with torch.no_grad():
        torch.testing.assert_close(code.motion, network(seen).flatten(1), rtol=1e-4, atol=1e-4)
    assert driver.name == "external" and code.flame is not None and not driver.note
    assert not torch.equal(code.motion[0], code.motion[40])


def test_a_graph_of_one_crop_is_called_crop_by_crop(tmp_path):
    free, one = (Encoder(onnx(tmp_path / f"{b}.onnx", batch=b)) for b in (None, 1))
    pictures, landmarks = torch.rand(3, 40, 40, 3), 40 * torch.rand(3, 68, 2)
    torch.testing.assert_close(one.codes(pictures, landmarks), free.codes(pictures, landmarks), rtol=1e-4, atol=1e-4)
    with pytest.raises(UserError, match="4 crops at once"):
        Encoder(onnx(tmp_path / "four.onnx", batch=4))


def test_the_crop_is_the_square_around_the_face(face):
    x = torch.arange(60) + 0.5
    ramp = torch.stack(torch.meshgrid(x, x, indexing="xy"), -1)
    picture = torch.cat([ramp, torch.ones(60, 60, 1)], -1)[None]
    crop, side = crops(picture, face)[0], MARGIN * 20
    steps = (torch.arange(SIDE) + 0.5) / SIDE - 0.5
    torch.testing.assert_close(crop[0, 100], 30 + side * steps, rtol=0, atol=1e-3)
    torch.testing.assert_close(crop[1, 8:, 100], (20 + side * steps)[8:], rtol=0, atol=1e-3)
    beyond = crops(picture, face - torch.tensor([0.0, 15.0]))[0, 2]
    assert not beyond[:60].any() and beyond[100:].min() > 0.999, "black above the image"


@pytest.mark.parametrize("missing", ["one", "all", "no size"])
def test_faces_without_landmarks_are_seen_whole(face, missing):
    landmarks = face.clone()
    landmarks[0, : {"one": 1, "all": 68, "no size": 0}[missing]] = torch.nan
    if missing == "no size":
        landmarks[:] = 5
    picture = torch.rand(1, SIDE, SIDE, 3)
    torch.testing.assert_close(crops(picture, landmarks)[0], picture[0].movedim(-1, 0), rtol=0, atol=1e-4)


def test_a_crop_does_not_depend_on_its_neighbours(face):
    pictures = torch.rand(2, 300, 300, 3)
    both = crops(pictures, torch.cat([face, 10 * face]))
    torch.testing.assert_close(both[1:], crops(pictures[1:], 10 * face))


def test_frames_without_landmarks_are_counted(tmp_path, smoke_frames):
    landmarks = np.array(smoke_frames.landmarks)
    landmarks[3:5] = np.nan
    frames = dataclasses.replace(smoke_frames, arrays={**smoke_frames.arrays, "landmarks": landmarks})
    driver = Driver(str(torchscript(tmp_path / "own.pt")), frames)
    assert driver.note == f"the driver's encoder saw 2 of {len(frames)} frames whole, which have no landmarks"
    assert driver.encode(frames, np.arange(6)).motion.isfinite().all()


class NotFinite(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.full([len(images), 512], float("nan"))


class Pair(nn.Module):
    def forward(self, images: torch.Tensor):
        return images, images


class Other(nn.Module):
    """Takes another size."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.reshape(len(images), 3 * 64 * 64)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda d: d / "gone.pt", "there is no encoder"),
        (lambda d: torchscript(d / "wide.pt", TinyEncoder((256,))), r"gives \[2,256\] for 2 crops, not \[B,512\]"),
        (lambda d: onnx(d / "wide.onnx", TinyEncoder((16, 32))), r"gives \[2,16,32\]"),
        (lambda d: torchscript(d / "nan.pt", NotFinite()), "not finite"),
        (lambda d: torchscript(d / "two.pt", Pair()), "gives a tuple"),
        (lambda d: torchscript(d / "other.pt", Other()), r"fails on crops \[B,3,224,224\] \(.*shape"),
        (lambda d: onnx(d / "apart.onnx", outside="weight.bin"), "weights inside"),
    ],
)
def test_a_file_that_is_no_encoder_is_one_sentence(tmp_path, make, said):
    path = make(tmp_path)
    with pytest.raises(UserError, match=said) as e:
        check(str(path))
    assert "\n" not in str(e.value) and path.name in str(e.value)


@pytest.mark.parametrize("content", [b"", b"no network", None])
@pytest.mark.parametrize(("ending", "said"), [("pt", "no TorchScript file"), ("onnx", "onnxruntime cannot open")])
def test_other_content_is_one_sentence(tmp_path, ending, said, content):
    path = tmp_path / f"own.{ending}"
    if content is None:
        torch.save({"weight": torch.zeros(3)}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match=said) as e:
        check(str(path))
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("name", ["orcale", "own.pth", "external"])
def test_what_is_no_driver_is_said(name, smoke_frames):
    with pytest.raises(UserError, match=r"\.onnx"):
        check(name)
    with pytest.raises(UserError, match=r"\.onnx"):
        Driver(name, smoke_frames)


def test_without_onnxruntime_a_sentence_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match="pip install onnxruntime"):
        check(str(onnx(tmp_path / "own.onnx")))


def test_two_files_of_one_name_are_told_apart(tmp_path):
    a, b = (tmp_path / folder / "own.pt" for folder in ("a", "b"))
    for seed, path in enumerate((a, b)):
        torchscript(path, TinyEncoder(seed=seed))
    assert label(str(a)) != label(str(b)) and "/" not in label(str(a)) and label(str(a)).startswith("own-")
    assert label("sliders") == "sliders"


def test_an_encoder_is_found_again_where_it_lies_now(tmp_path):
    from i4d_bench.cache import file_digest

    path, moved, other = tmp_path / "own.pt", tmp_path / "moved.pt", tmp_path / "other.pt"
    path.write_bytes(b"a")
    other.write_bytes(b"b")
    digest = file_digest(path)
    assert located(str(path), digest) == str(path)
    shutil.move(path, moved)
    assert located(str(path), digest, moved) == str(moved)
    with pytest.raises(UserError, match="is not there"):
        located(str(path), digest)
    with pytest.raises(UserError, match="others"):
        located(str(path), digest, other)
    with pytest.raises(UserError, match="sliders"):
        located("sliders", None, moved)
    assert located("sliders", None) == "sliders"


def test_the_encoder_that_the_suite_trained_is_no_file(tmp_path):
    assert located("image", "0123") == "image"
    with pytest.raises(UserError, match="made with image, which has none"):
        located("image", "0123", tmp_path / "own.pt")
