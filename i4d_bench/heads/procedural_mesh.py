"""The procedural head's template: a signed distance field of a head, meshed once, with eyes, teeth and a tongue.

The skin is one closed surface (dual contouring of the field on a grid that is fine around eyes and mouth) with almond
holes for the eyes and a slit with a pocket behind it for the mouth. The template's mouth is open: closing it is a
displacement like any other (see `procedural`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float, Int, UInt8

SKIN, EYE_LEFT, EYE_RIGHT, TEETH_UPPER, TEETH_LOWER, TONGUE = range(6)
"""Parts of the mesh (`Template.parts`)."""

EYE = np.array([0.084, 0.135, 0.187])
EYE_RADIUS = 0.036
ALMOND = (0.0335, 0.0155)  # half width and half height of the open eye
MOUTH = np.array([0.0, -0.052, 0.255])
SLIT = (0.056, 0.011)  # half width and half height of the template's open mouth
CAVITY = np.array([0.0, -0.055, 0.185]), np.array([0.052, 0.034, 0.062])


@dataclass(frozen=True)
class Template:
    vertices: Float[np.ndarray, "V 3"]
    faces: Int[np.ndarray, "F 3"]
    parts: UInt8[np.ndarray, "V"]


def _ellipsoid(p, center, radii):
    """Distance to an ellipsoid, exact on it and nearly so close by."""
    q = (p - np.asarray(center)) / np.asarray(radii)
    k0 = np.linalg.norm(q, axis=-1)
    k1 = np.linalg.norm(q / np.asarray(radii), axis=-1)
    return k0 * (k0 - 1) / np.maximum(k1, 1e-9)


def _capsule(p, a, b, ra, rb=None):
    """Distance to a rounded cone from a to b."""
    a, b, rb = np.asarray(a), np.asarray(b), ra if rb is None else rb
    t = np.clip(((p - a) @ (b - a)) / ((b - a) @ (b - a)), 0, 1)
    return np.linalg.norm(p - a - t[..., None] * (b - a), axis=-1) - (ra + t * (rb - ra))


def _join(a, b, k):
    """Smooth union: shapes closer than k melt together."""
    h = np.clip(0.5 + 0.5 * (b - a) / k, 0, 1)
    return b + (a - b) * h - k * h * (1 - h)


def _carve(a, b, k):
    """Smooth difference a − b."""
    return -_join(-a, b, k)


def almond(x, y) -> np.ndarray:
    """How far (in half heights) a point's |y| is from the open eye's rim, at |x| from the nose: 1 on the rim."""
    u = np.clip((x - EYE[0]) / ALMOND[0], -1, 1)
    return np.abs(y - EYE[1] - 0.004 * u) / (ALMOND[1] * (1 - u**2) ** 0.8 + 1e-4)


def field(p: Float[np.ndarray, "*B 3"]) -> Float[np.ndarray, "*B"]:
    """Signed distance (canonical units, negative inside) of the average head, mouth and eyes open."""
    m = p * np.array([1, 1, 1.0])
    m[..., 0] = np.abs(m[..., 0])
    d = _ellipsoid(m, (0, 0.165, -0.035), (0.186, 0.212, 0.235))
    d = _join(d, _ellipsoid(m, (0, 0.19, 0.075), (0.140, 0.14, 0.135)), 0.06)
    d = _join(d, _ellipsoid(m, (0, 0.03, 0.075), (0.150, 0.20, 0.160)), 0.05)
    d = _join(d, _ellipsoid(m, (0, -0.075, 0.09), (0.122, 0.105, 0.130)), 0.06)
    d = _join(d, _capsule(m, (0.108, -0.04, 0.01), (0.02, -0.15, 0.175), 0.035, 0.034), 0.06)
    d = _join(d, _ellipsoid(m, (0, -0.148, 0.192), (0.042, 0.034, 0.036)), 0.05)
    d = _join(d, _ellipsoid(m, (0.095, 0.05, 0.150), (0.056, 0.05, 0.054)), 0.05)
    d = _join(d, _ellipsoid(m, (0.07, -0.02, 0.165), (0.06, 0.06, 0.055)), 0.06)
    d = _join(d, _capsule(m, (0.015, 0.180, 0.212), (0.1, 0.188, 0.165), 0.024, 0.018), 0.05)
    d = _carve(d, _ellipsoid(m, EYE + np.array([-0.004, 0.0, 0.066]), (0.05, 0.032, 0.034)), 0.03)
    d = _join(d, _ellipsoid(m, EYE + np.array([0, 0, -0.001]), (0.0415, 0.0395, 0.042)), 0.020)
    d = _join(d, _capsule(m, (0, 0.165, 0.205), (0, 0.05, 0.262), 0.017, 0.021), 0.03)
    d = _join(d, _ellipsoid(m, (0, 0.036, 0.272), (0.026, 0.023, 0.027)), 0.025)
    d = _join(d, _ellipsoid(m, (0.024, 0.028, 0.250), (0.018, 0.016, 0.022)), 0.020)
    d = _carve(d, _ellipsoid(m, (0.012, 0.010, 0.262), (0.007, 0.009, 0.011)), 0.008)
    d = _join(d, _ellipsoid(m, (0, -0.05, 0.168), (0.08, 0.066, 0.078)), 0.045)
    d = _join(d, _capsule(m, (0.05, -0.049, 0.214), (0.016, -0.033, 0.250), 0.010, 0.0125), 0.012)
    d = _join(d, _capsule(m, (0.0, -0.037, 0.252), (0.016, -0.033, 0.250), 0.0115), 0.010)
    d = _join(d, _capsule(m, (0.048, -0.055, 0.213), (0.0, -0.071, 0.245), 0.011, 0.0155), 0.014)
    d = _join(d, _capsule(m, (0, -0.10, -0.045), (0, -0.5, -0.07), 0.112, 0.125), 0.06)
    d = _join(d, _ellipsoid(m, (0, -0.56, -0.06), (0.36, 0.14, 0.14)), 0.12)
    ear = _ellipsoid(m @ _turn(-0.35), (0.195, 0.105, -0.02) @ _turn(-0.35), (0.014, 0.058, 0.036))
    ear = _carve(ear, _ellipsoid(m, (0.222, 0.105, -0.012), (0.018, 0.036, 0.02)), 0.012)
    d = _join(d, ear, 0.02)
    d = _carve(d, _ellipsoid(m, *CAVITY), 0.01)
    inside_slit = 1 - (m[..., 0] / SLIT[0]) ** 2
    slit = np.maximum(
        np.abs(p[..., 1] - mouth_line(m[..., 0])) - SLIT[1] * np.sqrt(np.maximum(inside_slit, 0)), 0.17 - p[..., 2]
    )
    d = _carve(d, np.where(inside_slit > 0, slit, np.maximum(slit, m[..., 0] - SLIT[0])), 0.006)
    rim = (almond(m[..., 0], m[..., 1]) - 1) * ALMOND[1]
    rim = np.where(
        np.abs(m[..., 0] - EYE[0]) < ALMOND[0], rim, np.abs(m[..., 0] - EYE[0]) - ALMOND[0] + np.abs(m[..., 1] - EYE[1])
    )
    return _carve(d, np.maximum(rim, EYE[2] + 0.002 - m[..., 2]), 0.004)


def mouth_line(x) -> np.ndarray:
    """Height of the line where the lips meet, at |x| from the middle."""
    return MOUTH[1] + 0.004 * np.clip(np.abs(x) / SLIT[0], 0, 1.3) ** 2


def _turn(angle):
    """Rotation about y (rows are points)."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])


