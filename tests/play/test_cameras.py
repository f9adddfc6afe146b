"""From where an animation is seen."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from i4d_bench.play.cameras import cameras
from i4d_bench.types import UserError

CPU = torch.device("cpu")


def eyes(name: str, count: int) -> np.ndarray:
    """Yaw and pitch in degrees, and the distance, of every frame's camera."""
    camera = cameras(name, count, 64, CPU)
    views = camera.viewmats.double().numpy()
    x, y, z = -np.einsum("fij,fi->fj", views[:, :3, :3], views[:, :3, 3]).T
    yaw = np.degrees(np.unwrap(np.arctan2(x, z)))
    return np.stack([yaw, np.degrees(np.arctan2(y, np.hypot(x, z))), np.sqrt(x**2 + y**2 + z**2)], -1)


def test_fixed_stands_in_front_and_a_turntable_goes_round_once():
    assert eyes("fixed", 3) == pytest.approx(np.tile([0, 0, 2.7], (3, 1)), abs=1e-4)
    assert eyes("turntable", 8)[:, 0] == pytest.approx(np.arange(8) * 45, abs=1e-3), "the film ends where it begins"


def test_a_path_passes_its_points_at_even_times(tmp_path):
    file = tmp_path / "path.json"
    file.write_text(json.dumps([[-30, 0], [30, 10, 2.0]]))
    assert eyes(str(file), 3) == pytest.approx(np.array([[-30, 0, 2.7], [0, 5, 2.35], [30, 10, 2.0]]), abs=1e-3)
    file.write_text(json.dumps([[20, 5]]))
    assert eyes(str(file), 2) == pytest.approx(np.tile([20, 5, 2.7], (2, 1)), abs=1e-3)


def test_what_is_no_camera_is_one_sentence(tmp_path):
    assert cameras("driver", 3, 64, CPU) is None
    with pytest.raises(UserError, match="driver, fixed, turntable, or a path"):
        cameras("orbit", 3, 64, CPU)
    for content in ("[]", "{}", "[[1]]", "[[1, 2, 0]]", '[["a", 1]]', "5", "no"):
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(UserError, match=r"bad\.json"):
            cameras(str(tmp_path / "bad.json"), 3, 64, CPU)
