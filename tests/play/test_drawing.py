"""A frame in one graph: never a picture that lacks Gaussians. The graph needs a GPU; when one is made does not."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from helpers.designs import under_test
from helpers.scenes import camera

import variants
from i4d_bench.play import drawing
from i4d_bench.play.drawing import Graphed, Staged
from i4d_bench.render import render
from i4d_bench.render.resident import Resident

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def at(distance: float, size: int = 48):
    """A camera in front; the nearer it is, the more tiles a head covers."""
    seen = camera(1, size, size, device=DEVICE)
    views = seen.viewmats.clone()
    views[:, 2, 3] = distance
    return dataclasses.replace(seen, viewmats=views)


def both(design: str, tiny) -> tuple[Graphed, Staged]:
    fusion = variants.create(design).to(DEVICE).eval()
    person = tiny.identity(1, DEVICE), tiny.code(1, DEVICE)
    return Graphed(fusion, *person), Staged(fusion, *person)


class Room(Resident):
    """Stands for `Resident`: what does not fit is missing, here all of it."""

    def __init__(self, example, seen):
        self.room, self.needed = 2 * int(self.wants(seen)), None

    def wants(self, seen):
        return (1000 / seen.viewmats[0, 2, 3] ** 2).int()

    def __call__(self, g, seen, background):
        self.needed = self.wants(seen)
        fits = self.needed <= self.room
        return (
            render(g, seen, background, depth=False).rgb if fits else background.expand(1, seen.height, seen.width, 3)
        )


def test_a_frame_without_room_is_drawn_again_with_more(tiny, monkeypatch):
    made = []
    plain = drawing.prepared
    monkeypatch.setattr(drawing, "prepared", lambda *given: plain(*given[:3]))  # not by kernels, which a GPU has
    monkeypatch.setattr(drawing, "Resident", Room)
    monkeypatch.setattr(drawing, "graphed", lambda fn, example: made.append(example) or fn)
    draw, whole = both("static", tiny)
    code = tiny.code(1, DEVICE, seed=3)
    steps = [(at(6), 1), (at(6), 1), (at(2.7), 2), (at(6), 2), (at(2.7, 64), 3)]  # too near for its room, another size
    for seen, graphs in steps:
        torch.testing.assert_close(draw(code, seen).rgb, whole(code, seen).rgb, rtol=0, atol=5e-3)
        assert len(made) == graphs


@pytest.mark.gpu
@torch.no_grad()
@pytest.mark.parametrize("design", under_test())
def test_a_graph_follows_code_and_camera(design, tiny):
    draw, whole = both(design, tiny)
    for seed, seen in ((1, at(6)), (2, at(2.7)), (3, at(2.7)), (4, at(2.7, 96))):
        code = tiny.code(1, DEVICE, seed=seed)
        off = draw(code, seen).rgb - whole(code, seen).rgb
        assert float(off.abs().mean()) < 2e-3, "16 bits against 32"
    first = draw(tiny.code(1, DEVICE, seed=2), at(2.7)).rgb
    kept = first.clone()
    draw(tiny.code(1, DEVICE, seed=3), at(2.7))
    assert torch.equal(first, kept), "a picture stays when the next is drawn"