def _axis(knots) -> np.ndarray:
    """Grid lines through (position, spacing) knots, spacing interpolated in between."""
    out, (positions, spacings) = [knots[0][0]], np.array(knots).T
    while out[-1] < positions[-1]:
        out.append(out[-1] + np.interp(out[-1], positions, spacings))
    return np.array(out)


def contour(axes: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Dual contouring (surface nets) of `field` on a rectilinear grid: vertices and triangles, outward."""
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    value = field(grid.copy())
    inside = value < 0
    total, count = np.zeros((*(n - 1 for n in value.shape), 3)), np.zeros([n - 1 for n in value.shape])
    crossings = []
    for axis in range(3):
        lo, hi = [slice(None)] * 3, [slice(None)] * 3
        lo[axis], hi[axis] = slice(None, -1), slice(1, None)
        crosses = inside[tuple(lo)] != inside[tuple(hi)]
        a, b = value[tuple(lo)], value[tuple(hi)]
        t = np.where(crosses, a / np.where(crosses, a - b, 1), 0)[..., None]
        point = grid[tuple(lo)] + t * (grid[tuple(hi)] - grid[tuple(lo)])
        others = [i for i in range(3) if i != axis]
        for du in (0, 1):  # each crossing edge touches four cells
            for dv in (0, 1):
                cell, edge = [slice(None)] * 3, [slice(None)] * 3
                for o, shift in zip(others, (du, dv), strict=True):
                    cell[o], edge[o] = slice(None), slice(shift, value.shape[o] - 1 + shift)
                total[tuple(cell)] += np.where(crosses[tuple(edge)][..., None], point[tuple(edge)], 0)
                count[tuple(cell)] += crosses[tuple(edge)]
        crossings.append(crosses)
    index = np.full(count.shape, -1)
    index[count > 0] = np.arange((count > 0).sum())
    vertices = total[count > 0] / count[count > 0][:, None]
    quads = []
    for axis in range(3):
        i = np.argwhere(crossings[axis])
        u, v = [o for o in range(3) if o != axis]
        i = i[(i[:, u] > 0) & (i[:, v] > 0) & (i[:, u] < count.shape[u]) & (i[:, v] < count.shape[v])]
        step = np.eye(3, dtype=int)
        corner = [index[tuple((i - a * step[u] - b * step[v]).T)] for a, b in ((0, 0), (1, 0), (1, 1), (0, 1))]
        quad = np.stack(corner, 1)
        outward = inside[tuple(i.T)] ^ (axis == 1)
        quads.append(np.where(outward[:, None], quad, quad[:, ::-1]))
    quads = np.concatenate(quads)
    return vertices, np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])


def _relax(vertices: np.ndarray, faces: np.ndarray, rounds: int = 3) -> np.ndarray:
    """Evens the mesh out: Laplacian smoothing, then back onto the surface along the field's gradient."""
    edges = np.unique(np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), 1), axis=0)
    degree = np.bincount(edges.ravel(), minlength=len(vertices))[:, None]
    for _ in range(rounds):
        mean = np.zeros_like(vertices)
        np.add.at(mean, edges[:, 0], vertices[edges[:, 1]])
        np.add.at(mean, edges[:, 1], vertices[edges[:, 0]])
        vertices = 0.5 * vertices + 0.5 * mean / np.maximum(degree, 1)
        value = field(vertices.copy())
        h = 1e-4
        gradient = np.stack([field(vertices + h * e) - field(vertices - h * e) for e in np.eye(3)], -1) / (2 * h)
        step = value[:, None] * gradient / np.maximum((gradient**2).sum(1, keepdims=True), 0.25)
        vertices = vertices - np.clip(step, -0.004, 0.004)
    return vertices


