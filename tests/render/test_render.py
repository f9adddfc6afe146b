"""The renderers: the CPU rasteriser against the dense reference, and gsplat against it on a GPU."""

from __future__ import annotations

import math

import pytest
import torch
from helpers.designs import FIELDS
from helpers.scenes import camera, scene, with_broken

from i4d_bench.render import CHOICE, rasteriser, render
from i4d_bench.types import Gaussians, UserError


def both(backend, width, height, count, device="cpu", size=0.02, batch=2):
    """Images and gradients of the backend and of the reference on one scene, under the same random loss."""
    out = []
    for name in (backend, "reference"):
        gaussians = scene(batch, count, size, device=device)
        background = torch.rand(batch, 3, generator=torch.Generator().manual_seed(5)).to(device).requires_grad_()
        image = render(gaussians, camera(batch, width, height, device=device), background, name)
        weight = torch.rand(image.rgb.shape, generator=torch.Generator().manual_seed(6)).to(device)
        (image.rgb * weight).sum().add((image.alpha * weight[..., :1]).sum()).add(
            (image.depth * weight[..., 1:2]).sum()
        ).backward()
        grads = {f: getattr(gaussians, f).grad for f in FIELDS} | {"background": background.grad}
        out.append((image.detach(), grads))
    return out


@pytest.mark.parametrize(("width", "height", "count"), [(64, 64, 400), (63, 65, 200), (32, 130, 100), (16, 16, 1)])
def test_cpu_equals_the_reference(width, height, count):
    (image, grads), (true, true_grads) = both("cpu", width, height, count)
    for f in ("rgb", "alpha", "depth"):
        torch.testing.assert_close(getattr(image, f), getattr(true, f), rtol=1e-4, atol=1e-4)
    for f, g in true_grads.items():
        assert (grads[f] - g).norm() <= 1e-3 * g.norm() + 1e-6, f


def test_the_reference_blends_front_to_back():
    """Two opaque discs on the axis: the nearer hides the farther, and α is capped at 0.999."""
    one = lambda *v: torch.tensor([v])  # noqa: E731
    g = Gaussians(
        one([0.0, 0, 0.5], [0.0, 0, -0.5]), torch.tensor([[[1.0, 0, 0, 0]] * 2]), torch.full((1, 2, 3), 0.2),
        one(1.0, 1.0), one([1.0, 0, 0], [0.0, 1, 0]),
    )  # fmt: skip
    cam = camera(1, 33, 33)
    cam.Ks[:, 0, 2] = cam.Ks[:, 1, 2] = 16.5
    image = render(g, cam, torch.zeros(1, 3), "reference")
    torch.testing.assert_close(image.rgb[0, 16, 16], torch.tensor([0.999, 0.001 * 0.0, 0.0]), rtol=0, atol=1e-6)
    torch.testing.assert_close(image.depth[0, 16, 16, 0], torch.tensor(0.999 * 2.2), rtol=1e-5, atol=0)


def test_gradcheck_in_double_precision():
    gaussians = scene(1, 5, size=0.12, dtype=torch.float64, seed=3)
    cam = camera(1, 6, 7, torch.float64)
    leaves = [getattr(gaussians, f) for f in FIELDS] + [torch.rand(1, 3, dtype=torch.float64, requires_grad=True)]

    def run(*values):
        out = render(Gaussians(*values[:5]), cam, values[5], "cpu")
        return out.rgb, out.alpha, out.depth

    assert torch.autograd.gradcheck(run, leaves, eps=1e-7, atol=1e-4, rtol=1e-3, nondet_tol=0.0)


def test_gaussians_that_cannot_be_drawn_spoil_nothing():
    """Behind the camera, without a number, of no extent or endless: the others' picture and gradients are as without them."""
    out = []
    for spoilt in (False, True):
        gaussians = with_broken(40, spoilt)
        image = render(gaussians, camera(1, 33, 32), None, "cpu")
        image.rgb.square().sum().backward()
        out.append((image.rgb, *(getattr(gaussians, f).grad[0, 5:] for f in FIELDS)))
    assert all(torch.equal(a, b) and a.isfinite().all() for a, b in zip(*out, strict=True))


def test_cpu_is_deterministic_whatever_the_threads():
    import numba

    runs, usual = [], numba.get_num_threads()
    for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
        numba.set_num_threads(threads)
        runs.append(both("cpu", 64, 96, 200)[0])
    numba.set_num_threads(usual)
    assert torch.equal(runs[0][0].rgb, runs[1][0].rgb)
    assert all(torch.equal(runs[0][1][f], runs[1][1][f]) for f in FIELDS)


def test_a_backend_that_cannot_run_says_so():
    with pytest.raises(UserError, match="gsplat"):
        render(scene(1, 2), camera(1, 8, 8), backend="gsplat")


@pytest.mark.unchecked
def test_an_unknown_backend_is_refused():
    with pytest.raises(UserError, match="reference"):
        render(scene(1, 2), camera(1, 8, 8), backend="opengl")


def test_a_gpu_draws_by_our_own_kernels_unless_told_otherwise(monkeypatch):
    monkeypatch.delenv(CHOICE, raising=False)
    assert (rasteriser(cuda=True), rasteriser(cuda=False)) == ("triton", "cpu")
    monkeypatch.setenv(CHOICE, "gsplat")
    assert (rasteriser(cuda=True), rasteriser(cuda=False)) == ("gsplat", "cpu")
    monkeypatch.setenv(CHOICE, "opengl")
    with pytest.raises(UserError, match="triton and gsplat"):
        rasteriser(cuda=True)


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["gsplat", "triton"])
@pytest.mark.parametrize(("width", "height", "count"), [(128, 128, 2000), (63, 65, 300)])
def test_a_gpus_rasterisers_equal_the_reference(backend, width, height, count):
    (image, grads), (true, true_grads) = both(backend, width, height, count, "cuda")
    mse = (image.rgb - true.rgb).square().mean()
    assert -10 * math.log10(mse) >= 50
    for f, g in true_grads.items():
        assert (grads[f] - g).norm() <= 0.02 * g.norm(), f
