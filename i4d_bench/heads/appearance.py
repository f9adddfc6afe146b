"""What a head is painted with, shared by every head world: skin, lips, brows, hair, beard, irises, and the wrinkles that
come and go with the expression.

Everything is a function of the *average* head's vertex positions in canonical space (types.py), so any mesh whose average
is registered to it can be painted. Wrinkles grow with squares and products of coefficients, in the normals and in the
albedo: effects that no linear shape basis holds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from i4d_bench.heads.base import Surface
from i4d_bench.heads.expressions import INDEX

SKIN, EYE_LEFT, EYE_RIGHT, TEETH, TONGUE, INNER_MOUTH = range(6)
"""What a vertex is made of (`Paint` takes one label per vertex)."""


@dataclass(frozen=True)
class Appearance:
    """Seeded looks. Colours are linear RGB albedo, 0..1."""

    skin: np.ndarray
    lips: np.ndarray
    hair: np.ndarray
    iris: np.ndarray
    flush: float  # redness of cheeks and nose
    brow: tuple[float, float, float]  # thickness, arch (canonical), strength
    hairline: tuple[
        float, float, float
    ]  # height of the hairline in front, how far back it runs at the temples, strength
    beard: float
    freckles: float
    wrinkles: float  # how strongly this face creases
    waves: np.ndarray  # [K,5] directions, phase and amplitude of low-frequency skin variation

    @staticmethod
    def sample(rng: np.random.Generator) -> Appearance:
        melanin = rng.beta(1.2, 1.4)
        light, dark = np.array([0.83, 0.58, 0.46]), np.array([0.115, 0.055, 0.032])
        skin = np.exp((1 - melanin) * np.log(light) + melanin * np.log(dark)) * (1 + rng.normal(0, 0.05, 3))
        lips = skin * np.array([1.0, 0.52, 0.5]) * rng.uniform(0.75, 1.05) + np.array([0.05, 0.0, 0.005])
        hairs = [
            (0.012, 0.01, 0.009),
            (0.05, 0.025, 0.012),
            (0.14, 0.07, 0.03),
            (0.45, 0.29, 0.12),
            (0.30, 0.09, 0.03),
            (0.4, 0.39, 0.37),
        ]
        chance = np.array([1, 1, 0.9, 0.8, 0.5, 0.4]) * np.where(np.arange(6) < 2, 1, 1 - 0.85 * melanin)
        hair = np.array(hairs[rng.choice(6, p=chance / chance.sum())]) * rng.uniform(0.8, 1.2)
        irises = [(0.05, 0.022, 0.01), (0.12, 0.06, 0.02), (0.13, 0.2, 0.36), (0.12, 0.2, 0.1), (0.22, 0.26, 0.28)]
        chance = np.array([1.5, 1, 1, 0.6, 0.6]) * np.where(np.arange(5) < 2, 1, 1 - 0.9 * melanin)
        iris = np.array(irises[rng.choice(5, p=chance / chance.sum())]) * rng.uniform(0.8, 1.2)
        waves = np.concatenate(
            [rng.normal(0, 14, (8, 3)), rng.uniform(0, 2 * np.pi, (8, 1)), rng.normal(0, 0.022, (8, 1))], 1
        )
        return Appearance(
            skin=skin.clip(0.02, 0.95),
            lips=lips.clip(0.02, 0.9),
            hair=hair,
            iris=iris.clip(0, 1),
            flush=rng.uniform(0.0, 0.30) * (1 - 0.6 * melanin),
            brow=(rng.uniform(0.008, 0.016), rng.uniform(0.002, 0.014), rng.uniform(0.6, 0.95)),
            hairline=(
                rng.uniform(0.27, 0.325),
                rng.uniform(0.0, 0.06),
                float(rng.random() > 0.1) * rng.uniform(0.85, 1.0),
            ),
            beard=rng.uniform(0.25, 0.85) if rng.random() < 0.25 else 0.0,
            freckles=rng.uniform(0, 0.25) * (rng.random() < 0.3),
            wrinkles=rng.uniform(0.7, 1.4),
            waves=waves,
        )


def _soft(x, edge, width):
    """0 below the edge, 1 above it, smooth over `width`."""
    t = np.clip((x - edge) / width + 0.5, 0, 1)
    return t * t * (3 - 2 * t)


def _blob(p, center, radii):
    return np.exp(-0.5 * (((p - np.asarray(center)) / np.asarray(radii)) ** 2).sum(-1))


@dataclass(frozen=True)
class Regions:
    """Where an average head has what; each field [V] in 0..1. Made once per mesh."""

    points: np.ndarray
    labels: np.ndarray
    lips: np.ndarray
    cheeks: np.ndarray
    nose: np.ndarray
    beard: np.ndarray
    iris: np.ndarray  # radius from the gaze axis on the eyeballs, in iris radii
    lashes: np.ndarray
    tooth_gap: np.ndarray
    creases: dict[str, tuple[np.ndarray, np.ndarray]]  # name → (normal change [V,3], darkness [V]) at full strength

    @staticmethod
    def of(
        points: Float[np.ndarray, "V 3"],
        labels: UInt8[np.ndarray, " V"],
        eyes: Float[np.ndarray, "2 3"],
        iris: float,
        lashes: Float[np.ndarray, " V"] | None = None,
    ) -> Regions:
        """points: the average head, canonical. eyes: centres of left and right eyeball. iris: radius of the iris. lashes:
        how strongly lashes darken a vertex, 0..1, where the mesh knows the rims of its lids."""
        m = points * np.array([1, 1, 1])
        m[:, 0] = np.abs(m[:, 0])
        skin = labels == SKIN
        upper = (m[:, 1] + 0.052 - 0.004 * (m[:, 0] / 0.056) ** 2) > 0
        height = np.where(upper, 0.0195 + 0.003 * np.cos(np.clip(m[:, 0] / 0.016, -np.pi, np.pi)) * -1, 0.025)
        lips = 1 - _soft((m[:, 0] / 0.059) ** 2 + ((m[:, 1] + 0.052) / height) ** 2, 1.0, 0.35)
        lips = lips * _soft(m[:, 2], 0.2, 0.01) * skin
        radius = np.full(len(points), 9.0)
        for label, center in zip((EYE_LEFT, EYE_RIGHT), eyes, strict=True):
            on = labels == label
            radius[on] = np.linalg.norm((points[on] - center)[:, :2], axis=1) / iris + 9 * (points[on, 2] < center[2])
        angle = np.arctan2(points[:, 0], points[:, 2] - 0.185)
        gap = (labels == TEETH) * np.exp(-((np.abs((angle / 0.21 + 0.5) % 1 - 0.5) / 0.07) ** 2))
        jaw = (
            _soft(-m[:, 1], 0.03 - 0.8 * np.clip(0.2 - m[:, 2], 0, 0.2), 0.05)
            * _soft(m[:, 2], 0.02, 0.06)
            * _soft(m[:, 1], -0.2, 0.03)
        )
        mustache = _blob(m, (0.02, -0.012, 0.255), (0.035, 0.011, 0.03))
        return Regions(
            points=points,
            labels=labels,
            lips=lips,
            cheeks=_blob(m, (0.095, 0.03, 0.19), (0.04, 0.035, 0.06)) * skin,
            nose=_blob(m, (0, 0.04, 0.28), (0.03, 0.03, 0.03)) * skin,
            beard=np.maximum(jaw, mustache).clip(0, 1) * (1 - lips) * skin,
            iris=radius,
            lashes=np.zeros(len(points)) if lashes is None else lashes,
            tooth_gap=gap,
            creases=_creases(points, skin),
        )


def _creases(points: np.ndarray, skin: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Bump maps of the expression wrinkles: a field of lines, as change of normal and darkness in the grooves."""
    p, out = points, {}

    def add(name: str, phase: np.ndarray, direction: np.ndarray, mask: np.ndarray) -> None:
        bump = (-np.cos(phase) * mask)[:, None] * direction
        groove = mask * (0.5 + 0.5 * np.cos(phase + np.pi / 2)) ** 2
        out[name] = (bump * skin[:, None], groove * skin)

    lift = p[:, 1] + 0.35 * p[:, 0] ** 2
    add("forehead", 2 * np.pi * lift / 0.034, np.array([0, 1.0, 0]), _blob(p, (0, 0.265, 0.2), (0.075, 0.035, 0.08)))
    add(
        "glabella",
        2 * np.pi * p[:, 0] / 0.026 + np.pi / 2,
        np.array([1.0, 0, 0]),
        _blob(p, (0, 0.19, 0.24), (0.014, 0.03, 0.04)),
    )
    add(
        "chin",
        2 * np.pi * p[:, 1] / 0.024,
        np.array([0, 1.0, 0]),
        0.5 * _blob(p, (0, -0.135, 0.23), (0.03, 0.025, 0.05)),
    )
    for name, side in (("Left", 1), ("Right", -1)):
        x = side * p[:, 0]
        fan = np.arctan2(p[:, 1] - 0.13, x - 0.1)
        outward = np.stack([-side * np.sin(fan), np.cos(fan), np.zeros_like(fan)], -1)
        add(
            f"crow{name}",
            fan * 9,
            outward,
            0.7 * _blob(np.stack([x, p[:, 1], p[:, 2]], -1), (0.133, 0.13, 0.15), (0.018, 0.026, 0.05)),
        )
        # The nasolabial fold runs from beside the nose to beside the corner of the mouth.
        along = np.clip((0.035 - p[:, 1]) / 0.095, 0, 1)
        distance = x - (0.038 + 0.040 * along**0.8)
        mask = (
            np.exp(-((distance / 0.014) ** 2))
            * _soft(0.045 - p[:, 1], 0, 0.03)
            * _soft(p[:, 1], -0.065, 0.03)
            * _soft(p[:, 2], 0.14, 0.05)
        )
        add(f"fold{name}", distance / 0.014 * 1.6 - np.pi / 2, np.array([side, 0.25, 0]), mask)
    return out


