"""Drivers: frames and pictures given as tensors meet the same code, and codes are as hard to read as they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from i4d_bench.data.splits import rng
from i4d_bench.drivers import driver as drivers
from i4d_bench.drivers.driver import Driver
from i4d_bench.drivers.image import ImageEncoder
from i4d_bench.drivers.probe import FOLDS, readable
from i4d_bench.drivers.tokens import DeepTokens, RandomTokens
from i4d_bench.heads import expressions
from i4d_bench.types import UserError


@pytest.mark.parametrize("name", ["sliders", "deep", "image", "flame"])
def test_pictures_have_the_codes_of_the_frames_that_they_are_from(smoke_frames, name, monkeypatch):
    monkeypatch.setattr(drivers, "DETECTED", (0.0, 0.0, 0.0))
    driver, index = Driver(name, smoke_frames, ImageEncoder(32).eval()), np.arange(6)
    code = driver.encode(smoke_frames, index)
    rgb, landmarks, coefficients = (
        torch.from_numpy(smoke_frames.arrays[k][index]) for k in ("rgb", "landmarks", "coefficients")
    )
    assert torch.equal(driver.codes(rgb, landmarks, coefficients, code.flame), code.motion)
    assert torch.allclose(driver.codes(rgb / 255, landmarks, coefficients, code.flame), code.motion, atol=1e-5)
    assert 0.3 < float(code.motion.std()) < 2


def test_the_image_driver_sees_frames_as_a_detector_cuts_them(smoke_frames):
    driver = Driver("image", smoke_frames, ImageEncoder(32).eval())
    own = driver.encode(smoke_frames, np.arange(4)).motion
    assert torch.allclose(driver.encode(smoke_frames, np.array([2])).motion, own[2:3], atol=1e-5)
    exact = driver.codes(*(smoke_frames.arrays[k][:4] for k in ("rgb", "landmarks", "coefficients")))
    assert not torch.allclose(exact, own, atol=1e-3)


def test_the_image_driver_takes_an_encoder(smoke_frames):
    with pytest.raises(UserError, match="encoder"):
        Driver("image", smoke_frames)


def test_the_flame_driver_does_not_guess(smoke_frames):
    driver = Driver("flame", smoke_frames)
    with pytest.raises(UserError, match="FLAME"):
        driver.codes(smoke_frames.rgb[:2], smoke_frames.landmarks[:2], smoke_frames.coefficients[:2])


def test_a_linear_map_reads_sliders_and_half_of_deep_and_no_token_of_it():
    """As DESIGN §3 wants them."""
    count, folds = 4000, np.arange(4000) % FOLDS
    performed = np.stack([expressions.sample(rng(0, "read", i), "train") for i in range(count)]).astype(np.float64)
    codes = {
        tokens: tokens(52)(torch.from_numpy(performed).float()).double().numpy()
        for tokens in (RandomTokens, DeepTokens)
    }
    assert readable(codes[RandomTokens], performed, folds) > 0.95
    assert 0.3 < readable(codes[DeepTokens], performed, folds) < 0.6
    assert max(readable(t, performed, folds) for t in np.split(codes[DeepTokens], 32, 1)) < 0.3
    assert not DeepTokens(52)(torch.zeros(1, 52)).any()
