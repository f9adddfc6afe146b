"""The 52 expression sliders as a driver: the motion code that a run's driver reads off a face which makes that expression."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float

from i4d_bench.camera import look_at
from i4d_bench.config.experiment import World
from i4d_bench.data import people
from i4d_bench.data.people import Person, Pinhole
from i4d_bench.drivers.driver import Driver
from i4d_bench.heads import expressions
from i4d_bench.heads.flame import FlameModel
from i4d_bench.heads.worlds import head_world
from i4d_bench.types import FlameCode, MotionCode

FPS, HOLD = 25.0, 20
"""Of the built-in motion, and frames from one of its expressions to the next."""
UNSEEN = np.zeros((1, 1, 3), np.uint8), np.zeros((68, 2), np.float32)
"""A picture and landmarks for drivers that look at neither."""


class Face:
    """What reads pictures (the drivers `image` and external ones) is shown a rendered head of the run's world, from the front; on
    runs of real video the embedded world's."""

    def __init__(self, world: World, driver: Driver, head: FlameModel, shape: Float[torch.Tensor, "1 S"]):
        """world: the run's. shape: of the person who is animated, in coefficients of the parametric head."""
        self.world = world.rendered("procedural") if world.kind == "clips" else world
        self.driver, self.head, self.shape = driver, head, shape

    @torch.no_grad()
    def __call__(self, coefficients: Float[np.ndarray, " 52"]) -> MotionCode:
        values = torch.from_numpy(coefficients.astype(np.float32))[None].to(self.shape.device)
        expression, pose = self.head.arkit(values)
        flame = FlameCode(self.shape, expression, pose)
        seen = UNSEEN if self.driver.encoder is None else self._seen(coefficients)
        rgb, landmarks = (torch.from_numpy(a)[None] for a in seen)
        return MotionCode(self.driver.codes(rgb, landmarks, values, flame), flame)

    def _seen(self, coefficients: Float[np.ndarray, " 52"]) -> tuple[np.ndarray, np.ndarray]:
        """The picture of the first test person with that expression, and its landmarks."""
        head, person, size = head_world(self.world.kind), Person(0, "test", 0), self.world.resolution
        identity, light = people.identity(self.world, head, person), people.light(self.world, person)
        vertices = head.vertices(identity, coefficients)
        surface = head.surface(identity, coefficients, vertices)
        camera = Pinhole(*look_at(0, 0, size))
        picture = people.picture(head, vertices, surface, coefficients, camera, size, light)
        return picture["rgb"], picture["landmarks"]


def named() -> dict[str, Float[np.ndarray, " 52"]]:
    """Expressions for a menu, at full strength."""
    out = {}
    for actions in expressions.ACTIONS.values():
        for name, parts in actions.items():
            values = np.zeros(len(expressions.NAMES), np.float32)
            for part, value in parts.items():
                sides = (part,) if part in expressions.INDEX else (f"{part}Left", f"{part}Right")
                values[[expressions.INDEX[side] for side in sides]] = value
            out[name] = values
    return out


def motion(count: int = 10, seed: int = 0) -> Float[np.ndarray, "F 52"]:
    """A built-in clip: random expressions of the test's, from one to the next and back to the first, at FPS."""
    r = np.random.default_rng(seed)
    keys = np.stack([expressions.sample(r, "test") for _ in range(count)])
    at = np.arange(count * HOLD) / HOLD
    share = 0.5 - 0.5 * np.cos(np.pi * np.clip(1.5 * (at % 1), 0, 1))  # there in two thirds of the time, then held
    before = at.astype(int)
    return keys[before] + share[:, None] * (keys[(before + 1) % count] - keys[before])
