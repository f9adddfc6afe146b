"""Drivers: frames and pictures given as tensors meet the same code."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from i4d_bench.drivers.driver import Driver
from i4d_bench.types import UserError


class Bright:
    """Reads 52 times the mean brightness."""

    def coefficients(self, images):
        return images.mean((1, 2, 3))[:, None].expand(-1, 52)


@pytest.mark.parametrize("name", ["oracle", "image", "flame"])
def test_pictures_have_the_codes_of_the_frames_that_they_are_from(smoke_frames, name):
    driver, index = Driver(name, smoke_frames, Bright()), np.arange(6)
    code = driver.encode(smoke_frames, index)
    rgb, landmarks, coefficients = (
        torch.from_numpy(smoke_frames.arrays[k][index]) for k in ("rgb", "landmarks", "coefficients")
    )
    assert torch.equal(driver.codes(rgb, landmarks, coefficients, code.flame), code.motion)
    assert torch.allclose(driver.codes(rgb / 255, landmarks, coefficients, code.flame), code.motion)


def test_the_flame_driver_does_not_guess(smoke_frames):
    driver = Driver("flame", smoke_frames)
    with pytest.raises(UserError, match="FLAME"):
        driver.codes(smoke_frames.rgb[:2], smoke_frames.landmarks[:2], smoke_frames.coefficients[:2])
