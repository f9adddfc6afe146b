"""The procedural head's loose parts, each made directly as vertices and triangles: spheres, dental arches, ears."""

from __future__ import annotations

import numpy as np

TOOTH = 0.21
"""Angle that one tooth takes on the dental arch, radians; gaps lie at its multiples."""
Mesh = tuple[np.ndarray, np.ndarray]
"""Vertices [V,3] in canonical space and triangles [F,3]."""


def strip(rows: int, columns: int, closed: bool) -> np.ndarray:
    """Triangles of a rows × columns sheet of vertices."""
    r, c = np.meshgrid(np.arange(rows - 1), np.arange(columns if closed else columns - 1), indexing="ij")
    a, b = (r * columns + c).ravel(), (r * columns + (c + 1) % columns).ravel()
    return np.concatenate([np.stack([a, a + columns, b], 1), np.stack([b, a + columns, b + columns], 1)])


def sphere(center, radius, theta, segments) -> Mesh:
    """A sphere with its pole to +z and rings at the angles theta (rising, above 0)."""
    phi = 2 * np.pi * np.arange(segments) / segments
    t, f = np.meshgrid(theta, phi, indexing="ij")
    v = np.stack([np.sin(t) * np.cos(f), np.sin(t) * np.sin(f), np.cos(t)], -1).reshape(-1, 3)
    first = np.arange(segments)
    cap = np.stack([np.zeros(segments, int), 1 + first, 1 + (first + 1) % segments], 1)
    return center + radius * np.concatenate([[[0, 0, 1.0]], v]), np.concatenate(
        [cap, 1 + strip(len(theta), segments, True)]
    )


def teeth(edge: float, gum: float, back: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A dental arch from its biting edge to the gum, open behind: vertices, faces, which of them are gum."""
    angle = np.arange(-24, 25) * TOOTH / 4
    arch = 1 / np.hypot(np.sin(angle) / 0.052, np.cos(angle) / 0.042)
    nearest = np.abs(angle / TOOTH - np.round(angle / TOOTH)) * 2  # 0 in a gap, 1 in the middle of a tooth
    swell = 0.0016 * np.sqrt(nearest)
    rows = []
    for y, pull in (
        (edge, -0.006),
        (edge, 0.0),
        (edge + 0.35 * (gum - edge), 0.001),
        (gum, 0.0),
        (gum, 0.0015),
        (back, 0.002),
    ):
        radius = arch + pull + swell * (y != back)
        uneven = 0.0015 * (1 - nearest) ** 2 * np.sign(gum - edge) * (y == edge)
        rows.append(np.stack([radius * np.sin(angle), y + uneven, 0.185 + radius * np.cos(angle)], -1))
    v = np.stack(rows)
    is_gum = np.repeat(np.arange(len(rows)) >= 4, len(angle))
    return v.reshape(-1, 3), strip(len(rows), len(angle), False), is_gum


def ear() -> Mesh:
    """The left ear: a shell of rings from the hole over antihelix and helix to behind, its root inside the head."""
    rings = ((0.0, -0.016), (0.22, -0.015), (0.42, -0.010), (0.52, 0.0), (0.62, 0.004), (0.74, -0.001), (0.84, 0.001),
             (0.93, 0.008), (1.0, 0.006), (1.0, -0.002), (0.92, -0.007), (0.6, -0.022), (0.5, -0.05))  # fmt: skip
    phi = 2 * np.pi * np.arange(22) / 22  # 0 to the back of the head, a quarter up
    c, s = np.cos(phi), np.sin(phi)
    length = np.where(s > 0, 0.072, 0.076) * np.abs(s)
    lobe = np.clip(-s, 0, 1) ** 2
    width = np.where(c > 0, 0.052, 0.028) * (1 - 0.38 * lobe)
    out = []
    for k, (r, lift) in enumerate(rings):
        front = np.clip(-c, 0, 1) ** 2  # towards the face the shell sinks into the cheek
        up = (
            lift
            - 0.012 * front * (r > 0.5) * (k < 9)
            + 0.012 * r * r * np.clip(c, 0, 1)
            - 0.4 * lift * lobe * (r > 0.3)
        )
        out.append(np.stack([up, r * length * np.sign(s), -r * width * c], -1))
    local = np.concatenate(out)
    lean, flare = 0.16, 0.36  # backwards at the top; away from the head behind
    local = local @ np.array([[1, 0, 0], [0, np.cos(lean), -np.sin(lean)], [0, np.sin(lean), np.cos(lean)]])
    local = local @ np.array([[np.cos(flare), 0, np.sin(flare)], [0, 1, 0], [-np.sin(flare), 0, np.cos(flare)]])
    return local + np.array([0.186, 0.098, -0.012]), strip(len(rings), 22, True)[:, ::-1]
