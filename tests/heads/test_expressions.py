"""What the worlds draw as expressions: 52 ARKit names, coefficients in 0..1, held-out pairs kept out of training."""

from __future__ import annotations

import numpy as np
import pytest

from i4d_bench.heads.expressions import ACTIONS, INDEX, NAMES, held_out, sample


def draws(kind, count=200):
    return np.stack([sample(np.random.default_rng(k), kind) for k in range(count)])


def moves(e, action, part) -> bool:
    """Whether some coefficient that this action alone moves in its part is strong."""
    others = {n for a, c in ACTIONS[part].items() if a != action for n in c}
    own = [n for n in ACTIONS[part][action] if n not in others]
    full = [m for n in own for m in ((n,) if n in INDEX else (f"{n}Left", f"{n}Right"))]
    return any(e[INDEX[m]] > 0.3 for m in full)


def test_names_are_mediapipes_in_its_order():
    assert len(NAMES) == len(set(NAMES)) == 52 and list(NAMES[:-1]) == sorted(NAMES[:-1]) and NAMES[-1] == "tongueOut"


def test_every_action_names_real_coefficients():
    for part in ACTIONS.values():
        for coefficients in part.values():
            for name in coefficients:
                assert name in INDEX or {f"{name}Left", f"{name}Right"} <= set(INDEX), name


@pytest.mark.parametrize("kind", ["neutral", "train", "test", "extreme"])
def test_coefficients_are_in_range(kind):
    e = draws(kind)
    assert e.shape == (200, 52) and e.min() >= 0 and e.max() <= 1
    assert (e.max() == 0) == (kind == "neutral")
    assert e.dtype == np.float32


def test_held_out_pairs_never_train():
    """Puckers, puffs and the like have coefficients of their own: seen together with a gaze only where allowed."""
    train, test = draws("train", 600), draws("test", 600)
    seen_apart = 0
    for mouth in ("pucker", "puff", "frown", "chin"):
        for eyes in ("wide", "up"):
            both = lambda e: sum(moves(r, mouth, "mouth") and moves(r, eyes, "eyes") for r in e)  # noqa: B023, E731
            if held_out(mouth, eyes):
                assert both(train) == 0, (mouth, eyes)
            else:
                assert both(test) == 0, (mouth, eyes)
                seen_apart += both(train)
    assert seen_apart > 0


def test_extremes_are_stronger_and_more_one_sided():
    left = [
        i for i, n in enumerate(NAMES) if n.endswith("Left") and "Look" not in n and n not in ("jawLeft", "mouthLeft")
    ]
    right = [INDEX[NAMES[i].replace("Left", "Right")] for i in left]
    lopsided = lambda e: np.abs(e[:, left] - e[:, right]).max(1).mean()  # noqa: E731
    assert lopsided(draws("extreme")) > 1.3 * lopsided(draws("test"))
    assert draws("extreme").max(1).mean() > draws("test").max(1).mean()


@pytest.mark.unchecked
def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kind"):
        sample(np.random.default_rng(0), "happy")
