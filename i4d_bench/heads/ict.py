"""The ICT world: ICT-FaceKit's scanned heads (MIT; github.com/ICT-VGL/ICT-FaceKit) painted like the embedded ones.

Needs the model as one .npz (`template`, `identity`, `expression`, `expression_names`, `faces_quad`; centimetres), which
`i4d-bench convert ict` makes (ict_objs.py). The jaw opens by blendshape alone: `pose()` reports the eyes only.
"""

from __future__ import annotations

import zipfile
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float

from i4d_bench.assets import ICT, find, missing
from i4d_bench.heads import appearance
from i4d_bench.heads.appearance import Appearance, Regions
from i4d_bench.heads.base import REGIONS, HeadIdentity, HeadWorld, Surface
from i4d_bench.heads.expressions import INDEX, NAMES
from i4d_bench.heads.posing import pose, skin, vertex_normals
from i4d_bench.types import UserError

CENTER, UNIT = np.array([0, -1.5, 1.5]), 38.0
"""Canonical = (ICT in cm − CENTER) / UNIT."""
# Vertex ranges of the parts that are drawn (ICT-FaceKit's README); lashes and the eyes' wet rims are left out.
FACE, MOUTH_SOCKET, GUMS, TEETH = slice(0, 11248), slice(11248, 13294), slice(14062, 17039), slice(17039, 21451)
EYES = slice(21451, 23021), slice(23021, 24591)
DRAWN = 24591
LID, IRIS = 0.002, 0.0165
# fmt: off
IBUG = np.array([
    1225, 1888, 1052, 367, 1719, 1722, 2199, 1447, 966, 3661, 4390, 3927, 3924, 2608, 3272, 4088, 3443, 268, 493,
    1914, 2044, 1401, 3615, 4240, 4114, 2734, 2509, 978, 4527, 4942, 4857, 1140, 2075, 1147, 4269, 3360, 1507,
    1542, 1537, 1528, 1518, 1511, 3742, 3751, 3756, 3721, 3725, 3732, 5708, 5695, 2081, 0, 4275, 6200, 6213, 6346,
    6461, 5518, 5957, 5841, 5702, 5711, 5533, 6216, 6207, 6470, 5517, 5966
])
# fmt: on
"""ICT-FaceKit's vertices of the 68 landmarks."""


EXPECTED = {range(36, 42): (-3.3, 3.4, 9.2), range(42, 48): (3.3, 3.4, 9.2), range(48, 60): (0, -3.4, 11.2)}
"""Where the neutral mesh has its eyes and mouth (landmarks' means), cm."""


def check(template: Float[np.ndarray, "V 3"]) -> None:
    """Raises ValueError when it is not the neutral mesh (cm) whose parts and landmarks are known here."""
    if len(template) < DRAWN:
        raise ValueError(f"its mesh has {len(template)} vertices, ICT-FaceKit's has 26719")
    for points, expected in EXPECTED.items():
        if np.abs(template[IBUG[list(points)]].mean(0) - expected).max() > 1:
            raise ValueError(
                "its vertices are in another order, as in early versions of ICT-FaceKit: take the current one"
            )


