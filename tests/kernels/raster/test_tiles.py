"""Tile lists of fixed capacity hold the pairs of the twin, in its order up to depths that quantise alike."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")
from kernels.raster import reference
from kernels.raster import tiles as module

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def scene(images, n, width, height, seed=0):
    g = torch.Generator().manual_seed(seed)
    means = (torch.rand(images, n, 2, generator=g) * 1.4 - 0.2) * torch.tensor([width, height])
    radii = torch.randint(0, 25, (images, n, 2), generator=g, dtype=torch.int32)
    radii[:, ::7, 0] = 0  # culled
    return means.to(DEVICE), radii.to(DEVICE), (2 + torch.rand(images, n, generator=g)).to(DEVICE)


@pytest.mark.parametrize(
    "images, n, width, height",
    [(1, 1, 64, 64), (1, 300, 64, 48), (3, 257, 50, 33), (2, 5000, 512, 512), (64, 9, 512, 512)],
)
def test_pairs_and_order_are_the_twins(images, n, width, height):
    means, radii, depths = scene(images, n, width, height)
    owners, tiles = reference.tile_lists(means, radii, depths, width, height)
    lists = module.TileLists(images, width, height, len(owners) + 100, DEVICE)
    got, offsets, count = lists(means, radii, depths)
    assert int(count) == len(owners)
    wide, high = -(-width // 16), -(-height // 16)
    assert offsets.shape == (images, high + 1, wide)
    flat, begins = offsets.flatten(), offsets[:, :high].flatten()
    true_begins = torch.searchsorted(tiles, torch.arange(images * high * wide, device=DEVICE))
    assert torch.equal(begins.long(), true_begins), "every tile's list begins where the twin's does"
    levels = (depths.max() - depths.min()) / 2**lists.bits
    got = got[: len(owners)].long()  # what lies behind belongs to tiles below the image and is never read
    assert torch.equal(got.sort().values, owners.sort().values)
    depth = depths.flatten()
    assert ((depth[got] - depth[owners]).abs() <= 2 * levels).all(), "front to back"
    assert int(flat[-1]) <= len(owners)


def test_pairs_beyond_the_capacity_are_counted():
    means, radii, depths = scene(1, 500, 64, 64)
    owners, _ = reference.tile_lists(means, radii, depths, 64, 64)
    _, _, count = module.TileLists(1, 64, 64, len(owners) // 2, DEVICE)(means, radii, depths)
    assert int(count) == len(owners)
