"""The procedural head's template mesh: the field's surface with eyes and mouth cut open, eyeballs, ears, teeth, tongue.

The surface is contoured on a grid that is fine around eyes and mouth, then cut along the exact curves of the lids and of
the line between the lips. From each cut, rings of vertices lead inwards: the lid's edge, and the pocket of the mouth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float, Int, Int8, UInt8

from i4d_bench.heads.procedural_field import ALMOND, EYE, EYE_RADIUS, MOUTH, MOUTH_HALF, field, mouth_line
from i4d_bench.heads.procedural_parts import ear, sphere, teeth

SKIN, LID_EDGE, POCKET, EYE_LEFT, EYE_RIGHT, EAR, TEETH_UPPER, TEETH_LOWER, GUM, TONGUE = range(10)
"""Parts of the mesh (`Template.parts`). Gums belong to a row of teeth; `side` says to which."""


@dataclass(frozen=True)
class Template:
    vertices: Float[np.ndarray, "V 3"]
    faces: Int[np.ndarray, "F 3"]
    parts: UInt8[np.ndarray, " V"]
    parent: Int[np.ndarray, " V"]  # of a ring's vertex: the one on the rim it follows; of others: themselves
    depth: Float[np.ndarray, " V"]  # 0 on the outside and on the rims, 1 at the back of the pocket
    side: Int8[np.ndarray, " V"]  # +1 upper, −1 lower where a lip, lid, gum or tooth says so; 0 elsewhere


# ---------------------------------------------------------------------------------------------- the closed surface


def _axis(knots) -> np.ndarray:
    """Grid lines through (position, spacing) knots, spacing interpolated in between."""
    out, (positions, spacings) = [knots[0][0]], np.array(knots).T
    while out[-1] < positions[-1]:
        out.append(out[-1] + np.interp(out[-1], positions, spacings))
    return np.array(out)


def contour(axes: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Dual contouring (surface nets) of `field` on a rectilinear grid: vertices and triangles, outward."""
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    value = field(grid)
    inside = value < 0
    cells = tuple(n - 1 for n in value.shape)
    total, count = np.zeros((*cells, 3)), np.zeros(cells)
    crossings = []
    for axis in range(3):
        lo, hi = [slice(None)] * 3, [slice(None)] * 3
        lo[axis], hi[axis] = slice(None, -1), slice(1, None)
        crosses = inside[tuple(lo)] != inside[tuple(hi)]
        a, b = value[tuple(lo)], value[tuple(hi)]
        t = np.where(crosses, a / np.where(crosses, a - b, 1), 0)[..., None]
        point = grid[tuple(lo)] + t * (grid[tuple(hi)] - grid[tuple(lo)])
        u, v = [i for i in range(3) if i != axis]
        for du in (0, 1):  # each crossing edge touches four cells
            for dv in (0, 1):
                edge = [slice(None)] * 3
                edge[u], edge[v] = slice(du, cells[u] + du), slice(dv, cells[v] + dv)
                total += np.where(crosses[tuple(edge)][..., None], point[tuple(edge)], 0)
                count += crosses[tuple(edge)]
        crossings.append(crosses)
    index = np.full(cells, -1)
    index[count > 0] = np.arange((count > 0).sum())
    vertices = total[count > 0] / count[count > 0][:, None]
    quads = []
    for axis in range(3):
        i = np.argwhere(crossings[axis])
        u, v = [o for o in range(3) if o != axis]
        i = i[(i[:, u] > 0) & (i[:, v] > 0) & (i[:, u] < cells[u]) & (i[:, v] < cells[v])]
        step = np.eye(3, dtype=int)
        corner = [index[tuple((i - a * step[u] - b * step[v]).T)] for a, b in ((0, 0), (1, 0), (1, 1), (0, 1))]
        quad = np.stack(corner, 1)
        outward = inside[tuple(i.T)] ^ (axis == 1)
        quads.append(np.where(outward[:, None], quad, quad[:, ::-1]))
    return _coarsen(vertices, np.concatenate(quads), np.argwhere(count > 0), cells[0] // 2)


def _coarsen(vertices: np.ndarray, quads: np.ndarray, cell: np.ndarray, middle: int) -> tuple[np.ndarray, np.ndarray]:
    """Merges the vertices of three cells in a row, in x and in y, where the grid is finer there than the head needs.
    `middle`: the cells at x = 0."""
    x, y, z = vertices.T
    coarse = (z < 0.06 + 0.4 * np.clip(np.abs(x) - 0.08, 0, 1)) | (y > 0.27) | (y < -0.22)
    key = cell + 5000
    key[coarse & (np.abs(x) < 0.14), 0] = ((cell[:, 0] - middle + 1) // 3 + 1000)[coarse & (np.abs(x) < 0.14)]
    low = coarse & (np.abs(y - 0.05) < 0.17)
    key[low, 1] = cell[low, 1] // 3
    _, new = np.unique(key, axis=0, return_inverse=True)
    merged = np.stack([np.bincount(new, vertices[:, k]) for k in range(3)], 1) / np.bincount(new)[:, None]
    quads = new[quads]
    corners = np.sort(quads, 1)
    return merged, quads[(corners[:, 1:] != corners[:, :-1]).sum(1) >= 2]


def _triangles(vertices: np.ndarray, quads: np.ndarray) -> np.ndarray:
    """Splits quads along their shorter diagonal (mirrored quads split alike)."""
    a, b, c, d = (vertices[quads[:, k]] for k in range(4))
    first = ((a - c) ** 2).sum(1) < ((b - d) ** 2).sum(1) + 1e-12
    q = np.where(first[:, None], quads, quads[:, [1, 2, 3, 0]])
    out = np.concatenate([q[:, [0, 1, 2]], q[:, [0, 2, 3]]])
    return out[(out[:, 0] != out[:, 1]) & (out[:, 1] != out[:, 2]) & (out[:, 2] != out[:, 0])]


def _relax(vertices: np.ndarray, quads: np.ndarray, rounds: int) -> np.ndarray:
    """Evens the mesh out: Laplacian smoothing, then back onto the surface along the field's gradient."""
    edges = np.sort(np.concatenate([quads[:, [k, (k + 1) % 4]] for k in range(4)]), 1)
    edges, uses = np.unique(edges[edges[:, 0] != edges[:, 1]], axis=0, return_counts=True)
    degree = np.bincount(edges.ravel(), minlength=len(vertices))[:, None]
    border = np.zeros(len(vertices), bool)
    border[edges[uses == 1].ravel()] = True
    for _ in range(rounds):
        mean = np.zeros_like(vertices)
        np.add.at(mean, edges[:, 0], vertices[edges[:, 1]])
        np.add.at(mean, edges[:, 1], vertices[edges[:, 0]])
        vertices = np.where(border[:, None], vertices, 0.5 * vertices + 0.5 * mean / np.maximum(degree, 1))
        h = 1e-4
        gradient = np.stack([field(vertices + h * e) - field(vertices - h * e) for e in np.eye(3)], -1) / (2 * h)
        step = field(vertices)[:, None] * gradient / np.maximum((gradient**2).sum(1, keepdims=True), 0.25)
        vertices = vertices - np.clip(step, -0.004, 0.004)
    return vertices


def _onto_surface(points: np.ndarray) -> np.ndarray:
    """Moves points that are near the face's front along z until they lie on the field's surface."""
    points = points.copy()
    for _ in range(6):
        value, ahead = field(points), field(points + np.array([0, 0, 1e-4]))
        slope = np.maximum((ahead - value) / 1e-4, 0.3)
        points[:, 2] -= np.clip(value / slope, -0.005, 0.005)
    return points


# ------------------------------------------------------------------------------------------------------------- cuts


def _lid_gauge(p: np.ndarray) -> np.ndarray:
    """Below 1 inside the open eyes, 1 on their rims. The upper lid is highest towards the nose, the lower lowest
    towards the temple, and the outer corner lies a little higher."""
    u = (np.abs(p[:, 0]) - EYE[0]) / ALMOND[0]
    v = p[:, 1] - EYE[1] - 0.0025 * u
    lean = np.clip(u, -1, 1) * np.where(v > 0, -0.16, 0.16)
    height = ALMOND[1] * np.where(v > 0, 1.0, 0.9) * (1 + lean)
    return np.where(p[:, 2] > 0.17, np.sqrt(u**2 + np.abs(v / height) ** 1.6), 9.0)


def _onto_lid(p: np.ndarray) -> np.ndarray:
    """Moves points near a rim onto it, away from or towards the middle of the eye."""
    p, middle = p.copy(), np.stack([np.sign(p[:, 0]) * EYE[0], np.full(len(p), EYE[1])], 1)
    for _ in range(12):
        p[:, :2] = middle + (p[:, :2] - middle) / _lid_gauge(p)[:, None] ** 0.8
    return _onto_surface(p)


def _mouth_level(p: np.ndarray) -> np.ndarray:
    """Height above the line between the lips; NaN away from it."""
    return np.where((p[:, 2] > 0.2) & (np.abs(p[:, 0]) < MOUTH_HALF + 0.004), p[:, 1] - mouth_line(p[:, 0]), np.nan)


def _onto_mouth_line(p: np.ndarray) -> np.ndarray:
    return _onto_surface(np.stack([p[:, 0], mouth_line(p[:, 0]), p[:, 2]], 1))


def _cut(
    vertices: np.ndarray, faces: np.ndarray, level: Callable, onto: Callable
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Splits triangles along the curve level = 0. Vertices close to it move onto it, so that no slivers arise.

    Returns vertices, faces and each vertex's level, exactly 0 on the curve. NaN levels are never cut.
    """
    value = level(vertices)
    edges = np.unique(np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), 1), axis=0)
    a, b = value[edges[:, 0]], value[edges[:, 1]]
    edges = edges[a * b < 0]
    a, b = value[edges[:, 0]], value[edges[:, 1]]
    t = a / (a - b)
    near = np.unique(np.concatenate([edges[t < 0.3, 0], edges[t > 0.7, 1]]))
    vertices = vertices.copy()
    vertices[near], value[near] = onto(vertices[near]), 0.0
    keep = (value[edges] != 0).all(1)
    edges, t = edges[keep], t[keep]
    new = onto(vertices[edges[:, 0]] * (1 - t[:, None]) + vertices[edges[:, 1]] * t[:, None])
    split = {(int(i), int(j)): len(vertices) + k for k, (i, j) in enumerate(edges)}
    out = []
    for face in faces.tolist():
        mids = [split.get((min(i, j), max(i, j))) for i, j in zip(face, face[1:] + face[:1], strict=True)]
        count = 3 - mids.count(None)
        if count == 0:
            out.append(face)
        elif count == 1:
            k = next(k for k in range(3) if mids[k] is not None)
            i, j, l, m = face[k], face[(k + 1) % 3], face[(k + 2) % 3], mids[k]  # noqa: E741
            out += [[i, m, l], [m, j, l]]
        else:
            k = mids.index(None)
            i, j, l, m, n = face[k], face[(k + 1) % 3], face[(k + 2) % 3], mids[(k + 1) % 3], mids[(k + 2) % 3]  # noqa: E741
            out += [[i, j, m], [i, m, n], [n, m, l]]
    return np.concatenate([vertices, new]), np.array(out), np.concatenate([value, np.zeros(len(new))])


def _loops(faces: np.ndarray) -> list[np.ndarray]:
    """Closed chains of the edges that have one triangle, each in the direction of its triangles."""
    directed = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    known = {(i, j) for i, j in directed.tolist()}
    follow = {i: j for i, j in known if (j, i) not in known}
    loops = []
    while follow:
        start, at = next(iter(follow.items()))
        chain = [start]
        del follow[start]
        while at != start:
            chain.append(at)
            at = follow.pop(at)
        loops.append(np.array(chain))
    return loops


# ---------------------------------------------------------------------------------------------------------- assembly


@cache
def template() -> Template:
    """The average head, mouth closed, eyes open."""
    half = _axis([(0.0034, 0.0068), (0.125, 0.0068), (0.2, 0.024), (0.48, 0.055)])  # a row of cells lies in the middle
    rows = _axis([(-0.62, 0.05), (-0.3, 0.04), (-0.18, 0.018), (-0.11, 0.0066), (0.01, 0.0062), (0.06, 0.0075), (0.10, 0.0066),
                  (0.17, 0.0064), (0.21, 0.0085), (0.3, 0.028), (0.46, 0.035)])  # fmt: skip
    layers = _axis([(-0.34, 0.035), (0.0, 0.028), (0.12, 0.014), (0.19, 0.0072), (0.34, 0.0072)])
    skin, quads = contour([np.concatenate([-half[::-1], half]), rows, layers])
    skin = _relax(skin, quads, 6)
    faces = _triangles(skin, quads)
    skin, faces, level = _cut(skin, faces, lambda p: _lid_gauge(p) - 1, _onto_lid)
    faces = faces[(level[faces] >= 0).all(1) & (level[faces] > 0).any(1)]
    used, faces = np.unique(faces, return_inverse=True)
    skin = skin[used]
    skin, faces, level = _cut(skin, faces, _mouth_level, _onto_mouth_line)
    pieces = _Pieces()
    skin, faces, side = _open_mouth(skin, faces, level)
    pieces.add(skin, faces, part=SKIN, side=side)
    middles = [(loop, skin[loop].mean(0)) for loop in _loops(faces)]
    lids = [loop for loop, middle in middles if middle[1] > 0.1]
    (mouth,) = (loop for loop, middle in middles if middle[1] <= 0.1 and middle[2] > 0.2)
    pieces.pocket(mouth)
    for loop in lids:
        pieces.lid_edge(loop)
    front = np.array([0.10, 0.19, 0.26, 0.33, 0.38, 0.43, 0.5, 0.62, 0.8, 1.0, 1.25, 1.5])
    for part, side in ((EYE_LEFT, 1), (EYE_RIGHT, -1)):
        pieces.add(*sphere(EYE * (side, 1, 1), EYE_RADIUS, front, 28), part=part)
    shell, faces = ear()
    pieces.add(shell, faces, part=EAR)
    pieces.add(shell * (-1, 1, 1), faces[:, ::-1], part=EAR)
    for side, part, arch in ((1, TEETH_UPPER, (-0.0555, -0.033, -0.022)), (-1, TEETH_LOWER, (-0.0555, -0.075, -0.085))):
        v, f, gum = teeth(*arch)
        pieces.add(v, f, part=np.where(gum, GUM, part), side=side)
    v, f = sphere(np.array([0, -0.076, 0.172]), np.array([0.032, 0.011, 0.050]), np.linspace(0.2, 2.9, 12), 16)
    pieces.add(v, f, part=TONGUE, side=-1)
    return pieces.template()


def _open_mouth(
    vertices: np.ndarray, faces: np.ndarray, level: np.ndarray
) -> tuple[Float[np.ndarray, "V 3"], Int[np.ndarray, "F 3"], Int8[np.ndarray, " V"]]:
    """Parts the lips along the cut: the lower lip gets vertices of its own, the corners stay shared."""
    on = np.flatnonzero(level == 0)
    on = on[np.argsort(vertices[on, 0])]
    x = vertices[on, 0]
    first, last = np.abs(x + MOUTH_HALF).argmin(), np.abs(x - MOUTH_HALF).argmin()
    for k, at in ((on[first], -MOUTH_HALF), (on[last], MOUTH_HALF)):
        vertices[k] = _onto_mouth_line(np.array([[at, 0, vertices[k, 2]]]))[0]
    inner = on[first + 1 : last]
    own = np.arange(len(vertices))
    own[inner] = len(vertices) + np.arange(len(inner))
    below = (level[faces] < 0).any(1)
    faces = faces.copy()
    faces[below] = own[faces[below]]
    side = np.zeros(len(vertices) + len(inner), np.int8)
    side[inner], side[own[inner]] = 1, -1
    return np.concatenate([vertices, vertices[inner]]), faces, side


class _Pieces:
    """Collects vertices and faces, with what each vertex is."""

    def __init__(self) -> None:
        self.vertices, self.faces, self.parts, self.parent, self.depth, self.side = [], [], [], [], [], []
        self.count = 0

    def add(
        self, vertices, faces, side: int | np.ndarray = 0, *, part, parent=None, depth=0.0, local=True
    ) -> np.ndarray:
        """faces: indices into these vertices, or (local off) into everything so far. Returns the new vertices' indices."""
        n = len(vertices)
        new = self.count + np.arange(n)
        self.vertices.append(np.asarray(vertices, float))
        self.faces.append(np.asarray(faces) + (self.count if local else 0))
        self.parts.append(np.broadcast_to(np.asarray(part, np.uint8), n))
        self.parent.append(new if parent is None else parent)
        self.depth.append(np.broadcast_to(np.asarray(depth, float), n))
        self.side.append(np.broadcast_to(np.asarray(side, np.int8), n))
        self.count += n
        return new

    def _ring(self, last: np.ndarray, points: np.ndarray, rim: np.ndarray, part: int, depth: float) -> np.ndarray:
        """One more ring behind `last`, a loop of the same length."""
        new = self.count + np.arange(len(points))
        a, b, c, d = last, np.roll(last, -1), new, np.roll(new, -1)
        faces = np.concatenate([np.stack([b, a, c], 1), np.stack([b, c, d], 1)])
        return self.add(points, faces, self.side[0][rim], part=part, parent=rim, depth=depth, local=False)

    def pocket(self, rim: np.ndarray) -> None:
        """The inner face of the lips, and the pocket behind them."""
        p, side = self.vertices[0][rim], self.side[0][rim]
        q = np.sqrt(np.clip(1 - (p[:, 0] / MOUTH_HALF) ** 2, 0, 1)) * side
        last = rim
        for depth, wide, high, back in ((0.0, 1.0, 0.001, 0.005), (0.02, 1.0, 0.005, 0.013), (0.15, 1.04, 0.030, 0.024),
                                        (0.5, 1.0, 0.036, 0.075), (0.9, 0.8, 0.030, 0.12)):  # fmt: skip
            ring = p * (wide, 1, 1) + np.stack([0 * q, high * q, np.full(len(q), -back)], 1)
            last = self._ring(last, ring, rim, POCKET, depth)
        middle = self.count
        faces = np.stack([np.roll(last, -1), last, np.full(len(last), middle)], 1)
        self.add(MOUTH[None] - (0, 0, 0.135), faces, part=POCKET, depth=1.0, local=False)

    def lid_edge(self, rim: np.ndarray) -> None:
        """The lid's thickness, back to the eyeball, and its inner face."""
        p = self.vertices[0][rim]
        center = EYE * (np.sign(p[:, :1].mean()), 1, 1)
        upper = p[:, 1] - EYE[1] - 0.0025 * (np.abs(p[:, 0]) - EYE[0]) / ALMOND[0]
        self.side[0] = self.side[0].copy()
        self.side[0][rim] = np.where(np.abs(upper) < 0.0008, 0, np.sign(upper))
        last = rim
        for spread, radius in ((0.99, EYE_RADIUS + 0.0008), (1.12, EYE_RADIUS - 0.003)):
            d = (p - center)[:, :2] * spread
            z = np.sqrt(np.maximum(radius**2 - (d**2).sum(1), 0.006**2))
            last = self._ring(last, center + np.concatenate([d, z[:, None]], 1), rim, LID_EDGE, 0.0)

    def template(self) -> Template:
        cat = np.concatenate
        return Template(
            cat(self.vertices), cat(self.faces).astype(np.int32), cat(self.parts), cat(self.parent), cat(self.depth), cat(self.side)
        )  # fmt: skip
