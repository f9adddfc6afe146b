"""Our rasteriser against the dense reference, on this machine by Triton's interpreter."""

from __future__ import annotations

import math

import pytest
import torch
from helpers.designs import FIELDS
from helpers.scenes import camera, scene, with_broken

pytest.importorskip("triton")
from i4d_bench.render import render
from i4d_bench.types import Gaussians
from kernels.raster.project import project
from kernels.raster.rooms import LONGEST, Rooms, Sorted, counted
from kernels.raster.splat import TILE, lists_for, rows_of, splat

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def pictures(width, height, count, batch=2, size=0.02, of=(0, 1, 2)):
    """Of ours and of the reference: rgb, alpha, depth, and all gradients under one random loss of those outputs."""
    out = []
    for ours in (True, False):
        g, cam = scene(batch, count, size, device=DEVICE), camera(batch, width, height, device=DEVICE)
        background = torch.rand(batch, 3, generator=torch.Generator().manual_seed(5)).to(DEVICE).requires_grad_()
        if ours:
            rgb, alpha, depth, _ = splat(
                *(getattr(g, f) for f in FIELDS), background, cam.viewmats, cam.Ks, width, height
            )
        else:
            image = render(g, cam, background, "reference")
            rgb, alpha, depth = image.rgb, image.alpha, image.depth
        weight = torch.rand(rgb.shape, generator=torch.Generator().manual_seed(6)).to(DEVICE)
        losses = ((rgb * weight).sum(), (alpha * weight[..., :1]).sum(), (depth * weight[..., 1:2]).sum())
        sum(losses[k] for k in of).backward()
        out.append(((rgb, alpha, depth), {f: getattr(g, f).grad for f in FIELDS} | {"background": background.grad}))
    return out