def _sphere(center, radius, rings, segments, polar=1.0):
    """A sphere with its pole to +z, rings denser there, as (vertices, faces)."""
    theta = np.pi * (np.arange(rings + 1) / rings) ** polar
    phi = 2 * np.pi * np.arange(segments) / segments
    t, f = np.meshgrid(theta, phi, indexing="ij")
    v = np.stack([np.sin(t) * np.cos(f), np.sin(t) * np.sin(f), np.cos(t)], -1).reshape(-1, 3)
    return np.asarray(center) + np.asarray(radius) * v, _strip(rings + 1, segments, True)


def _strip(rows, columns, closed):
    """Triangles of a rows × columns sheet of vertices."""
    r, c = np.meshgrid(np.arange(rows - 1), np.arange(columns if closed else columns - 1), indexing="ij")
    a, b = (r * columns + c).ravel(), (r * columns + (c + 1) % columns).ravel()
    return np.concatenate([np.stack([a, a + columns, b], 1), np.stack([b, a + columns, b + columns], 1)])


def _teeth(y, height, sign):
    """A dental arch: a curved wall, its outer face forward. Columns are even in angle; see `tooth_gap`."""
    angle = np.linspace(-1.25, 1.25, 97)
    arch = np.stack([0.040 * np.sin(angle), np.zeros_like(angle), 0.185 + 0.046 * np.cos(angle)], -1)
    rows = np.linspace(0, 1, 4)[:, None, None] * np.array([0, -sign * height, -0.003])
    v = arch + rows + np.array([0, y, 0])
    return v.reshape(-1, 3), _strip(4, len(angle), False)


@cache
def template() -> Template:
    """The average head."""
    x = _axis([(0, 0.0066), (0.125, 0.0066), (0.2, 0.02), (0.42, 0.045)])
    axes = [
        np.concatenate([-x[:0:-1], x]),
        _axis(
            [
                (-0.5, 0.045),
                (-0.2, 0.028),
                (-0.11, 0.0062),
                (0.0, 0.0062),
                (0.06, 0.0072),
                (0.17, 0.0062),
                (0.25, 0.022),
                (0.46, 0.035),
            ]
        ),
        _axis([(-0.34, 0.035), (0.0, 0.028), (0.12, 0.014), (0.19, 0.0072), (0.34, 0.0072)]),
    ]
    skin, faces = contour(axes)
    skin = _relax(skin, faces)
    pieces = [(skin, faces, SKIN)]
    for part, side in ((EYE_LEFT, 1), (EYE_RIGHT, -1)):
        pieces.append((*_sphere(EYE * (side, 1, 1), EYE_RADIUS, 22, 28, 1.5), part))
    pieces.append((*_teeth(-0.030, 0.021, 1), TEETH_UPPER))
    pieces.append((*_teeth(-0.079, 0.019, -1), TEETH_LOWER))
    pieces.append((*_sphere((0, -0.074, 0.178), (0.030, 0.012, 0.042), 12, 16), TONGUE))
    offsets = np.cumsum([0] + [len(v) for v, _, _ in pieces])
    return Template(
        np.concatenate([v for v, _, _ in pieces]),
        np.concatenate([f + o for (_, f, _), o in zip(pieces, offsets, strict=False)]).astype(np.int32),
        np.concatenate([np.full(len(v), p, np.uint8) for v, _, p in pieces]),
    )
