"""The procedural head's form: a signed distance field of an average head with closed mouth and closed lids.

Built from ellipsoids and rounded cones that melt together (smooth minimum, I. Quilez), in canonical units (types.py).
`procedural_mesh` contours it and cuts the eyes and the mouth open.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

EYE = np.array([0.084, 0.135, 0.184])
"""Centre of the left eyeball; the right one is mirrored."""
EYE_RADIUS = 0.0390
LID_RADIUS = 0.0435
"""Distance of a lid's outer face from the eyeball's centre."""
ALMOND = (0.0355, 0.0158)
"""Half width and half height of the open eye."""
MOUTH = np.array([0.0, -0.052, 0.255])
MOUTH_HALF = 0.060
"""Half width of the mouth."""


def _ellipsoid(p, center, radii):
    """Distance to an ellipsoid, exact on it and nearly so close by."""
    radii = np.asarray(radii)
    q = (p - np.asarray(center)) / radii
    k0 = np.sqrt((q * q).sum(-1))
    q = q / radii
    return k0 * (k0 - 1) / np.maximum(np.sqrt((q * q).sum(-1)), 1e-9)


def _cone(p, a, b, ra, rb=None):
    """Distance to a rounded cone from a to b."""
    a, b, rb = np.asarray(a), np.asarray(b), ra if rb is None else rb
    t = np.clip(((p - a) @ (b - a)) / ((b - a) @ (b - a)), 0, 1)
    d = p - a - t[..., None] * (b - a)
    return np.sqrt((d * d).sum(-1)) - (ra + t * (rb - ra))


def _join(a, b, k):
    """Smooth union: shapes closer than k melt together."""
    h = np.clip(0.5 + 0.5 * (b - a) / k, 0, 1)
    return b + (a - b) * h - k * h * (1 - h)


def _carve(a, b, k):
    """Smooth difference a − b."""
    return -_join(-a, b, k)


def mouth_line(x: float | Float[np.ndarray, "*B"]) -> np.floating | Float[np.ndarray, "*B"]:
    """Height of the line where the lips meet: it dips beside the middle and rises to the corners."""
    u = np.clip(np.abs(x) / MOUTH_HALF, 0, 1.4)
    return MOUTH[1] + 0.0015 * np.cos(np.pi * np.clip(u / 0.45, 0, 1)) + 0.005 * u**2


def field(p: Float[np.ndarray, "*B 3"]) -> Float[np.ndarray, "*B"]:
    """Signed distance, negative inside."""
    m = np.stack([np.abs(p[..., 0]), p[..., 1], p[..., 2]], -1)
    # Skull, face, jaw.
    d = _ellipsoid(m, (0, 0.185, -0.040), (0.188, 0.222, 0.238))
    d = _join(d, _ellipsoid(m, (0, 0.202, 0.080), (0.150, 0.155, 0.142)), 0.06)
    d = _join(d, _ellipsoid(m, (0, 0.04, 0.060), (0.146, 0.20, 0.165)), 0.10)
    d = _join(d, _ellipsoid(m, (0, -0.07, 0.090), (0.112, 0.105, 0.138)), 0.08)
    d = _join(d, _cone(m, (0.108, -0.035, 0.000), (0.024, -0.145, 0.190), 0.030, 0.028), 0.07)
    d = _join(d, _ellipsoid(m, (0, -0.146, 0.206), (0.036, 0.032, 0.040)), 0.05)
    d = _join(d, _ellipsoid(m, (0.106, 0.062, 0.132), (0.046, 0.042, 0.056)), 0.06)
    d = _join(d, _ellipsoid(m, (0.072, 0.01, 0.166), (0.056, 0.060, 0.055)), 0.06)
    # Brows, sockets, lids over the eyeballs.
    d = _join(d, _cone(m, (0.020, 0.182, 0.214), (0.108, 0.188, 0.158), 0.022, 0.018), 0.05)
    d = _carve(d, _ellipsoid(m, EYE + np.array([-0.012, 0.004, 0.063]), (0.048, 0.028, 0.032)), 0.030)
    d = _join(d, _ellipsoid(m, EYE, (LID_RADIUS, LID_RADIUS - 0.001, LID_RADIUS)), 0.016)
    # Nose: bridge, tip, wings, nostrils.
    d = _join(d, _cone(m, (0, 0.165, 0.208), (0, 0.06, 0.266), 0.015, 0.018), 0.040)
    d = _join(d, _ellipsoid(m, (0, 0.042, 0.283), (0.022, 0.019, 0.025)), 0.025)
    d = _join(d, _ellipsoid(m, (0.023, 0.030, 0.260), (0.015, 0.015, 0.021)), 0.020)
    d = _join(d, _cone(m, (0, 0.022, 0.278), (0, 0.005, 0.252), 0.009), 0.016)
    d = _carve(d, _ellipsoid(m, (0.0135, 0.010, 0.268), (0.0055, 0.009, 0.010)), 0.008)
    # The muzzle, its groove below the nose, and the lips.
    d = _join(d, _ellipsoid(m, (0, -0.045, 0.168), (0.074, 0.064, 0.076)), 0.045)
    upper = _cone(m, (MOUTH_HALF - 0.002, -0.0475, 0.2280), (0.015, -0.0400, 0.2525), 0.0060, 0.0105)
    upper = _join(upper, _cone(m, (0, -0.0430, 0.2550), (0.015, -0.0400, 0.2525), 0.0100, 0.0105), 0.008)
    lower = _cone(m, (MOUTH_HALF - 0.004, -0.0530, 0.2260), (0.012, -0.0655, 0.2485), 0.0060, 0.0122)
    lower = _join(lower, _cone(m, (0, -0.0660, 0.2495), (0.012, -0.0655, 0.2485), 0.0126, 0.0122), 0.01)
    d = _join(d, _join(upper, lower, 0.003), 0.007)
    d = _carve(d, _cone(m, (0, 0.002, 0.266), (0, -0.022, 0.2715), 0.0045), 0.012)
    # Neck and shoulders.
    d = _join(d, _cone(m, (0, -0.05, -0.060), (0, -0.5, -0.085), 0.125, 0.140), 0.055)
    d = _join(d, _cone(m, (0.05, -0.29, -0.09), (0.37, -0.44, -0.08), 0.10, 0.08), 0.08)
    d = _join(d, _ellipsoid(m, (0, -0.63, -0.06), (0.40, 0.25, 0.15)), 0.08)
    return d
