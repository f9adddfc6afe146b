"""The fields that bend the procedural template: identity, the 52 expressions, the closed mouth, joints and their weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, UInt8

from i4d_bench.heads import procedural_mesh as mesh
from i4d_bench.heads.expressions import INDEX, NAMES
from i4d_bench.heads.procedural_mesh import ALMOND, CAVITY, EYE, EYE_RADIUS, MOUTH, SLIT

LID = 0.0035
"""Least distance of a lid from the eyeball."""


def smooth(x, low, high):
    """0 below low, 1 above high."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def blob(p, center, radius):
    """A bump of height 1 at `center`."""
    return np.exp(-0.5 * (((p - np.asarray(center)) / np.asarray(radius)) ** 2).sum(-1))


class Shapes:
    """Displacement fields on the template's vertices, in canonical units."""

    def __init__(self, rest: Float[np.ndarray, "V 3"], parts: UInt8[np.ndarray, "V"]) -> None:
        self.rest, self.parts = rest, parts
        p, self.is_skin = rest, parts == mesh.SKIN
        above = p[:, 1] - mesh.mouth_line(p[:, 0])
        # Which lip a vertex belongs to: sharp across the slit, blended beyond its corners.
        width = 0.0012 + 0.10 * np.clip(np.abs(p[:, 0]) - 0.8 * SLIT[0], 0, 0.2) + 0.4 * np.clip(0.10 - p[:, 2], 0, 0.2)
        self.upper = smooth(above / width, -1, 1)
        center, radii = CAVITY
        pocket = (((p - center) / (radii + 0.006)) ** 2).sum(1) < 1
        slit = (np.abs(above) < SLIT[1] + 0.003) & (np.abs(p[:, 0]) < SLIT[0]) & (p[:, 2] > 0.12) & (p[:, 2] < 0.225)
        self.inner_mouth = self.is_skin & (pocket | slit)
        self.closing = self._closing(above)
        self.joints = np.array([[0, -0.45, -0.05], [0, -0.2, -0.05], [0, 0.05, 0.0], EYE, EYE * (-1, 1, 1)])
        self.skin_weights = self._weights()
        self.identity, self.identity_joints = self._identities()
        self.lids = [self._lid(side) for side in (1, -1)]
        self.expression = self._expressions()
        self._pairs = self._correctives()

    def _closing(self, above: np.ndarray) -> np.ndarray:
        """Brings the lips of the open template together."""
        p = self.rest
        gap = SLIT[1] * np.sqrt(np.clip(1 - (p[:, 0] / SLIT[0]) ** 2, 0, 1))
        near = np.exp(-((np.clip(np.abs(above) - gap, 0, 1) / 0.016) ** 2)) * smooth(p[:, 2], 0.13, 0.2)
        # A little further than the slit is wide, for contouring rounds its rim off; but never past the other lip.
        shift = np.minimum(1.35 * gap * near, np.abs(above) - 0.0004)
        lips = np.zeros_like(p)
        lips[:, 1] = np.where(above > 0, -1, 1) * np.maximum(shift, 0) * self.is_skin
        return lips

    def _weights(self) -> np.ndarray:
        p = self.rest
        jaw = (
            (1 - self.upper)
            * smooth(p[:, 2], -0.01, 0.10)
            * smooth(p[:, 1] + 0.35 * np.clip(p[:, 2] - 0.1, 0, 0.2), -0.22, -0.14)
        )
        jaw = np.where(
            self.parts == mesh.TEETH_UPPER, 0, np.where(np.isin(self.parts, (mesh.TEETH_LOWER, mesh.TONGUE)), 1, jaw)
        )
        neck = smooth(p[:, 1], -0.36, -0.18) * (1 - jaw)
        w = np.stack([1 - jaw - neck, neck, jaw, np.zeros(len(p)), np.zeros(len(p))], 1)
        for part, joint in ((mesh.EYE_LEFT, 3), (mesh.EYE_RIGHT, 4)):
            w[self.parts == part] = np.eye(5)[joint]
        return w

    def _identities(self) -> tuple[np.ndarray, np.ndarray]:
        """[K,V,3] and its value at the joints [K,5,3]. Eyeballs move as rigid bodies; teeth and tongue with the mouth."""
        anchor = self.rest.copy()
        anchor[self.parts == mesh.EYE_LEFT], anchor[self.parts == mesh.EYE_RIGHT] = EYE, EYE * (-1, 1, 1)
        anchor[np.isin(self.parts, (mesh.TEETH_UPPER, mesh.TEETH_LOWER, mesh.TONGUE))] = CAVITY[0]
        return (np.stack([f(q) for f in IDENTITY]) for q in (anchor, self.joints))

    def _lid(self, side: int) -> dict[str, np.ndarray]:
        """Weights of the lids of one eye: how far each vertex follows the upper and the lower rim."""
        x, y, z = (self.rest * (side, 1, 1)).T
        u = np.clip((x - EYE[0]) / ALMOND[0], -1.25, 1.25)
        height = ALMOND[1] * np.clip(1 - u**2, 0, 1) ** 0.8
        center = EYE[1] + 0.004 * u
        across = smooth(1.25 - np.abs(u), 0, 0.4) * smooth(z, 0.15, 0.19) * self.is_skin
        over, under = y - center - height, center - height - y
        return {
            "upper": across * (y > center) * (1 - smooth(over, 0.002, 0.034)),
            "lower": across * (y <= center) * (1 - smooth(under, 0.002, 0.024)),
            "height": height,
        }

    def _blink(self, side: int, upper: float, lower: float) -> np.ndarray:
        """Moves the rims towards each other by shares of the opening, around the eyeball."""
        lid = self.lids[0 if side > 0 else 1]
        move = np.zeros_like(self.rest)
        move[:, 1] = 2 * lid["height"] * (lower * lid["lower"] - upper * lid["upper"])
        moved = self.rest + move
        return _push(moved, EYE * (side, 1, 1), (lid["upper"] + lid["lower"]) > 0.02, 1.0) - self.rest

    def _expressions(self) -> np.ndarray:
        """[52,V,3]."""
        out = np.zeros((len(NAMES), *self.rest.shape))

        def put(name: str, field: Callable[[np.ndarray, int], np.ndarray]) -> None:
            """Adds a field made for the left side; a name without a side gets both."""
            for full, side in ((name, 0), (f"{name}Left", 1), (f"{name}Right", -1)):
                if full in INDEX:
                    out[INDEX[full]] += sum(
                        field(self.rest * (s, 1, 1), s) * (s, 1, 1) for s in ((side,) if side else (1, -1))
                    )

        upper, lower = self.upper[:, None] * self.is_skin[:, None], (1 - self.upper)[:, None] * self.is_skin[:, None]
        left = lambda q: smooth(q[:, 0], -0.012, 0.012)[:, None]  # noqa: E731
        corner = (SLIT[0], MOUTH[1], 0.222)

        def move(center, radius, by):
            return lambda q, s: blob(q, center, radius)[:, None] * by * self.is_skin[:, None]

        put("browDown", move((0.055, 0.19, 0.22), (0.04, 0.026, 0.05), (-0.006, -0.020, 0.003)))
        put("browOuterUp", move((0.1, 0.195, 0.2), (0.035, 0.032, 0.06), (0, 0.022, 0)))
        put("browInnerUp", move((0.03, 0.195, 0.23), (0.026, 0.034, 0.06), (0, 0.017, 0)))
        put("cheekPuff", move((0.085, -0.035, 0.19), (0.034, 0.038, 0.05), (0.018, 0, 0.013)))
        put("cheekSquint", move((0.085, 0.078, 0.2), (0.034, 0.02, 0.05), (0, 0.009, 0.004)))
        put("noseSneer", move((0.028, 0.035, 0.25), (0.02, 0.024, 0.035), (0.003, 0.011, 0.002)))
        put("noseSneer", lambda q, s: move((0.03, -0.035, 0.25), (0.02, 0.02, 0.04), (0, 0.008, 0.0))(q, s) * upper)
        put("mouthSmile", move(corner, (0.03, 0.026, 0.05), (0.017, 0.021, -0.012)))
        put("mouthSmile", move((0.085, 0.03, 0.2), (0.03, 0.03, 0.05), (0.002, 0.008, 0.006)))
        put("mouthFrown", move(corner, (0.026, 0.03, 0.05), (0.002, -0.022, -0.004)))
        put("mouthStretch", move(corner, (0.028, 0.03, 0.05), (0.019, -0.006, -0.012)))
        put("mouthDimple", move(corner, (0.02, 0.02, 0.04), (0.010, 0.002, -0.014)))
        put(
            "mouthUpperUp",
            lambda q, s: move((0.026, -0.035, 0.25), (0.024, 0.024, 0.05), (0, 0.016, 0.001))(q, s) * upper,
        )
        put(
            "mouthLowerDown",
            lambda q, s: move((0.026, -0.07, 0.25), (0.026, 0.022, 0.05), (0, -0.019, 0.001))(q, s) * lower,
        )
        press = lambda q, s: blob(q, (0.02, MOUTH[1], 0.25), (0.035, 0.016, 0.04))[:, None] * left(q)  # noqa: E731
        put("mouthPress", lambda q, s: press(q, s) * (upper * (0, -0.006, -0.007) + lower * (0, 0.007, -0.007)))
        center = (0, MOUTH[1], 0.24)
        both = lambda by, radius: (blob(self.rest, center, radius)[:, None] * by) * self.is_skin[:, None]  # noqa: E731
        out[INDEX["mouthLeft"]] = both((0.026, 0, -0.002), (0.05, 0.035, 0.06))
        out[INDEX["mouthRight"]] = both((-0.026, 0, -0.002), (0.05, 0.035, 0.06))
        x = self.rest[:, :1]
        ring = blob(self.rest, center, (0.055, 0.035, 0.06))[:, None] * self.is_skin[:, None]
        out[INDEX["mouthPucker"]] = ring * np.concatenate([-0.50 * x, 0 * x, 0.022 - 0.10 * np.abs(x)], 1)
        out[INDEX["mouthPucker"]] += ring * (upper * (0, 0.003, 0) + lower * (0, -0.003, 0))
        out[INDEX["mouthFunnel"]] = ring * np.concatenate([-0.38 * x, 0 * x, 0.016 + 0 * x], 1)
        out[INDEX["mouthFunnel"]] += ring * (upper * (0, 0.010, 0.003) + lower * (0, -0.013, 0.004))
        thin = blob(self.rest, (0, MOUTH[1], 0.25), (0.045, 0.018, 0.04))[:, None]
        out[INDEX["mouthRollLower"]] = thin * lower * (0, 0.008, -0.014)
        out[INDEX["mouthRollUpper"]] = thin * upper * (0, -0.006, -0.013)
        out[INDEX["mouthClose"]] = thin * (lower * (0, 0.045, 0.006) + upper * (0, -0.012, 0))
        chin = blob(self.rest, (0, -0.11, 0.22), (0.05, 0.04, 0.06))[:, None] * self.is_skin[:, None]
        out[INDEX["mouthShrugLower"]] = lower * (chin * (0, 0.014, 0.004) + thin * (0, 0.008, 0.006))
        out[INDEX["mouthShrugUpper"]] = upper * thin * (0, 0.010, 0.005)
        jaw = self.skin_weights[:, 2:3]
        out[INDEX["jawForward"]] = jaw * (0, 0, 0.024)
        out[INDEX["jawOpen"]] = (
            blob(self.rest, (0, MOUTH[1], 0.235), (0.09, 0.03, 0.06))[:, None]
            * np.concatenate([-0.10 * x, 0 * x, 0 * x], 1)
            * self.is_skin[:, None]
        )
        tongue = (self.parts == mesh.TONGUE)[:, None]
        tip = smooth(self.rest[:, 2:], 0.14, 0.21)
        out[INDEX["tongueOut"]] = tongue * tip * np.concatenate([0.15 * x, -0.006 + 0 * x, 0.075 + 0 * x], 1)
        for side, name in ((1, "Left"), (-1, "Right")):
            lid = self.lids[0 if side > 0 else 1]
            out[INDEX[f"eyeBlink{name}"]] = self._blink(side, 0.86, 0.16)
            out[INDEX[f"eyeSquint{name}"]] = self._blink(side, 0.22, 0.30)
            out[INDEX[f"eyeWide{name}"]][:, 1] = 0.0065 * lid["upper"] - 0.003 * lid["lower"]
            out[INDEX[f"eyeLookDown{name}"]] = self._blink(side, 0.34, -0.06)
            out[INDEX[f"eyeLookUp{name}"]][:, 1] = 0.005 * lid["upper"] + 0.002 * lid["lower"]
        return out

    def _correctives(self) -> list[tuple[str, str, np.ndarray]]:
        """Fields that grow with the product of two coefficients."""
        p, skin = self.rest, self.is_skin[:, None]
        x = p[:, :1]
        ring = blob(p, (0, MOUTH[1], 0.24), (0.06, 0.04, 0.06))[:, None] * skin
        pull = ring * np.concatenate([-0.16 * x, 0 * x, -0.004 + 0 * x], 1)
        pairs = [("jawOpen", "mouthFunnel", ring * np.concatenate([-0.12 * x, 0 * x, 0.006 + 0 * x], 1))]
        for s, name in ((1, "Left"), (-1, "Right")):
            half = smooth(s * x, -0.012, 0.012)
            pairs.append(("jawOpen", f"mouthSmile{name}", half * pull))
            pairs.append(
                (
                    f"mouthSmile{name}",
                    f"cheekSquint{name}",
                    blob(p, (s * 0.09, 0.06, 0.2), 0.03)[:, None] * skin * (s * 0.003, 0.004, 0.006),
                )
            )
            pairs.append(
                (
                    f"browDown{name}",
                    f"eyeSquint{name}",
                    blob(p, (s * 0.06, 0.17, 0.22), 0.025)[:, None] * skin * (0, -0.005, 0.003),
                )
            )
        return pairs

    def express(self, e: Float[np.ndarray, "52"]) -> np.ndarray:
        """Σ e_k field_k, over the coefficients that are not zero."""
        on = np.flatnonzero(np.abs(e) > 1e-4)
        return np.tensordot(e[on], self.expression[on], 1)

    def corrective(self, e: Float[np.ndarray, "52"]) -> np.ndarray | float:
        """Σ e_i e_j field_ij."""
        return sum(e[INDEX[a]] * e[INDEX[b]] * field for a, b, field in self._pairs if e[INDEX[a]] * e[INDEX[b]] > 1e-4)


