"""The adversarial term: it tells true from made, by the motion, tells the student how, and goes on where it was."""

from __future__ import annotations

import io

import pytest
import torch

from i4d_bench.train.adversary import Adversary, Discriminator

CPU = torch.device("cpu")


def pictures(seed, shade=0.0, count=16):
    g = torch.Generator().manual_seed(seed)
    return (0.2 * torch.rand(count, 16, 16, 3, generator=g) + 0.4 + shade).clamp(0, 1)


def codes(seed, count=16):
    return torch.randn(count, 512, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def adversary():
    torch.manual_seed(0)
    return Adversary(CPU)


def test_it_learns_what_is_true_and_the_student_what_deceives(adversary):
    for step in range(60):
        adversary.study(pictures(step, 0.3), pictures(1000 + step), codes(step))
        adversary.learn()
    with torch.no_grad():
        true, made = (adversary.discriminator(p, codes(7)) for p in (pictures(7), pictures(8, 0.3)))
    assert true.min() > made.max()

    made = pictures(9, 0.3).requires_grad_()
    before = adversary.deceived(made, codes(9))
    (slope,) = torch.autograd.grad(before, made)
    assert adversary.deceived(made - 0.3 * slope.sign(), codes(9)) < before
    assert slope.mean() > 0, "darker is truer"


def test_the_motion_decides(adversary):
    """Bright for one motion, dark for another: no picture is true by itself."""
    motion = codes(0, 2)

    def truth(step, swapped=False):
        bright = torch.arange(16) % 2 == int(swapped)
        return pictures(step) + 0.3 * bright[:, None, None, None], motion[torch.arange(16) % 2]

    for step in range(150):
        true, of = truth(step)
        adversary.study(truth(step + 500, swapped=True)[0], true, of)
        adversary.learn()
    with torch.no_grad():
        right, wrong = (adversary.discriminator(*truth(9000, swapped)) for swapped in (False, True))
    assert (right > wrong).float().mean() > 0.9


def test_it_goes_on_where_it_was(adversary):
    adversary.study(pictures(0), pictures(1), codes(0))
    adversary.learn()
    other, file = Adversary(CPU), io.BytesIO()
    torch.save(adversary.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file))
    for one in (adversary, other):
        one.study(pictures(2), pictures(3), codes(2))
        one.learn()
    for a, b in zip(adversary.discriminator.parameters(), other.discriminator.parameters(), strict=True):
        assert torch.equal(a, b)
    assert other.steps == 2


@pytest.mark.parametrize("size", [16, 64, 100])
def test_any_size_is_judged(size):
    assert Discriminator()(torch.rand(2, size, size, 3), codes(0, 2)).shape == (2,)
