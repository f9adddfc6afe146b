"""The image driver's encoder: it learns expression, and goes through its file unchanged."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from i4d_bench.cache import file_digest
from i4d_bench.config.experiment import World
from i4d_bench.data import synthetic
from i4d_bench.data.frames import open_frames
from i4d_bench.data.splits import split_of
from i4d_bench.drivers import image_training
from i4d_bench.drivers.image import ImageEncoder
from i4d_bench.drivers.image_training import train_encoder
from i4d_bench.types import UserError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def world():
    """Small enough to learn by heart."""
    people = {"train_identities": 8, "val_identities": 2, "test_identities": 2}
    return open_frames(synthetic.rendered(World(resolution=32, expressions=4, views=2, **people)))


def test_it_learns_to_read_expression_and_its_file_holds_all_of_it(world, tmp_path, monkeypatch):
    monkeypatch.setattr(image_training, "BATCH", 32)
    encoder = train_encoder(world, 40, 0, CPU)
    assert all(0.05 < e < 0.3 for e in encoder.errors.tolist())
    train = np.flatnonzero(split_of(world) == 0)
    codes = encoder.codes(torch.from_numpy(world.rgb[train]) / 255, torch.from_numpy(world.landmarks[train]))
    true = torch.from_numpy(world.coefficients[train])
    off = encoder.coefficients(codes) - true
    assert off.square().mean() < 0.92 * true.var(0).mean()
    encoder.save(tmp_path / "encoder.pt")
    again = ImageEncoder.load(tmp_path / "encoder.pt")
    seen = torch.rand(3, 3, 32, 32)
    torch.testing.assert_close(again(seen), encoder(seen), rtol=0, atol=0.05)
    assert torch.equal(again(seen), ImageEncoder.load(tmp_path / "encoder.pt")(seen)) and str(again) == str(encoder)
    assert again(seen).pow(2).mean(1) == pytest.approx(1, abs=1e-2)


def test_the_same_seed_gives_the_same_encoder_and_file(world, tmp_path):
    a, b = (train_encoder(world, 2, 3, CPU) for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
    a.save(tmp_path / "one.pt")
    b.save(tmp_path / "another.pt")
    assert file_digest(tmp_path / "one.pt") == file_digest(tmp_path / "another.pt"), (
        "records tell networks by their files"
    )


def test_without_coefficients_it_cannot_learn(world):
    unknown = {**world.arrays, "coefficients": np.full_like(world.coefficients, np.nan)}
    with pytest.raises(UserError, match="coefficients"):
        train_encoder(dataclasses.replace(world, arrays=unknown), 2, 0, CPU)


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "encoder.pt").write_bytes(b"nothing")
    with pytest.raises(UserError, match="image driver"):
        ImageEncoder.load(tmp_path / "encoder.pt")
