"""FLAME coefficients with a tracker's error: of the declared spread, a person's the same in every frame, and always the same."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from i4d_bench.config import presets
from i4d_bench.drivers.tracked import BIAS, NOISE, flame_error, tracked
from i4d_bench.types import FlameCode, UserError

PEOPLE, FRAMES = 400, 20
IDENTITY = np.repeat(np.arange(PEOPLE), FRAMES)
TRAIN = IDENTITY < PEOPLE // 2
PARTS = {
    "shape": slice(0, 4),
    "expression": slice(4, 9),
    "neck": slice(12, 15),
    "jaw": slice(15, 18),
    "eyes": slice(18, 24),
}


@pytest.fixture(scope="module")
def exact() -> FlameCode:
    """Coefficients of spreads from 0 to 3, other ones in test people."""
    g = torch.Generator().manual_seed(0)
    size = torch.from_numpy(np.where(TRAIN, 1.0, 5.0)).float()[:, None]
    shape = torch.randn(PEOPLE, 4, generator=g).repeat_interleave(FRAMES, 0)
    expression = torch.randn(len(IDENTITY), 5, generator=g)
    return FlameCode(
        size * shape * torch.tensor([0.1, 1, 2, 3]),
        size * expression * torch.tensor([0, 0.1, 1, 2, 3]),
        0.1 * torch.randn(len(IDENTITY), 15, generator=g),
    )


def off(flame: FlameCode, exact: FlameCode) -> np.ndarray:
    """[F,K] by what coefficients are off, in training standard deviations and in degrees."""
    units = [getattr(exact, k)[TRAIN].double().std(0, correction=0).numpy() for k in ("shape", "expression")]
    by = [(getattr(flame, k) - getattr(exact, k)).double().numpy() for k in ("shape", "expression", "pose")]
    return np.concatenate([*(b / np.where(u, u, 1) for b, u in zip(by, units, strict=False)), np.degrees(by[2])], 1)


@pytest.mark.parametrize("error", [0.5, 1, 2])
def test_errors_have_the_declared_spread(exact, error):
    by = off(tracked(exact, IDENTITY, error, TRAIN), exact).reshape(PEOPLE, FRAMES, -1)
    person = by.mean(1, keepdims=True)
    for name, columns in PARTS.items():
        columns = np.arange(columns.start + (name == "expression"), columns.stop)  # the first never moves
        bias, noise = (error * getattr(typical, name) for typical in (BIAS, NOISE))
        assert person[..., columns].std() == pytest.approx(np.hypot(bias, noise / FRAMES**0.5), rel=0.06, abs=1e-6)
        spread = (by - person)[..., columns].std() * (FRAMES / (FRAMES - 1)) ** 0.5
        assert spread == pytest.approx(noise, rel=0.03, abs=1e-5)
        assert np.abs(person[..., columns].mean((0, 1))).max() < 0.2 * max(bias, noise), "nobody's errors have a side"


def test_what_never_moves_and_the_heads_own_pose_stay(exact):
    flame = tracked(exact, IDENTITY, 1, TRAIN)
    assert torch.equal(flame.expression[:, 0], exact.expression[:, 0])
    assert torch.equal(flame.pose[:, :3], exact.pose[:, :3])


def test_a_persons_shape_is_wrong_in_one_way(exact):
    flame = tracked(exact, IDENTITY, 1, TRAIN)
    of = flame.shape.reshape(PEOPLE, FRAMES, -1)
    assert torch.equal(of, of[:, :1].expand_as(of))
    assert not torch.isclose(flame.shape, exact.shape, rtol=0, atol=1e-6).all(1).any()


def test_a_frames_error_depends_on_itself_alone(exact):
    """The same again, with fewer frames after it, and in other memory; twice the error is twice as far."""
    whole = tracked(exact, IDENTITY, 1, TRAIN)
    again = tracked(exact.map(lambda t: t.clone().mT.contiguous().mT), IDENTITY, 1, TRAIN)
    few = np.flatnonzero(IDENTITY < PEOPLE // 2 + 7)
    some = tracked(exact[few], IDENTITY[few], 1, TRAIN[few])
    for k in ("shape", "expression", "pose"):
        assert torch.equal(getattr(whole, k), getattr(again, k))
        assert torch.equal(getattr(whole, k)[few], getattr(some, k))
    assert np.allclose(off(tracked(exact, IDENTITY, 2, TRAIN), exact), 2 * off(whole, exact), atol=1e-4)


def test_no_error_is_no_copy(exact):
    assert tracked(exact, IDENTITY, 0, TRAIN) is exact


@pytest.mark.parametrize("error", ["-1", "much", "true", "NaN", "Infinity", "null"])
def test_what_is_no_error_is_refused(error):
    with pytest.raises(UserError, match="0 or more"):
        flame_error(presets.smoke(), f"flame_adaln@flame_error={error}")


def test_designs_that_read_no_coefficients_have_no_error():
    e = presets.smoke()
    for entry in ("local_adaln@flame_error=1", "static@flame_error=1"):
        with pytest.raises(UserError, match="changes nothing"):
            flame_error(e, entry)
    read = dataclasses.replace(e, driver="flame")
    assert flame_error(read, "local_adaln@flame_error=1") == 1
    with pytest.raises(UserError, match="changes nothing"):
        flame_error(read, "static@flame_error=1")
    assert flame_error(e, "local_adaln@flame_error=0") == flame_error(e, "local_adaln") == 0


def test_errors_go_with_the_data_sets_own_frames_alone():
    e, entry = presets.smoke(), "flame_adaln@flame_error=0.5"
    assert flame_error(e, entry) == 0.5
    taught = dataclasses.replace(e, teacher=dataclasses.replace(e.teacher, path="pairs"))
    with pytest.raises(UserError, match="teacher's pairs"):
        flame_error(taught, entry)
    mixed = dataclasses.replace(e, world=dataclasses.replace(e.world, beside="procedural"))
    with pytest.raises(UserError, match="beside real video"):
        flame_error(mixed, entry)
    assert flame_error(taught, "flame_adaln@flame_error=0") == 0
