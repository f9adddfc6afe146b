"""Our rasteriser against the dense reference, on this machine by Triton's interpreter."""

from __future__ import annotations

import pytest
import torch
from helpers.designs import FIELDS
from helpers.scenes import camera, scene

pytest.importorskip("triton")
from i4d_bench.render import render
from kernels.raster.splat import splat

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def pictures(width, height, count, batch=2, size=0.02):
    """Of ours and of the reference: rgb, alpha, depth, and all gradients under one random loss."""
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
        (rgb * weight).sum().add((alpha * weight[..., :1]).sum()).add((depth * weight[..., 1:2]).sum()).backward()
        out.append(((rgb, alpha, depth), {f: getattr(g, f).grad for f in FIELDS} | {"background": background.grad}))
    return out


@pytest.mark.parametrize(("width", "height", "count"), [(32, 24, 60), (19, 21, 30), (8, 8, 1)])
def test_pictures_and_gradients_are_the_references(width, height, count):
    (image, grads), (true, true_grads) = pictures(width, height, count)
    for got, want in zip(image, true, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    for f, g in true_grads.items():
        assert (grads[f] - g).norm() <= 1e-3 * g.norm() + 1e-6, f