def crease_strengths(e: Float[np.ndarray, "52"]) -> dict[str, float]:
    """How deep each wrinkle is: squares and products of the coefficients."""
    at = lambda name: float(e[INDEX[name]])  # noqa: E731
    out = {
        "forehead": (0.45 * at("browInnerUp") + 0.3 * (at("browOuterUpLeft") + at("browOuterUpRight"))) ** 2,
        "glabella": (0.5 * (at("browDownLeft") + at("browDownRight"))) ** 2
        + 0.5 * at("noseSneerLeft") * at("noseSneerRight"),
        "chin": at("mouthShrugLower") ** 2 + 0.6 * at("mouthFrownLeft") * at("mouthFrownRight"),
    }
    for side in ("Left", "Right"):
        squint, smile, sneer = at(f"eyeSquint{side}"), at(f"mouthSmile{side}"), at(f"noseSneer{side}")
        out[f"crow{side}"] = squint**2 + 0.9 * smile * at(f"cheekSquint{side}")
        out[f"fold{side}"] = smile**2 + 0.8 * sneer**2 + 0.3 * at(f"mouthUpperUp{side}") ** 2
    return out


def paint(regions: Regions, look: Appearance) -> tuple[Float[np.ndarray, "V 3"], Float[np.ndarray, " V"]]:
    """Albedo and specular strength of a resting face. Once per person."""
    p, labels = regions.points, regions.labels
    m = np.abs(p[:, 0])
    tone = 1 + (np.sin(p @ look.waves[:, :3].T + look.waves[:, 3]) * look.waves[:, 4]).sum(1)
    albedo = look.skin * tone[:, None]
    speckle = np.sin(p[:, 0] * 611) * np.sin(p[:, 1] * 577 + 1) * np.sin(p[:, 2] * 593 + 2)
    albedo = albedo * (1 - look.freckles * (speckle > 0.35) * (regions.cheeks + regions.nose).clip(0, 1))[:, None]
    red = look.flush * (regions.cheeks + 0.8 * regions.nose)[:, None]
    albedo = albedo * (1 - red * np.array([0.1, 0.75, 0.7]))
    mix = lambda a, b, w: a + (b - a) * np.clip(w, 0, 1)[:, None]  # noqa: E731
    albedo = mix(albedo, look.skin * 0.35 + look.hair * 0.65, look.beard * regions.beard)
    albedo = mix(albedo, look.lips, 0.9 * regions.lips)
    thickness, arch, strength = look.brow
    along = np.clip((m - 0.022) / 0.108, 0, 1)  # from the nose to the temple
    middle = 0.182 + arch * np.sin(np.pi * np.minimum(along / 1.3, 1)) + 0.006 * along
    brow = np.exp(-(np.abs((p[:, 1] - middle) / (thickness * (1.05 - 0.6 * along**2))) ** 2.5))
    brow *= _soft(m, 0.024, 0.018) * (1 - _soft(m, 0.122, 0.03)) * (p[:, 2] > 0.05)
    albedo = mix(albedo, look.hair, strength * brow)
    sockets = _blob(np.stack([m, p[:, 1], p[:, 2]], -1), (0.084, 0.115, 0.21), (0.03, 0.012, 0.05))
    albedo = albedo * (1 - 0.14 * sockets)[:, None]
    albedo = mix(
        albedo, look.hair * (1 + 0.16 * np.sin(p[:, 0] * 90 + 8 * np.sin(p[:, 1] * 25)))[:, None], hair_mask(p, look)
    )
    albedo = mix(albedo, 0.12 * look.skin + 0.1 * look.hair, 0.85 * regions.lashes)
    nostril = _blob(np.stack([m, p[:, 1], p[:, 2]], -1), (0.013, 0.014, 0.262), (0.006, 0.006, 0.01))
    albedo = albedo * (1 - 0.75 * nostril)[:, None]
    specular = 0.10 + 0.25 * regions.lips + 0.06 * regions.nose
    ring = regions.iris
    eye = mix(
        mix(np.full((len(p), 3), 0.78), look.iris * (1.25 - 0.5 * ring[:, None]), ring < 1),
        np.full(3, 0.01),
        ring < 0.42,
    )
    eye = eye * np.where((ring > 0.9) & (ring < 1.05), 0.5, 1.0)[:, None]
    for label, color, shine in (
        ((EYE_LEFT, EYE_RIGHT), eye, 0.12),
        ((TEETH,), np.array([0.78, 0.74, 0.66]) * (1 - 0.45 * regions.tooth_gap)[:, None], 0.4),
        ((TONGUE,), np.broadcast_to([0.55, 0.16, 0.15], p.shape), 0.3),
        ((INNER_MOUTH,), np.broadcast_to([0.10, 0.02, 0.02], p.shape), 0.0),
    ):
        on = np.isin(labels, label)
        albedo[on], specular[on] = color[on], shine
    return albedo.clip(0.005, 0.98), specular


