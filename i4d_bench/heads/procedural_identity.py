"""The procedural head's identity space: smooth displacement fields over canonical space, one coefficient each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from i4d_bench.heads.procedural_field import EYE
from i4d_bench.heads.procedural_shapes import blob, smooth

Field = Callable[[np.ndarray], np.ndarray]


def _sym(center, radius, by) -> Field:
    """A bump on both sides: `center` and `by` are given for the left."""

    def field(p):
        s = np.where(p[:, :1] < 0, -1.0, 1.0) * (1, 0, 0) + (0, 1, 1)
        return blob(p * s, center, radius)[:, None] * np.asarray(by) * s

    return field


def _mid(center, radius, by) -> Field:
    return lambda p: blob(p, center, radius)[:, None] * np.asarray(by)


def _scale(axis, amount, low=-9.0, high=-8.0, about=0.0) -> Field:
    """Stretches `axis`, fading in with height from low to high (downwards where high < low)."""

    def field(p):
        out = np.zeros_like(p)
        out[:, axis] = amount * (p[:, axis] - about) * smooth(p[:, 1], low, high)
        return out

    return field


def _eye_size(p):
    out = np.zeros_like(p)
    for s in (1, -1):
        d = p - EYE * (s, 1, 1)
        out += blob(p, EYE * (s, 1, 1) + (0, 0, 0.03), (0.03, 0.022, 0.03))[:, None] * d * (0.08, 0.15, 0)
    return out


def _eye_tilt(p):
    out = np.zeros_like(p)
    for s in (1, -1):
        d = p - EYE * (s, 1, 1)
        out[:, 1] += blob(p, EYE * (s, 1, 1) + (0, 0, 0.02), (0.035, 0.03, 0.04)) * s * d[:, 0] * 0.10
    return out


FIELDS: tuple[tuple[str, Field], ...] = (
    ("head width", _scale(0, 0.045)),
    ("head height", _scale(1, 0.028, about=0.1)),
    ("head depth", _scale(2, 0.035)),
    ("skull width", _scale(0, 0.045, 0.0, 0.25)),
    ("jaw width", _scale(0, 0.065, 0.05, -0.15)),
    ("lower face length", _scale(1, 0.06, 0.1, -0.1, about=0.1)),
    ("forehead", _mid((0, 0.30, 0.18), (0.12, 0.07, 0.1), (0, 0, 0.012))),
    ("brow ridge", _sym((0.06, 0.187, 0.225), (0.06, 0.02, 0.05), (0, 0, 0.007))),
    ("eyes apart", _sym((0.084, 0.14, 0.2), (0.04, 0.035, 0.06), (0.005, 0, 0))),
    ("eyes height", _sym((0.084, 0.14, 0.2), (0.045, 0.035, 0.06), (0, 0.005, 0))),
    ("eyes depth", _sym((0.084, 0.14, 0.2), (0.04, 0.03, 0.06), (0, 0, -0.005))),
    ("eye tilt", _eye_tilt),
    ("eye size", _eye_size),
    ("nose forward", _mid((0, 0.045, 0.27), (0.03, 0.03, 0.04), (0, 0, 0.013))),
    ("nose length", _mid((0, 0.03, 0.26), (0.045, 0.03, 0.05), (0, -0.009, 0))),
    ("nose width", _sym((0.024, 0.03, 0.255), (0.02, 0.022, 0.035), (0.006, 0, 0))),
    ("nose bridge", _mid((0, 0.11, 0.25), (0.018, 0.035, 0.03), (0, 0, 0.007))),
    ("nose tip up", _mid((0, 0.04, 0.285), (0.02, 0.018, 0.025), (0, 0.007, 0.002))),
    ("cheekbones", _sym((0.1, 0.055, 0.18), (0.04, 0.035, 0.05), (0.008, 0, 0.007))),
    ("cheeks", _sym((0.095, -0.02, 0.16), (0.04, 0.045, 0.06), (0.012, 0, 0.006))),
    ("mouth forward", _mid((0, -0.05, 0.24), (0.05, 0.03, 0.04), (0, 0, 0.006))),
    ("mouth height", _mid((0, -0.055, 0.235), (0.07, 0.04, 0.06), (0, 0.007, 0))),
    ("mouth width", _sym((0.06, -0.047, 0.232), (0.028, 0.028, 0.05), (0.007, 0, -0.002))),
    ("upper lip", _mid((0, -0.034, 0.26), (0.035, 0.010, 0.03), (0, 0.0045, 0.005))),
    ("lower lip", _mid((0, -0.074, 0.255), (0.033, 0.011, 0.03), (0, -0.0055, 0.006))),
    ("chin forward", _mid((0, -0.15, 0.22), (0.04, 0.035, 0.05), (0, 0, 0.013))),
    ("chin width", _sym((0.035, -0.155, 0.20), (0.03, 0.03, 0.05), (0.009, 0, 0))),
    ("jaw corner", _sym((0.13, -0.06, 0.03), (0.05, 0.05, 0.07), (0.010, -0.005, 0))),
    ("ears out", _sym((0.215, 0.105, -0.03), (0.025, 0.07, 0.05), (0.010, 0, 0))),
    ("neck", _scale(0, 0.10, -0.12, -0.3)),
    ("bent nose", _mid((0, 0.04, 0.27), (0.035, 0.05, 0.05), (0.004, 0, 0))),
    ("mouth aside", _mid((0, -0.06, 0.23), (0.06, 0.04, 0.06), (0.004, 0.001, 0))),
    ("one brow higher", _mid((0.08, 0.19, 0.2), (0.04, 0.025, 0.05), (0, 0.004, 0))),
)
ASYMMETRIC = ("bent nose", "mouth aside", "one brow higher")
