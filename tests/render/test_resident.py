"""Pictures without a word from the host: ours, by Triton's interpreter; gsplat's needs a GPU."""

from __future__ import annotations

import pytest
import torch
from helpers.scenes import camera, scene

pytest.importorskip("triton")
from i4d_bench.render import render
from i4d_bench.render.resident import Resident

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@torch.no_grad()
def test_a_resident_picture_is_the_renderers_and_says_when_it_lacks_some():
    g, cam, black = scene(2, 20, device=DEVICE), camera(2, 16, 8, device=DEVICE), torch.zeros(2, 3, device=DEVICE)
    draw = Resident(g, cam)
    torch.testing.assert_close(draw(g, cam, black), render(g, cam, black, "reference").rgb, rtol=1e-4, atol=1e-4)
    assert draw.needed is not None and 0 < int(draw.needed) <= draw.room
    crowded = g.map(lambda t: torch.cat([t] * 4, 1))
    draw(crowded, cam, black)
    assert int(draw.needed) > draw.room