def _push(points: np.ndarray, center: np.ndarray, who: np.ndarray, strength: float) -> np.ndarray:
    """Moves those of `who` that come nearer to the eyeball than LID out along the radius."""
    out = points.copy()
    d = points[who] - center
    r = np.linalg.norm(d, axis=1, keepdims=True)
    out[who] = center + d * (1 + strength * (np.maximum(r, EYE_RADIUS + LID) / r - 1))
    return out


def push_off_eyeball(points: np.ndarray, shapes: Shapes, joints: np.ndarray, e: np.ndarray) -> np.ndarray:
    """Lids slide around the eyeball instead of through it: the arc that a linear basis cuts short."""
    for lid, joint in zip(shapes.lids, (3, 4), strict=True):
        points = _push(points, joints[joint], (lid["upper"] + lid["lower"]) > 0.02, 1.0)
    return points


def _sym(center, radius, by):
    """A field that is the same on both sides: `by` is given for the left."""

    def field(p):
        s = np.where(p[:, :1] < 0, -1.0, 1.0)
        q = p * np.concatenate([s, 1 + 0 * s, 1 + 0 * s], 1)
        return blob(q, center, radius)[:, None] * np.asarray(by) * np.concatenate([s, 1 + 0 * s, 1 + 0 * s], 1)

    return field