def hair_mask(points: Float[np.ndarray, "V 3"], look: Appearance) -> Float[np.ndarray, " V"]:
    """Where hair grows, 0..1."""
    height, temples, strength = look.hairline
    m, y, z = np.abs(points[:, 0]), points[:, 1], points[:, 2]
    front = y - (height + temples * np.clip(m / 0.1, 0, 1) - 1.2 * np.clip(m - 0.1, 0, 0.2))
    side = (-z + 0.072) + 0.42 * (y - 0.19)
    grown = np.maximum(
        _soft(front, 0, 0.02) * _soft(y, 0.2, 0.04),
        _soft(side, 0, 0.03) * _soft(y, 0.03 - 0.5 * np.clip(-z, 0, 0.3), 0.05),
    )
    ear = _blob(np.stack([m, y, z], -1), (0.205, 0.105, -0.015), (0.03, 0.045, 0.035))
    return strength * grown * (1 - np.clip(2.2 * ear, 0, 1)) * _soft(y, -0.13, 0.04)


def surface(
    regions: Regions,
    look: Appearance,
    painted: tuple[np.ndarray, np.ndarray],
    expression: Float[np.ndarray, "52"],
    normals: Float[np.ndarray, "V 3"],
) -> Surface:
    """The resting paint with this expression's wrinkles and flush. `normals`: of the posed mesh, unit."""
    albedo, specular = painted
    bump, dark = np.zeros_like(normals), np.zeros(len(normals))
    for name, strength in crease_strengths(expression).items():
        if strength > 1e-3:
            amount = look.wrinkles * min(strength, 1.2)
            bump += amount * 0.55 * regions.creases[name][0]
            dark += amount * 0.24 * regions.creases[name][1]
    normals = normals + bump
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    puff, smile = expression[INDEX["cheekPuff"]], expression[[INDEX["mouthSmileLeft"], INDEX["mouthSmileRight"]]].mean()
    red = (0.25 * puff**2 + 0.15 * smile**2) * regions.cheeks
    pressed = (expression[[INDEX["mouthPressLeft"], INDEX["mouthPressRight"]]].mean() ** 2) * 0.3 * regions.lips
    tint = (1 - dark)[:, None] * (1 - red[:, None] * np.array([0.05, 0.6, 0.5])) * (1 + pressed[:, None])
    return Surface(normals, (albedo * tint).clip(0.005, 0.98), specular)
