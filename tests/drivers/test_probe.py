"""What is planted in a code is found in it, and what is not there is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from i4d_bench.data.frames import Frames
from i4d_bench.drivers.probe import FEWEST, Leak, probe


def world(people: int, expressions: int, views: int, kind: str = "procedural") -> Frames:
    """People who are seen with expressions of their own from random places in front of them."""
    r, count = np.random.default_rng(0), people * expressions * views
    identity, expression = np.divmod(np.arange(count) // views, expressions)
    yaw, pitch = np.radians(r.uniform(-35, 35, count)), np.radians(r.uniform(-10, 10, count))
    towards = np.stack([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)], 1)
    viewmats = np.tile(np.eye(4, dtype=np.float32), (count, 1, 1))
    viewmats[:, :3, 3] = -2.5 * towards  # the camera's axes are the world's
    arrays = {
        "identity": identity.astype(np.int32),
        "expression": expression.astype(np.int32),
        "coefficients": r.random((people * expressions, 52)).repeat(views, 0).astype(np.float32),
        "viewmats": viewmats,
    }
    return Frames(Path("world"), {"kind": kind, "people": {"train": people, "val": 0, "test": 0}}, arrays)


def mixed(*parts: np.ndarray) -> np.ndarray:
    """Parts of [F,K] as one code [F,512] with a little noise."""
    r = np.random.default_rng(1)
    columns = np.concatenate([p.reshape(len(p), -1) for p in parts], 1)
    code = np.tanh(0.1 * columns @ r.normal(size=(columns.shape[1], 512)))
    return (code + 0.01 * r.normal(size=code.shape)).astype(np.float32)


def planted(frames: Frames) -> dict[str, np.ndarray]:
    from i4d_bench.data.splits import yaw
    from i4d_bench.drivers.probe import pitch

    looks = np.random.default_rng(2).normal(size=(int(frames.identity.max()) + 1, 6))
    return {
        "expression": np.asarray(frames.coefficients),
        "identity": looks[frames.identity],
        "yaw": yaw(frames) / 20,
        "pitch": pitch(frames) / 5,
    }


@pytest.mark.parametrize("shape", [(40, 4, 3), (5, 60, 1)], ids=["many people", "few people"])
@pytest.mark.parametrize("what", [("expression", "identity"), ("expression", "yaw", "pitch"), ("yaw",)])
def test_what_is_planted_is_found_and_nothing_else(shape, what):
    frames = world(*shape)
    parts = planted(frames)
    leak = probe(mixed(*(parts[k] for k in what)), frames)
    assert leak is not None and leak.identity is not None and leak.chance is not None
    for name in ("expression", "yaw", "pitch"):
        r2 = getattr(leak, name)
        assert r2 > 0.7 if name in what else r2 < 0.15, f"{name} {r2}"
    assert leak.identity > 0.9 if "identity" in what else leak.identity < 2 * leak.chance


def test_the_same_codes_give_the_same_numbers():
    frames = world(20, 4, 3)
    codes = mixed(planted(frames)["yaw"])
    assert probe(codes, frames) == probe(codes, frames)


def test_what_the_data_cannot_say_is_left_out():
    frames = world(1, FEWEST, 1)
    frames.arrays["coefficients"][:] = np.nan
    leak = probe(mixed(planted(frames)["yaw"]), frames)
    assert leak is not None and leak.identity is None and leak.expression is None and leak.yaw > 0.9
    assert str(leak).startswith("yaw R² ")
    few = world(FEWEST // 2 - 1, 2, 1)
    assert probe(mixed(planted(few)["yaw"]), few) is None


def test_a_face_that_never_turns_has_no_pose_to_read():
    frames = world(20, 4, 3)
    frames.arrays["viewmats"][:] = frames.viewmats[0]
    leak = probe(mixed(planted(frames)["expression"]), frames)
    assert leak is not None and leak.yaw is None and leak.pitch is None


def test_a_constant_code_says_nothing():
    frames = world(20, 4, 3)
    leak = probe(np.zeros((len(frames), 512), np.float32), frames)
    assert leak is not None and leak.identity == pytest.approx(leak.chance, abs=0.01) and leak.expression < 0.01


def test_a_record_keeps_it():
    leak = Leak(0.93, 0.12, 0.04, 0.05, None)
    assert str(leak) == "expression R² 0.93, identity 12% (chance 4%), yaw R² 0.05"
    assert Leak.of(leak.extras | {"floor_aed": 0.1}) == leak and Leak.of({"floor_aed": 0.1}) is None