class IctWorld(HeadWorld):
    """See `i4d_bench.heads.base.HeadWorld`. Raises UserError when the file is missing or is not ICT-FaceKit's."""

    name = "ict"

    def __init__(self, path: str | Path | None = None) -> None:
        path = Path(path) if path else find(ICT)
        if path is None or not path.is_file():
            raise UserError(
                f"the ict world: {missing(ICT)}" if path is None else f"there is no ICT-FaceKit file {path}"
            )
        try:
            with np.load(path, allow_pickle=False) as data:
                check(data["template"])
                self._rest = (data["template"][:DRAWN] - CENTER) / UNIT
                self._identity = data["identity"][:, :DRAWN].astype(np.float32) / UNIT
                expression = data["expression"][:, :DRAWN].astype(np.float32) / UNIT
                names = [str(n) for n in data["expression_names"]]
                quads = data["faces_quad"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as e:
            raise UserError(f"{path} is not ICT-FaceKit's file as .npz ({e})") from e
        quads = quads[(quads < DRAWN).all(1)]
        self.faces = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]]).astype(np.int32)
        self.landmarks = IBUG
        self._expression = self._arkit(expression, names)
        self.skin_weights = self._weights()
        m = np.abs(self._rest)
        near = np.hypot(m[:, 0] - 0.084, self._rest[:, 1] - 0.135) < 0.05
        self._lids = np.flatnonzero(near & (np.arange(DRAWN) < FACE.stop))

    def _arkit(self, expression: np.ndarray, names: list[str]) -> np.ndarray:
        """ICT's 57 offsets as the 52 ARKit names'."""
        out = np.zeros((len(NAMES), DRAWN, 3), np.float32)
        for k, name in enumerate(names):
            base, _, side = name.partition("_")
            full = base + {"L": "Left", "R": "Right", "": ""}[side]
            target = full if full in INDEX else base  # browInnerUp and cheekPuff are one coefficient for both sides
            if target in INDEX:
                out[INDEX[target]] += expression[k]
        # ICT has no tongue shape and one mesh for tongue and gums: the middle of it is pushed forward.
        middle = np.exp(-0.5 * (((self._rest[GUMS] - [0, -0.062, 0.175]) / [0.022, 0.016, 0.036]) ** 2).sum(1))
        out[INDEX["tongueOut"], GUMS] = middle[:, None] * np.array([0, -0.006, 0.075])
        return out

    def _weights(self) -> np.ndarray:
        y = self._rest[:, 1]
        neck = np.clip((y + 0.36) / 0.18, 0, 1)
        w = np.stack([1 - neck, neck, 0 * y, 0 * y, 0 * y], 1)
        for part, joint in zip(EYES, (3, 4), strict=True):
            w[part] = np.eye(5)[joint]
        return w

    @cached_property
    def regions(self) -> Regions:
        labels = np.full(DRAWN, appearance.SKIN, np.uint8)
        labels[MOUTH_SOCKET.start : GUMS.start], labels[GUMS] = appearance.INNER_MOUTH, appearance.TONGUE
        labels[TEETH], labels[EYES[0]], labels[EYES[1]] = appearance.TEETH, appearance.EYE_LEFT, appearance.EYE_RIGHT
        return Regions.of(self._rest, labels, np.stack([self._rest[e].mean(0) for e in EYES]), IRIS)

    @cached_property
    def face_regions(self) -> np.ndarray:
        p, front = np.abs(self._rest), self._rest[:, 2] > 0.1
        y, index = self._rest[:, 1], np.arange(DRAWN)
        eyes = (((p[:, 0] - 0.084) / 0.05) ** 2 + ((y - 0.14) / 0.034) ** 2 < 1) & front & (index < FACE.stop)
        mouth = ((p[:, 0] / 0.08) ** 2 + ((y + 0.053) / 0.045) ** 2 < 1) & front & (index < FACE.stop)
        label = np.where(eyes | (index >= EYES[0].start), REGIONS.index("eyes"), REGIONS.index("head"))
        label = np.where(mouth | ((index >= MOUTH_SOCKET.start) & (index < TEETH.stop)), REGIONS.index("mouth"), label)
        corners = label[self.faces]
        return np.where((corners == corners[:, :1]).all(1), corners[:, 0], REGIONS.index("head")).astype(np.uint8)

    def identity(self, seed: int) -> HeadIdentity:
        rng = np.random.default_rng([seed, 11])
        shape = 0.8 * rng.normal(0, 1, len(self._identity)).clip(-2, 2)
        return HeadIdentity(seed, shape, Appearance.sample(np.random.default_rng([seed, 12])))

    def joints(self, identity: HeadIdentity) -> Float[np.ndarray, "5 3"]:
        neutral = self._person(identity)[0]
        return np.array([[0, -0.45, -0.05], [0, -0.2, -0.05], [0, 0.05, 0], *(neutral[e].mean(0) for e in EYES)])

    def pose(self, expression: Float[np.ndarray, "52"]) -> Float[np.ndarray, "15"]:
        return pose(expression, jaw=False)

    @lru_cache(maxsize=64)  # noqa: B019  (one world lives as long as the process)
    def _person(self, identity: HeadIdentity) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Resting head, hair volume, and how strongly this person makes each expression."""
        rng = np.random.default_rng([identity.seed, 13])
        neutral = self._rest + np.tensordot(identity.shape.astype(np.float32), self._identity, 1)
        hair = appearance.hair_mask(self._rest, identity.appearance) * (np.arange(DRAWN) < FACE.stop)
        thick = rng.uniform(0.0, 0.03) * (0.7 + 0.3 * np.sin(self._rest @ rng.normal(0, 18, 3) + rng.uniform(0, 6)))
        volume = (hair * thick)[:, None] * vertex_normals(neutral, self.faces)
        return neutral, volume, rng.uniform(0.85, 1.15, len(NAMES))

    def vertices(self, identity: HeadIdentity, expression, linear: bool = False) -> Float[np.ndarray, "V 3"]:
        neutral, volume, amplitude = self._person(identity)
        joints, angles = self.joints(identity), self.pose(expression)
        if linear:
            return skin(neutral + self._express(expression), joints, angles, self.skin_weights)
        moved = neutral + volume + self._express(self._compress(expression * amplitude))
        for joint, part in zip((3, 4), EYES, strict=True):  # lids slide around the eyeball instead of through it
            radius = np.linalg.norm(neutral[part] - joints[joint], axis=1).mean() + LID
            d = moved[self._lids] - joints[joint]
            r = np.linalg.norm(d, axis=1, keepdims=True)
            moved[self._lids] = joints[joint] + d * np.maximum(r, radius) / r
        return skin(moved, joints, angles, self.skin_weights)

    def _express(self, e: np.ndarray) -> np.ndarray:
        on = np.flatnonzero(np.abs(e) > 1e-4)
        return np.tensordot(e[on].astype(np.float32), self._expression[on], 1)

    def _compress(self, e: np.ndarray) -> np.ndarray:
        """Expressions that meet hold each other back: an open jaw takes from smile and stretch, a pucker from the jaw."""
        out, jaw = e.copy(), e[INDEX["jawOpen"]]
        for name in ("mouthSmileLeft", "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight"):
            out[INDEX[name]] *= 1 - 0.35 * jaw
        out[INDEX["jawOpen"]] *= 1 - 0.3 * max(e[INDEX["mouthPucker"]], e[INDEX["mouthFunnel"]]) ** 2
        for side in ("Left", "Right"):
            out[INDEX[f"eyeSquint{side}"]] *= 1 - 0.7 * e[INDEX[f"eyeBlink{side}"]] ** 2
        return out

    @lru_cache(maxsize=64)  # noqa: B019
    def _paint(self, identity: HeadIdentity) -> tuple[np.ndarray, np.ndarray]:
        return appearance.paint(self.regions, identity.appearance)

    def surface(self, identity: HeadIdentity, expression, vertices) -> Surface:
        normals = vertex_normals(vertices, self.faces)
        return appearance.surface(self.regions, identity.appearance, self._paint(identity), expression, normals)
