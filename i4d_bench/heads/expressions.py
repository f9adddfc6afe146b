"""The field's 52 expression coefficients (ARKit names, MediaPipe's order, tongueOut last) and how worlds draw them.

An expression is made of *actions* (a smile, a raised brow, a wink), each a few coefficients that faces move together.
Held-out test expressions are pairs of actions from different parts of the face that training never shows together.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import numpy as np
from jaxtyping import Float

NAMES = (
    "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff",
    "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight",
    "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight",
    "eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen", "jawRight",
    "mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight", "mouthFunnel",
    "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight", "mouthPucker",
    "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft",
    "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight",
    "noseSneerLeft", "noseSneerRight", "tongueOut",
)  # fmt: skip
INDEX = {name: i for i, name in enumerate(NAMES)}

Kind = Literal["neutral", "train", "test", "extreme"]

# part → action → coefficients at full strength; a name without a side moves both.
ACTIONS: dict[str, dict[str, dict[str, float]]] = {
    "mouth": {
        "rest": {},
        "smile": {"mouthSmile": 0.9, "cheekSquint": 0.5},
        "laugh": {"mouthSmile": 0.9, "jawOpen": 0.6, "mouthUpperUp": 0.5, "mouthLowerDown": 0.5, "cheekSquint": 0.7},
        "open": {"jawOpen": 0.95},
        "gasp": {"jawOpen": 0.7, "mouthStretch": 0.4, "mouthLowerDown": 0.4},
        "pucker": {"mouthPucker": 0.95},
        "oh": {"mouthFunnel": 0.9, "jawOpen": 0.4},
        "frown": {"mouthFrown": 0.9, "mouthShrugLower": 0.6},
        "teeth": {"mouthUpperUp": 0.8, "mouthLowerDown": 0.9, "mouthStretch": 0.6},
        "press": {"mouthPress": 0.9, "mouthRollLower": 0.6, "mouthRollUpper": 0.6},
        "puff": {"cheekPuff": 0.95, "mouthPress": 0.4},
        "left": {"mouthLeft": 0.9, "jawLeft": 0.5},
        "right": {"mouthRight": 0.9, "jawRight": 0.5},
        "tongue": {"tongueOut": 0.9, "jawOpen": 0.6},
        "chin": {"jawForward": 0.9, "mouthShrugLower": 0.7, "mouthShrugUpper": 0.4},
        "speak": {"jawOpen": 0.3, "mouthLowerDown": 0.5, "mouthDimple": 0.5},
        "lisp": {"jawOpen": 0.25, "mouthClose": 0.25, "mouthFunnel": 0.3},
    },
    "eyes": {
        "rest": {},
        "blink": {"eyeBlink": 1.0},
        "half": {"eyeBlink": 0.5},
        "squint": {"eyeSquint": 0.9, "cheekSquint": 0.6},
        "wide": {"eyeWide": 0.95},
        "up": {"eyeLookUp": 0.9},
        "down": {"eyeLookDown": 0.9, "eyeBlink": 0.2},
        "look left": {"eyeLookOutLeft": 0.9, "eyeLookInRight": 0.9},
        "look right": {"eyeLookInLeft": 0.9, "eyeLookOutRight": 0.9},
    },
    "brows": {
        "rest": {},
        "raise": {"browInnerUp": 0.9, "browOuterUp": 0.9},
        "worry": {"browInnerUp": 0.95},
        "lower": {"browDown": 0.95},
        "sneer": {"noseSneer": 0.95, "browDown": 0.4},
    },
}
ONE_SIDED = ("blink", "squint", "smile", "frown", "sneer", "raise", "teeth", "press")
"""Actions that people also make with one half of the face."""


def held_out(mouth: str, eyes: str) -> bool:
    """Whether this pair of actions is kept for tests: a fixed fifth of the pairs in which both parts move."""
    moving = mouth != "rest" and eyes != "rest"
    return moving and hashlib.sha256(f"{mouth}+{eyes}".encode()).digest()[0] % 5 == 0


def sample(rng: np.random.Generator, kind: Kind) -> Float[np.ndarray, "52"]:
    """One expression, coefficients in 0..1.

    neutral: all zero. train: any pair that is not held out, strengths 0.5 to 1. test: held-out pairs only.
    extreme: held-out pairs at full strength, one-sided wherever a face can.
    """
    if kind == "neutral":
        return np.zeros(len(NAMES), np.float32)
    if kind not in ("train", "test", "extreme"):
        raise ValueError(f"there is no kind of expression {kind!r}")
    pick = lambda part: str(rng.choice(list(ACTIONS[part])))  # noqa: E731
    mouth, eyes, brows = pick("mouth"), pick("eyes"), pick("brows") if rng.random() < 0.6 else "rest"
    while held_out(mouth, eyes) != (kind != "train"):
        mouth, eyes = pick("mouth"), pick("eyes")
    out = np.zeros(len(NAMES), np.float32)
    for part, action in (("mouth", mouth), ("eyes", eyes), ("brows", brows)):
        strength = rng.uniform(0.9, 1.05) if kind == "extreme" else rng.uniform(0.5, 1.0)
        sides = np.ones(2)  # left, right
        if action in ONE_SIDED and rng.random() < (0.9 if kind == "extreme" else 0.25):
            sides[rng.integers(2)] = rng.uniform(0, 0.25)
        else:
            sides = rng.uniform(0.9, 1.0, 2)
        for name, value in ACTIONS[part][action].items():
            pair = (name,) if name in INDEX else (f"{name}Left", f"{name}Right")
            for side, full in enumerate(pair):
                out[INDEX[full]] += value * strength * (sides[side] if len(pair) == 2 else 1.0)
    out += rng.uniform(0, 0.06, len(NAMES)) * (rng.random(len(NAMES)) < 0.15)  # a living face is never quite still
    return out.clip(0, 1)
