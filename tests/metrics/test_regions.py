"""Crops of eyes and mouth, and what floats around the head."""

import pytest
import torch

from i4d_bench.metrics.image import FLOATS_BEYOND, floaters, region_crops

SIDE = 64


def box(left, top, right, bottom) -> torch.Tensor:
    mask = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
    mask[:, top:bottom, left:right] = True
    return mask


def test_a_crop_is_the_regions_square_and_a_quarter_more_on_every_side():
    """A region of 16 × 8 pixels: a square of 24, whose middle is the region's."""
    x = torch.linspace(0, 1, SIDE).expand(1, SIDE, SIDE)
    images = torch.stack([x, x.mT, torch.zeros_like(x)], -1)
    region = box(20, 30, 36, 38)
    crop = region_crops(images, region, size=24)
    torch.testing.assert_close(crop, images[:, 22:46, 16:40])
    assert region_crops(images, region).shape == (1, 64, 64, 3)


def test_what_is_hidden_has_no_crop_and_takes_no_other_along():
    images, regions = torch.rand(2, SIDE, SIDE, 3), torch.cat([box(10, 10, 20, 20), box(0, 0, 0, 0)])
    crops = region_crops(images, regions)
    assert crops[0].isfinite().all() and crops[1].isnan().all()
    torch.testing.assert_close(crops[:1], region_crops(images[:1], regions[:1]))


def test_a_region_at_the_border_is_cropped_too():
    crop = region_crops(torch.ones(1, SIDE, SIDE, 3), box(0, 0, 16, 16), size=24)
    assert crop.isfinite().all() and crop[0, -1, -1].tolist() == [1, 1, 1] and crop[0, 0, 0].tolist() == [0, 0, 0]


def test_floaters_are_counted_beyond_the_heads_rim_and_by_what_is_seen():
    head, images = box(20, 20, 40, 40), torch.full((1, SIDE, SIDE, 3), 0.5)
    images[:, 20:40, 20:40] = 0.1
    assert floaters(images, head, 0.5).item() == 0, "the head itself"
    rim = round(FLOATS_BEYOND * SIDE)
    images[:, 20:40, 40 : 40 + rim] = 0.1
    assert floaters(images, head, 0.5).item() == 0, "its rim"
    images[:, 0:4, 0:5] = torch.tensor([0.5, 0.5, 0.9])
    assert floaters(images, head, 0.5).item() == pytest.approx(100 * 20 / 400)
    images[:, 60:, :] = 0.52
    assert floaters(images, head, 0.5).item() == pytest.approx(5), "too faint to be seen"
    assert floaters(images, box(0, 0, 0, 0), 0.5).isnan().all()
