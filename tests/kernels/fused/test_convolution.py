"""A ResNet's layers by kernels against torch's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("triton")
from kernels.check import convolutions
from kernels.fused.convolution import Plus, convolve, first, last, pool, room

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def draw(*shape, seed=0, std=1.0):
    return std * torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def zeros():
    return torch.zeros(room(), dtype=torch.int32, device=DEVICE)


@pytest.mark.parametrize(
    ("pictures", "channels", "out", "size", "stride"),
    [(1, 16, 16, (9, 7), 1), (2, 32, 64, (8, 8), 2), (1, 128, 64, (7, 7), 1), (1, 64, 128, (15, 13), 2)],
)
def test_a_layer_is_torchs(pictures, channels, out, size, stride):
    """Alone, with a sum, and with a sum through a convolution of its own; shared among programs and not."""
    x, bias = draw(pictures, channels, *size), draw(out, seed=1)
    weight = draw(out, channels, 3, 3, seed=2, std=(9 * channels) ** -0.5)
    plain = F.conv2d(x, weight, bias, stride, 1)
    before, own = draw(*plain.shape, seed=3), draw(out, 48, 1, 1, seed=4, std=0.2)
    wide = draw(pictures, 48, 2 * plain.shape[2] - 1, 2 * plain.shape[3], seed=5)
    for plus, more in ((None, 0), (Plus(before), before), (Plus(wide, own, 2), F.conv2d(wide, own, stride=2))):
        got = convolve(x, weight, bias, stride, zeros(), plus)
        torch.testing.assert_close(got, F.relu(plain + more), rtol=1e-4, atol=1e-4)
        assert got.is_contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def test_the_ends_of_a_network_are_torchs():
    images, weight, bias = draw(2, 3, 21, 26), draw(16, 3, 7, 7, seed=1, std=0.1), draw(16, seed=2)
    y = F.relu(F.conv2d(images, weight, bias, 2, 3))
    for layout in (torch.contiguous_format, torch.channels_last):
        got = first(images, weight.contiguous(memory_format=layout), bias)
        torch.testing.assert_close(got, y, rtol=1e-4, atol=1e-4)
    assert torch.equal(pool(y), F.max_pool2d(y, 3, 2, 1))
    weight, bias = draw(23, 16, seed=3), draw(23, seed=4)
    torch.testing.assert_close(last(y, weight, bias), F.linear(y.mean((2, 3)), weight, bias), rtol=1e-4, atol=1e-4)


def test_the_doctors_question_has_an_answer():
    assert convolutions(DEVICE) == pytest.approx(40, rel=1e-3)
