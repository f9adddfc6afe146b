"""The procedural head's 52 expression fields, its joints and their weights, and the correctives beyond the linear basis.

Fields are displacements of the template's vertices at coefficient 1, canonical units. Vertices of the inner rings (lid
edges, mouth pocket) follow the rim that they hang on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from i4d_bench.heads import procedural_mesh as mesh
from i4d_bench.heads.expressions import INDEX, NAMES
from i4d_bench.heads.procedural_field import ALMOND, EYE, MOUTH, MOUTH_HALF, mouth_line
from i4d_bench.heads.procedural_mesh import Template

MEET = 0.28
"""Where closed lids meet: share of the opening above the lower rim."""
OVERLAP = 0.0012
"""How far closed lids cover each other."""
LIDS = {  # share of their way to the meeting line that the upper and the lower lid go
    "eyeBlink": (1.0, 1.0),
    "eyeSquint": (0.22, 0.85),
    "eyeWide": (-0.34, -0.25),
    "eyeLookUp": (-0.24, 0.15),
    "eyeLookDown": (0.55, -0.40),
}


def smooth(x, low, high):
    """0 below low, 1 above high."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def blob(p, center, radius):
    """A bump of height 1 at `center`."""
    q = (p - np.asarray(center)) / np.asarray(radius)
    return np.exp(-0.5 * (q * q).sum(-1))


def _unit(*v) -> np.ndarray:
    return np.array([v], float)


@dataclass(frozen=True)
class _Sparse:
    """A displacement field that is zero but for some vertices."""

    on: np.ndarray
    by: np.ndarray

    @staticmethod
    def of(field: Float[np.ndarray, "V 3"]) -> _Sparse:
        on = np.flatnonzero(np.abs(field).max(1) > 0)
        return _Sparse(on, field[on])

    def add(self, amount: float | np.floating, points: Float[np.ndarray, "V 3"]) -> None:
        points[self.on] += amount * self.by


@dataclass(frozen=True)
class Lids:
    """The lids of one eye on some head: how they turn around the eyeball."""

    vertices: np.ndarray  # indices [n]
    center: np.ndarray  # of the eyeball
    start: np.ndarray  # [n,3], open
    way: np.ndarray  # [2,n]: change of height on the upper and the lower lid's whole way to the meeting line

    def closed(self, upper: float, lower: float) -> Float[np.ndarray, "n 3"]:
        """Displacements when the lids have gone these shares of their ways, on arcs around the eyeball."""
        d = self.start - self.center
        radius = np.hypot(d[:, 1], d[:, 2])
        y = np.clip(d[:, 1] + upper * self.way[0] + lower * self.way[1], -0.97 * radius, 0.97 * radius)
        move = np.zeros_like(d)
        move[:, 1], move[:, 2] = y - d[:, 1], np.sqrt(radius**2 - y**2) - d[:, 2]
        return move


