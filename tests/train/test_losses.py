"""The training loss."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchmetrics.functional.image import structural_similarity_index_measure

from i4d_bench.config.experiment import Loss
from i4d_bench.train.losses import feature_change, identity_change, reconstruction, ssim


def images(height=24, width=32, seed=0):
    return torch.rand(3, height, width, 3, generator=torch.Generator().manual_seed(seed))


def test_ssim_is_torchmetrics():
    a, b = images(), 0.7 * images() + 0.3 * images(seed=1)
    expected = structural_similarity_index_measure(a.movedim(-1, 1), b.movedim(-1, 1), data_range=1.0)
    torch.testing.assert_close(ssim(a, b), expected, rtol=0, atol=1e-5)
    assert ssim(a, a) == pytest.approx(1)


def test_ssim_has_a_gradient():
    a, b = images(12, 12).double().requires_grad_(), images(12, 12, seed=1).double()
    assert torch.autograd.gradcheck(lambda x: ssim(x, b), a)


def test_regions_count_by_their_own_pixels():
    target, regions = torch.zeros(2, 16, 16, 3), torch.zeros(2, 16, 16, dtype=torch.bool)
    regions[:, :4, :4] = True
    off = lambda where: target + 0.5 * where[..., None]  # noqa: E731
    only = Loss(l1=0, regions=5, ssim=0)
    assert reconstruction(off(regions), target, regions, only) == pytest.approx(2.5)
    assert reconstruction(off(~regions), target, regions, only) == 0
    assert reconstruction(off(regions), target, ~regions & regions, only) == 0, "no eyes or mouth in sight"
    assert reconstruction(target, target, regions, Loss()) == pytest.approx(0, abs=1e-6)


class Edges(nn.Module):
    """Stands for LPIPS: it sees edges alone."""

    def forward(self, pred, target, check=True):
        return ((pred - target).diff(dim=1).square() + 0).mean((1, 2, 3))


class Network:
    """Stands for a face network: the mean colour of the picture."""

    name = "mean colour"

    def embed(self, images, landmarks, check=True):
        return nn.functional.normalize(images.mean((1, 2)) - 0.5, dim=-1)


LANDMARKS = torch.zeros(3, 68, 2)


def descended(loss, start, steps=30, rate=0.05):
    """What Adam makes of pictures by this loss alone."""
    x = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([x], lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(x).backward()
        optimizer.step()
    return x.detach()


OFF = {name: 0.0 for name in ("l1", "regions", "lpips", "ssim", "delta")}


@pytest.mark.parametrize("term", ["l1", "regions", "lpips", "ssim"])
def test_each_term_of_the_picture_moves_what_it_should(term):
    pred, target, regions = images(), images(seed=1), torch.zeros(3, 24, 32, dtype=torch.bool)
    regions[:, 8:16, 8:16] = True
    weights = Loss(**{**OFF, term: 1.0})
    made = descended(lambda x: reconstruction(x, target, regions, weights, Edges()), pred)
    error = lambda x, where: (x - target).abs().mean(-1)[where].mean()  # noqa: E731
    edges = lambda x: Edges()(x, target).mean()  # noqa: E731
    if term == "regions":
        assert error(made, regions) < 0.5 * error(pred, regions) and torch.equal(made[~regions], pred[~regions])
    elif term == "l1":
        assert error(made, regions | ~regions) < 0.5 * error(pred, regions | ~regions)
    elif term == "lpips":
        assert edges(made) < 0.5 * edges(pred)
    else:
        assert ssim(made, target) > ssim(pred, target) + 0.3
    twice = Loss(**{**OFF, term: 2.0})
    once = reconstruction(pred, target, regions, weights, Edges())
    assert reconstruction(pred, target, regions, twice, Edges()) == pytest.approx(2 * float(once), rel=1e-5)


def test_identity_comes_closer_to_the_truths():
    pred, target = images(), images(seed=1) * torch.tensor([1.0, 0.5, 0.2])
    made = descended(lambda x: identity_change(x, target, LANDMARKS, Network()), pred)
    assert (
        identity_change(made, target, LANDMARKS, Network()) < 0.1 < identity_change(pred, target, LANDMARKS, Network())
    )
    assert identity_change(target, target, LANDMARKS, Network()) == pytest.approx(0, abs=1e-6)


def test_identity_knows_nothing_of_faces_without_landmarks():
    pred, target = images(), images(seed=1)
    unknown = LANDMARKS.clone()
    unknown[1:] = torch.nan
    alone = identity_change(pred[:1], target[:1], LANDMARKS[:1], Network())
    assert identity_change(pred, target, unknown, Network()) == pytest.approx(float(alone))
    assert identity_change(pred, target, unknown + torch.nan, Network()) == 0


def test_dlibs_network_tells_the_student_how():
    """The real network: a gradient in the face, none for its own weights."""
    from i4d_bench.metrics.identity import ARCFACE, embedder

    points = torch.tensor(ARCFACE) * 0.9 + 5
    landmarks = points.mean(0).expand(1, 68, 2).clone()
    landmarks[0, [45, 42, 36, 39, 33]] = torch.tensor([[85.0, 50], [72, 51], [35, 50], [48, 51], [60, 75]])
    pred, target = images(112, 112)[:1].requires_grad_(), images(112, 112, seed=1)[:1]
    network = embedder("dlib")
    identity_change(pred, target, landmarks, network).backward()
    slope = pred.grad.abs().mean(-1)[0]
    assert slope[40:80, 30:90].mean() > 10 * slope[:5].mean()
    assert all(p.grad is None for p in network.parameters())


def test_feature_change_has_torchs_gradient_and_none_where_nothing_changes():
    delta = torch.randn(2, 5, 4, dtype=torch.float64)
    delta[:, 0] = 0
    ours, true = delta.clone().requires_grad_(), delta.clone().requires_grad_()
    (3 * feature_change(ours)).backward()
    (3 * torch.linalg.vector_norm(true, dim=-1).mean()).backward()
    torch.testing.assert_close(ours.grad, true.grad)
    assert not ours.grad[:, 0].any()


def test_feature_change_shrinks_features():
    delta = torch.randn(2, 5, 48, generator=torch.Generator().manual_seed(0))
    made = descended(feature_change, delta)
    assert feature_change(made) < feature_change(delta)
    assert feature_change(delta) == pytest.approx(float(delta.square().sum(-1).sqrt().mean()), rel=1e-6)
