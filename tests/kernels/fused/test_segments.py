"""Sums over the Gaussians of a vertex: exact at any magnitude, and of the same bits in any order."""

from __future__ import annotations

import pytest
import torch
from helpers.agreement import DEVICE

pytest.importorskip("triton")
from kernels.contract import Draw
from kernels.fused import segments


def sums(rows, owners, count, weights=None):
    into, most = segments.zeros(len(rows), count, rows.device)
    most.copy_((rows if weights is None else rows * weights[..., None]).abs().amax((1, 2, 3)).view(torch.int32))
    return segments.segment_sums(rows, owners, weights, into, most)


@pytest.mark.filterwarnings("ignore:.*encountered in cast")
def test_sums_of_frames_of_any_magnitude():
    """Each frame as exact as fp32, however large its gradients; one that is not finite spoils itself alone."""
    draw = Draw.seeded(5, DEVICE)
    rows, owners = draw(5, 2, 200, 3), draw.below(7, 1, 2, 200)
    scale = torch.tensor([1e-36, 1e-12, 1, 1e34, float("nan")], device=DEVICE)[:, None, None, None]
    got = sums(rows * scale, owners, 8)
    want = torch.zeros(5, 8, 3, device=DEVICE, dtype=torch.double)
    want.index_add_(1, owners.flatten().long(), (rows * scale).flatten(1, 2).double())
    assert got[4].isnan().all() and not got[:, 7][:4].any()  # nobody's owner
    torch.testing.assert_close((got / scale[:, 0])[:4], (want / scale[:, 0]).float()[:4], rtol=1e-5, atol=1e-6)


def test_sums_do_not_depend_on_the_order():
    draw = Draw.seeded(6, DEVICE)
    rows, owners, order = draw(1, 1, 999, 3), draw.below(7, 1, 1, 999), torch.randperm(999, device=DEVICE)
    assert torch.equal(sums(rows, owners, 7), sums(rows[:, :, order], owners[:, :, order].contiguous(), 7))