@pytest.mark.parametrize(
    ("width", "height", "count", "longest"),
    [(24, 16, 40, LONGEST), (11, 13, 30, LONGEST), (8, 8, 1, LONGEST), (11, 13, 30, 2)],
)
def test_pictures_and_gradients_are_the_references(width, height, count, longest, monkeypatch):
    """In the last case lists are too long for a room, and are sorted image by image."""
    monkeypatch.setattr("kernels.raster.splat._needed", {})
    monkeypatch.setattr("kernels.raster.rooms.LONGEST", longest)
    (image, grads), (true, true_grads) = pictures(width, height, count)
    for got, want in zip(image, true, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    for f, g in true_grads.items():
        assert (grads[f] - g).norm() <= 1e-3 * g.norm() + 1e-6, f


@pytest.mark.parametrize("output", range(3), ids=("rgb", "alpha", "depth"))
def test_gradients_of_one_output_alone_are_the_references(output):
    """Ours are asked for with None for the others."""
    (_, grads), (_, true) = pictures(8, 6, 12, batch=1, of=(output,))
    for f in true:
        got, want = (torch.zeros((), device=DEVICE) if g is None else g for g in (grads[f], true[f]))
        assert (got - want).norm() <= 1e-3 * want.norm() + 1e-6, f


def drawn(g, width=16, height=12, **more):
    cam = camera(len(g.means), width, height, device=DEVICE)
    background = torch.full((len(g.means), 3), 0.25, device=DEVICE)
    return splat(*(getattr(g, f) for f in FIELDS), background, cam.viewmats, cam.Ks, width, height, **more)


def test_no_gaussians_leave_the_background():
    rgb, alpha, depth, longest = drawn(scene(2, 0, device=DEVICE))
    assert (rgb == 0.25).all() and not alpha.any() and not depth.any() and not longest


def test_gaussians_that_cannot_be_drawn_spoil_nothing():
    """Behind the camera, without a number, of no extent or endless: the others' picture and gradients are as without them."""
    out = []
    for spoilt in (False, True):
        g = with_broken(20, spoilt, DEVICE)
        rgb = drawn(g)[0]
        rgb.square().sum().backward()
        out.append((rgb, *(getattr(g, f).grad[0, 5:] for f in FIELDS)))
    for a, b in zip(*out, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)  # sums of tiles are rounded in any order
        assert a.isfinite().all()


def test_rooms_of_fixed_size_give_the_same_picture_and_tell_what_does_not_fit():
    g = scene(2, 30, device=DEVICE)
    rgb, _, depth, longest = drawn(g)
    room = lambda n: Rooms(2, 16, 12, n, DEVICE, TILE)  # noqa: E731
    roomy, _, none, again = drawn(g, lists=room(int(longest) + 3), depth=False)
    assert torch.equal(rgb, roomy) and none is None and depth is not None and int(again) == int(longest) > 2
    assert int(drawn(g, lists=room(int(longest) // 2))[3]) == int(longest), "more than there is room for"
    with pytest.raises(ValueError, match="room is 1 to"):
        room(LONGEST + 1)


def test_a_picture_that_needs_more_than_the_last_one_lacks_nothing(monkeypatch):
    """Room is what the last picture of the size needed, and some more: the same picture, with and without it."""
    sizes: dict = {}
    monkeypatch.setattr("kernels.raster.splat._needed", sizes)
    few, many = scene(2, 2, device=DEVICE), scene(2, 60, device=DEVICE)
    drawn(few, 8, 8)
    before = dict(sizes)
    rgb = drawn(many, 8, 8)[0]
    assert next(iter(sizes.values())) > 1.25 * next(iter(before.values())) + 32 and len(sizes) == 1
    again, _, _, needed = drawn(many, 8, 8)
    assert torch.equal(rgb, again) and int(needed) == next(iter(sizes.values()))


def test_lists_too_long_for_a_room_are_sorted_image_by_image(monkeypatch):
    """One image shows nothing."""
    g = scene(3, 30, device=DEVICE)
    with torch.no_grad():
        g.opacities[1] = 0
    rgb, _, _, needed = drawn(g)
    monkeypatch.setattr("kernels.raster.splat._needed", {})
    monkeypatch.setattr("kernels.raster.rooms.LONGEST", 2)
    picture, _, _, pairs = drawn(g)
    torch.testing.assert_close(picture, rgb, rtol=0, atol=1e-6)
    assert pairs > needed and (picture[1] == 0.25).all() and (picture[2] != 0.25).any()
    monkeypatch.setattr("kernels.raster.rooms.MOST", int(pairs) - 1)
    with pytest.raises(ValueError, match="meet more than"):
        drawn(g)


@pytest.mark.gpu
def test_a_whole_batch_with_lists_too_long_for_a_room_is_drawn():
    """As when a training step has made Gaussians large."""
    g, cam = scene(64, 2 * LONGEST, 0.3, device=DEVICE), camera(64, 128, 128, device=DEVICE)
    assert counted(rows_of(*(getattr(g, f) for f in FIELDS), cam.viewmats, cam.Ks, 128, 128), 128, 128, TILE) is None
    picture = drawn(g, 128, 128)[0]
    one = Gaussians(**{f: getattr(g, f)[-1:] for f in FIELDS})
    want = render(one, camera(1, 128, 128, device=DEVICE), torch.full((1, 3), 0.25, device=DEVICE), "reference").rgb
    assert (picture[-1:] - want).abs().mean() < 1e-4
    picture.sum().backward()
    assert all(getattr(g, f).grad.isfinite().all() for f in FIELDS)


def test_lists_of_fixed_room_have_some_to_spare_and_tell_what_does_not_fit(monkeypatch):
    """Tiles' own, and of all pairs where a tile has too many."""
    g, cam = scene(2, 30, device=DEVICE), camera(2, 16, 12, device=DEVICE)
    rgb = drawn(g)[0]
    rows = rows_of(*(getattr(g, f) for f in FIELDS), cam.viewmats, cam.Ks, 16, 12)
    for kind in (Rooms, Sorted):
        lists = lists_for(rows, 16, 12, 2.0)
        picture, _, _, needed = drawn(g, lists=lists)
        assert isinstance(lists, kind) and lists.room == 2 * int(needed)
        torch.testing.assert_close(picture, rgb, rtol=0, atol=1e-6)
        small = kind(2, 16, 12, int(needed) // 2, DEVICE, TILE)
        assert int(drawn(g, lists=small)[3]) == int(needed) > small.room
        monkeypatch.setattr("kernels.raster.splat.LONGEST", 2)


@pytest.mark.parametrize("most", [64, 256, 1024])
def test_a_room_is_in_the_order_of_a_stable_sort_by_depth(most):
    """Lists of every size that is sorted, with depths that are the same."""
    n = most - 3
    g = torch.Generator().manual_seed(0)
    rows = torch.zeros(1, n, 12)
    rows[..., 0], rows[..., 1] = 4.0, 4.0
    rows[..., 2] = rows[..., 4] = 1.0
    rows[..., 9] = 1 + torch.randint(0, 20, (1, n), generator=g) / 16
    rows[..., 10:] = 2.0
    found = counted(rows.to(DEVICE), 8, 8, (8, 8))
    assert found is not None
    owners, begins, lasts, longest = found
    assert (int(begins), int(lasts), int(longest)) == (0, n, n)
    assert torch.equal(owners.cpu().long(), rows[0, :, 9].argsort(stable=True))


def test_only_tiles_that_a_gaussian_reaches_hold_it():
    """A thin, slanted Gaussian across a picture: fewer tiles than its box, and no pixel is lost."""
    one = lambda *v: torch.tensor([[v]], device=DEVICE)  # noqa: E731
    turn = math.radians(45) / 2
    quat = one(math.cos(turn), 0.0, 0.0, math.sin(turn))
    g = Gaussians(one(0.0, 0.0, 0.0), quat, one(0.2, 0.002, 0.002), one(0.9)[..., 0], one(1.0, 0.5, 0.2))
    cam, black = camera(1, 64, 64, device=DEVICE), torch.zeros(1, 3, device=DEVICE)
    given = [getattr(g, f) for f in FIELDS]
    rgb = splat(*given, black, cam.viewmats, cam.Ks, 64, 64)[0]
    found = counted(project(*given, cam.viewmats, cam.Ks, 64, 64), 64, 64, (8, 8))
    assert found is not None
    torch.testing.assert_close(rgb, render(g, cam, black, "reference").rgb, rtol=1e-4, atol=1e-4)
    assert 8 <= len(found[0]) <= 24, "of 64 tiles"