class Shapes:
    """Everything that moves the template."""

    def __init__(self, template: Template) -> None:
        t = template
        self.rest, self.parts = t.vertices, t.parts
        self.at = t.vertices[t.parent]  # where fields are read
        self.is_soft = np.isin(t.parts, (mesh.SKIN, mesh.LID_EDGE, mesh.POCKET))
        self.soft = self.is_soft * np.clip(1 - t.depth, 0, 1)
        above = self.at[:, 1] - mouth_line(self.at[:, 0])
        sign = np.where(np.abs(above) < 1e-7, t.side, np.sign(above))
        lens = np.sqrt(np.clip(1 - (self.at[:, 0] / MOUTH_HALF) ** 2, 0, 1))
        part = lambda reach: 0.5 * sign * (1 - (1 - lens) * (1 - smooth(np.abs(above), 0, reach)))  # noqa: E731
        self._apart = sign * np.clip(3 * lens, 0, 1)
        self.upper = 0.5 + part(0.02)  # 1 on the upper lip, 0 on the lower, one half in the corners
        self.joints = np.array([[0, -0.45, -0.05], [0, -0.2, -0.05], [0, 0.05, 0.0], EYE, EYE * (-1, 1, 1)])
        self.skin_weights = self._weights(0.5 - part(0.05 + 0.3 * np.clip(np.abs(self.at[:, 0]) - 0.05, 0, 1)), t)
        self._rims = [self._rim(t, s) for s in (1, -1)]
        lids = self.lids(self.rest, self.joints)
        self.lid_shares = np.zeros((len(NAMES), 2, 2))
        for name, shares in LIDS.items():
            for eye, side in enumerate(("Left", "Right")):
                self.lid_shares[INDEX[name + side], eye] = shares
        self._lid_fields = [(k.vertices, np.stack([k.closed(1, 0), k.closed(0, 1)])) for k in lids]
        self.expression = self._expressions()
        self._sparse = [_Sparse.of(field) for field in self.expression]
        self._pairs = [(INDEX[a], INDEX[b], _Sparse.of(field)) for a, b, field in self._correctives()]
        self._lips = self._lip_pairs(t)

    # ------------------------------------------------------------------------------------------------ joints and lids

    def _weights(self, lower: np.ndarray, t: Template) -> np.ndarray:
        p = self.at
        jaw = (
            lower
            * smooth(p[:, 2], -0.01, 0.10)
            * smooth(p[:, 1] + 0.35 * np.clip(p[:, 2] - 0.1, 0, 0.2), -0.215, -0.135)
        )
        jaw = jaw + (0.5 - jaw) * t.depth
        bone = np.isin(t.parts, (mesh.TEETH_UPPER, mesh.TEETH_LOWER, mesh.GUM, mesh.TONGUE))
        jaw = np.where(bone, t.side < 0, np.where(t.parts == mesh.EAR, 0, jaw))
        neck = smooth(p[:, 1], -0.36, -0.18) * (1 - jaw)
        w = np.stack([1 - jaw - neck, neck, jaw, np.zeros(len(p)), np.zeros(len(p))], 1)
        for part, joint in ((mesh.EYE_LEFT, 3), (mesh.EYE_RIGHT, 4)):
            w[t.parts == part] = np.eye(5)[joint]
        return w

    def _rim(self, t: Template, s: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Of one eye: its lid vertices, their place across the eye, their follow weights [2,n], upper and lower rim."""
        x, y, z = (self.at * (s, 1, 1)).T
        u = (x - EYE[0]) / ALMOND[0]
        rims = np.unique(t.parent[(t.parts == mesh.LID_EDGE) & (self.rest[:, 0] * s > 0)])
        rows = []
        for side in (1, -1):
            row = rims[t.side[rims] * side >= 0]
            rows.append(row[np.argsort(u[row])])
        top, bottom = (np.interp(u, u[row], y[row]) for row in rows)
        near = (np.abs(u) < 1) & (z > 0.17) & self.is_soft
        middle = 0.5 * (top + bottom)
        over = np.where(y >= middle, y - top, bottom - y)
        follow = np.stack(
            [
                near * (y > middle) * (1 - smooth(over, 0.001, 0.032)),
                near * (y <= middle) * (1 - smooth(over, 0.001, 0.026)),
            ]
        )
        on = np.flatnonzero(follow.sum(0) > 0)
        return on, u[on], follow[:, on], *rows

    def lids(self, resting: Float[np.ndarray, "V 3"], joints: Float[np.ndarray, "5 3"]) -> list[Lids]:
        """The lids of a resting head: each vertex's way is that of the rim below or above it."""
        out = []
        for (on, u, follow, upper, lower), center in zip(self._rims, joints[3:], strict=True):
            x = lambda row: (self.rest[row, 0] * np.sign(center[0]) - EYE[0]) / ALMOND[0]  # noqa: B023, E731
            top, bottom = (np.interp(u, x(row), resting[row, 1]) for row in (upper, lower))
            meet = bottom + MEET * (top - bottom)
            way = np.stack([meet - OVERLAP - top, meet + 0.5 * OVERLAP - bottom]) * follow
            out.append(Lids(on, center, resting[on], way))
        return out

    def close_lids(self, lids: list[Lids], e: Float[np.ndarray, "52"], points: np.ndarray) -> None:
        """Replaces, in place, the straight way that the linear fields gave the lids by arcs, and stops them where they meet."""
        for k, (straight, lid) in enumerate(zip(self._lid_fields, lids, strict=True)):
            shares = e @ self.lid_shares[:, k]
            if shares.any():
                points[lid.vertices] += lid.closed(*np.clip(shares, -1, 1)) - np.tensordot(shares, straight[1], 1)

    # --------------------------------------------------------------------------------------------------- expressions

    def _expressions(self) -> np.ndarray:
        """[52,V,3]."""
        q, soft = self.at, self.soft[:, None]
        out = np.zeros((len(NAMES), *q.shape))

        def put(name: str, *fields: Callable[[np.ndarray], np.ndarray]) -> None:
            """Adds fields made for the left side; a name without a side gets both."""
            for full, sides in ((name, (1, -1)), (f"{name}Left", (1,)), (f"{name}Right", (-1,))):
                for s in sides if full in INDEX else ():
                    for field in fields:
                        out[INDEX[full]] += field(q * (s, 1, 1)) * (s, 1, 1) * soft

        def move(center, radius, by, lip=None):
            """A bump that moves by `by`; `lip`: only the upper (1) or the lower (0) one."""
            share = 1.0 if lip is None else (self.upper if lip else 1 - self.upper)[:, None]
            return lambda p: (blob(p, center, radius)[:, None] * by) * share

        corner = (MOUTH_HALF, MOUTH[1] + 0.005, 0.232)
        put("browDown", move((0.050, 0.190, 0.22), (0.040, 0.028, 0.06), (-0.007, -0.020, 0.004)))
        put("browOuterUp", move((0.105, 0.192, 0.20), (0.036, 0.034, 0.06), (0.001, 0.021, 0)))
        put("browInnerUp", move((0.032, 0.192, 0.23), (0.030, 0.036, 0.06), (0, 0.019, 0)))
        put("cheekPuff", move((0.085, -0.030, 0.19), (0.038, 0.040, 0.07), (0.030, 0, 0.020)))
        put("cheekPuff", move((0.03, MOUTH[1], 0.24), (0.04, 0.025, 0.05), (0, 0, 0.006)))
        put("cheekSquint", move((0.085, 0.080, 0.21), (0.036, 0.022, 0.05), (0, 0.011, 0.005)))
        put(
            "noseSneer",
            move((0.028, 0.036, 0.25), (0.018, 0.024, 0.035), (0.004, 0.011, 0.001)),
            move((0.03, -0.032, 0.25), (0.022, 0.022, 0.04), (0, 0.009, 0.001), 1),
        )
        put(
            "mouthSmile",
            move(corner, (0.030, 0.028, 0.05), (0.017, 0.021, -0.014)),
            move((0.03, MOUTH[1], 0.25), (0.022, 0.022, 0.05), (0.007, 0.002, -0.005)),
            move((0.088, 0.025, 0.20), (0.030, 0.030, 0.05), (0.004, 0.009, 0.007)),
        )
        put("mouthFrown", move(corner, (0.028, 0.030, 0.05), (0.001, -0.023, -0.005)))
        put("mouthFrown", move((0.025, MOUTH[1] - 0.02, 0.25), (0.03, 0.016, 0.05), (0, 0.006, 0.003), 0))
        put("mouthStretch", move(corner, (0.030, 0.032, 0.05), (0.020, -0.008, -0.014)))
        put("mouthStretch", move((0.03, MOUTH[1], 0.25), (0.022, 0.022, 0.05), (0.008, -0.002, -0.006)))
        put("mouthDimple", move(corner, (0.022, 0.022, 0.04), (0.011, 0.004, -0.017)))
        put("mouthUpperUp", move((0.027, -0.037, 0.25), (0.026, 0.026, 0.05), (0.001, 0.018, 0.001), 1))
        put("mouthLowerDown", move((0.027, -0.070, 0.25), (0.028, 0.026, 0.05), (0.002, -0.021, 0.001), 0))
        put("mouthPress", move((0.026, MOUTH[1] + 0.008, 0.25), (0.026, 0.014, 0.05), (0, -0.007, -0.005), 1))
        put("mouthPress", move((0.026, MOUTH[1] - 0.009, 0.25), (0.026, 0.016, 0.05), (0, 0.007, -0.005), 0))
        put("mouthRollLower", move((0.022, MOUTH[1] - 0.007, 0.25), (0.022, 0.014, 0.05), (0, 0.006, -0.009), 0))
        put("mouthRollUpper", move((0.022, MOUTH[1] + 0.006, 0.25), (0.022, 0.013, 0.05), (0, -0.006, -0.008), 1))
        put("mouthShrugLower", move((0.02, MOUTH[1] - 0.012, 0.25), (0.032, 0.018, 0.04), (0, 0.006, 0.006), 0))
        put("mouthShrugLower", move((0.015, -0.115, 0.22), (0.03, 0.035, 0.06), (0, 0.010, 0.004), 0))
        put("mouthShrugUpper", move((0.018, MOUTH[1] + 0.012, 0.25), (0.034, 0.016, 0.04), (0, 0.009, 0.005), 1))
        put("mouthClose", move((0.015, MOUTH[1] - 0.01, 0.25), (0.034, 0.022, 0.05), (0, 0.040, 0.004), 0))
        put("mouthClose", move((0.015, MOUTH[1] + 0.01, 0.25), (0.034, 0.018, 0.05), (0, -0.018, 0.002), 1))
        x, center = q[:, :1], (0, MOUTH[1], 0.24)
        ring = blob(q, center, (0.055, 0.035, 0.06))[:, None] * soft
        wide = blob(q, center, (0.055, 0.040, 0.07))[:, None] * soft
        upper, lower = self.upper[:, None], 1 - self.upper[:, None]
        for name, by in (("mouthLeft", 0.026), ("mouthRight", -0.026)):
            out[INDEX[name]] = wide * (by, 0, -0.002) + wide * np.abs(x) * (0, -0.05, 0)
        narrow = lambda k: x * _unit(-k, 0, 0)  # noqa: E731
        out[INDEX["mouthPucker"]] = ring * (narrow(0.50) + _unit(0, 0, 0.024) - np.abs(x) * _unit(0, 0, 0.12))
        out[INDEX["mouthFunnel"]] = ring * (narrow(0.38) + _unit(0, 0, 0.018))
        out[INDEX["mouthFunnel"]] += ring * (upper * _unit(0, 0.012, 0.004) + lower * _unit(0, -0.014, 0.005))
        jaw = self.skin_weights[:, 2:3]
        out[INDEX["jawForward"]] = jaw * _unit(0, 0, 0.024)
        out[INDEX["jawOpen"]] = wide * narrow(0.10)
        out[INDEX["tongueOut"]] = self._tongue() + ring * (upper * _unit(0, 0.007, 0) + lower * _unit(0, -0.010, 0))
        for eye, (on, ways) in enumerate(self._lid_fields):
            for k in np.flatnonzero(self.lid_shares[:, eye].any(1)):
                out[k][on] += np.tensordot(self.lid_shares[k, eye], ways, 1)
        return np.where(
            np.abs(out).max(-1, keepdims=True) > 1e-5, out, 0
        )  # the bumps' far tails: less than a micrometre

    def _tongue(self) -> np.ndarray:
        """Out between the teeth, over the lower lip, its tip hanging."""
        x, _, z = self.rest.T
        s = np.clip((z - 0.122) / 0.1, 0, 1)
        lift = 0.025 * smooth(s, 0.15, 0.6) - 0.034 * smooth(s, 0.72, 1.0)
        thin = -0.25 * (self.rest[:, 1] + 0.076) * smooth(s, 0.3, 0.7)
        return np.stack([0.12 * x * s, lift + thin, 0.098 * s**1.4], 1) * (self.parts == mesh.TONGUE)[:, None]

    def express(self, e: Float[np.ndarray, "52"], points: Float[np.ndarray, "V 3"]) -> None:
        """Adds Σ e_k field_k to the points, in place."""
        for k in np.flatnonzero(e):
            self._sparse[k].add(e[k], points)

    # --------------------------------------------------------------------------------------------------- correctives

    def _correctives(self) -> list[tuple[str, str, np.ndarray]]:
        """Fields that grow with the product of two coefficients."""
        p, soft = self.at, self.soft[:, None]
        x = p[:, :1]
        ring = blob(p, (0, MOUTH[1], 0.24), (0.06, 0.04, 0.06))[:, None] * soft
        pairs = [("jawOpen", "mouthFunnel", ring * (x * _unit(-0.12, 0, 0) + _unit(0, 0, 0.006)))]
        for s, name in ((1, "Left"), (-1, "Right")):
            half = smooth(s * x, -0.012, 0.012)

            def bump(center, radius, by, s=s):
                return blob(p * (s, 1, 1), center, radius)[:, None] * soft * by * _unit(s, 1, 1)

            pairs += [
                ("jawOpen", f"mouthSmile{name}", half * ring * (x * _unit(-0.16, 0, 0) + _unit(0, 0, -0.005))),
                (f"mouthSmile{name}", f"cheekSquint{name}", bump((0.09, 0.06, 0.2), 0.03, (0.003, 0.004, 0.007))),
                (f"browDown{name}", f"eyeSquint{name}", bump((0.06, 0.17, 0.22), 0.025, (0, -0.005, 0.003))),
                (f"browDown{name}", "browInnerUp", bump((0.02, 0.20, 0.23), 0.022, (-0.004, 0.004, 0.006))),
                ("mouthPucker", f"mouthSmile{name}", bump((0.06, -0.045, 0.22), 0.03, (-0.008, -0.006, 0.004))),
            ]
        return [(a, b, np.where(np.abs(field).max(-1, keepdims=True) > 1e-5, field, 0)) for a, b, field in pairs]

    def correct(self, e: Float[np.ndarray, "52"], points: Float[np.ndarray, "V 3"]) -> None:
        """Adds Σ e_i e_j field_ij to the points, in place."""
        for a, b, field in self._pairs:
            if e[a] * e[b] != 0:
                field.add(e[a] * e[b], points)

    def _lip_pairs(self, t: Template):
        """Facing vertices of the lips' rims, and how the skin around gives way [2, n, pairs]."""
        low = np.flatnonzero((t.side < 0) & (t.parts == mesh.SKIN) & (self.rest[:, 1] < 0.05))
        high = np.flatnonzero((t.side > 0) & (t.parts == mesh.SKIN) & (self.rest[:, 1] < 0.05))
        low, high = low[np.argsort(self.rest[low, 0])], high[np.argsort(self.rest[high, 0])]
        on = np.flatnonzero(self.is_soft & (blob(self.at, MOUTH, (0.05, 0.02, 0.06)) > 0.05))
        across = np.exp(-0.5 * ((self.at[on, :1] - self.rest[low, 0]) / 0.007) ** 2)
        across /= across.sum(1, keepdims=True)
        fade = np.exp(-0.5 * ((self.at[on, 1] - mouth_line(self.at[on, 0])) / 0.012) ** 2) * self.soft[on]
        return low, high, on, across * fade[:, None], self._apart[on]

    def part_lips(self, points: Float[np.ndarray, "V 3"]) -> None:
        """Lips cannot pass through each other: where their rims would, both give way and swell, in place (posed points)."""
        low, high, on, spread, apart = self._lips
        for _ in range(3):  # each time what the smooth give has left
            overlap = np.clip(points[low, 1] - points[high, 1], 0, None)
            if overlap.max() > 1e-4:
                give = spread @ overlap
                points[on, 1] += 0.5 * give * apart
                points[on, 2] += 0.25 * give