def _mid(center, radius, by):
    return lambda p: blob(p, center, radius)[:, None] * np.asarray(by)


def _scale(axis, amount, low=-9.0, high=-8.0, along=1, about=0.0):
    """Stretches `axis`, fading in along another axis from low to high (downwards where high < low)."""

    def field(p):
        out = np.zeros_like(p)
        out[:, axis] = amount * (p[:, axis] - about) * smooth(p[:, along], low, high)
        return out

    return field


def _eye_size(p):
    out = np.zeros_like(p)
    for s in (1, -1):
        d = p - EYE * (s, 1, 1)
        out += blob(p, EYE * (s, 1, 1) + (0, 0, 0.03), (0.03, 0.022, 0.03))[:, None] * d * (0.10, 0.16, 0)
    return out


IDENTITY: tuple[Callable[[np.ndarray], np.ndarray], ...] = (
    _scale(0, 0.045),  # head width
    _scale(1, 0.035, about=0.1),  # head height
    _scale(2, 0.035),  # head depth
    _scale(0, 0.05, 0.0, 0.25),  # wider skull
    _scale(0, 0.06, 0.05, -0.15),  # jaw width
    _scale(1, 0.06, 0.1, -0.1, about=0.1),  # lower face length
    _mid((0, 0.30, 0.18), (0.12, 0.07, 0.1), (0, 0, 0.012)),  # forehead
    _sym((0.06, 0.185, 0.225), (0.06, 0.02, 0.05), (0, 0, 0.007)),  # brow ridge
    _sym((0.084, 0.14, 0.2), (0.04, 0.035, 0.06), (0.005, 0, 0)),  # eyes apart
    _sym((0.084, 0.14, 0.2), (0.045, 0.035, 0.06), (0, 0.005, 0)),  # eyes higher
    _sym((0.115, 0.138, 0.2), (0.018, 0.018, 0.05), (0, 0.004, 0)),  # tilt of the eyes
    _eye_size,
    _mid((0, 0.045, 0.27), (0.03, 0.03, 0.04), (0, 0, 0.013)),  # nose forward
    _mid((0, 0.03, 0.26), (0.045, 0.03, 0.05), (0, -0.009, 0)),  # nose length
    _sym((0.024, 0.03, 0.255), (0.02, 0.022, 0.035), (0.006, 0, 0)),  # nose width
    _mid((0, 0.11, 0.25), (0.018, 0.035, 0.03), (0, 0, 0.007)),  # nose bridge
    _mid((0, 0.04, 0.285), (0.02, 0.018, 0.025), (0, 0.007, 0.002)),  # tip up
    _sym((0.1, 0.05, 0.18), (0.04, 0.035, 0.05), (0.008, 0, 0.007)),  # cheekbones
    _sym((0.095, -0.02, 0.16), (0.04, 0.045, 0.06), (0.011, 0, 0.005)),  # cheeks, full or hollow
    _mid((0, -0.05, 0.24), (0.05, 0.03, 0.04), (0, 0, 0.007)),  # mouth forward
    _mid((0, -0.055, 0.235), (0.07, 0.04, 0.06), (0, 0.007, 0)),  # mouth height
    _sym((0.05, -0.052, 0.225), (0.025, 0.025, 0.05), (0.006, 0, -0.002)),  # mouth width
    _mid((0, -0.034, 0.255), (0.035, 0.010, 0.03), (0, 0.004, 0.005)),  # upper lip
    _mid((0, -0.072, 0.25), (0.033, 0.011, 0.03), (0, -0.005, 0.006)),  # lower lip
    _mid((0, -0.15, 0.2), (0.04, 0.035, 0.05), (0, 0, 0.013)),  # chin forward
    _sym((0.035, -0.155, 0.19), (0.03, 0.03, 0.05), (0.009, 0, 0)),  # chin width
    _sym((0.13, -0.06, 0.03), (0.05, 0.05, 0.07), (0.010, -0.005, 0)),  # corner of the jaw
    _sym((0.205, 0.105, -0.02), (0.025, 0.05, 0.04), (0.009, 0, 0)),  # ears out
    _scale(0, 0.12, -0.12, -0.3),  # neck
    _mid((0, 0.04, 0.27), (0.035, 0.05, 0.05), (0.004, 0, 0)),  # bent nose
    _mid((0, -0.06, 0.23), (0.06, 0.04, 0.06), (0.004, 0.001, 0)),  # mouth off the middle
    _mid((0.08, 0.19, 0.2), (0.04, 0.025, 0.05), (0, 0.004, 0)),  # one brow higher
)  # fmt: skip
