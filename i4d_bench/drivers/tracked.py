"""FLAME coefficients as a monocular tracker gives them: off by what stays with a person and by what changes with every frame.

An error of 1 is a typical tracker's. Shape and expression count in standard deviations of each coefficient over the training
frames (one that never moves there stays exact), neck, jaw and eyes in degrees about each axis. The head's own pose is the camera's
and stays.

NOISE is measured: how what MediaPipe finds in single pictures jitters in still moments of seven recordings (second differences over
√6 in the quarter of frames with the least drift). The 52 coefficients, mapped to the embedded head's, give 0.03–0.15 standard
deviations of expression (root mean square 0.10), 0.07–1.7° of the jaw (0.84°) and 0.2–1.4° of the eyes (0.59°); the neck's is that
of the head's rotation, 0.06–0.55° (0.27°).

BIAS is declared. In those moments the seven people differ by 0.6 standard deviations of expression, 4° of the jaw and 4° of the
eyes; part of that is what they really did, so BIAS takes half of it or less. In gaze estimation, too, the error that stays with a
person is the larger one (Chen and Shi, Offset Calibration for Appearance-Based Gaze Estimation, 2019). Half a standard deviation of
shape is an assumption: it leaves the embedded heads' faces at half the distance at which the average face lies (median of vertices
1.8 of 3.7 mm).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from i4d_bench.config.experiment import Experiment
from i4d_bench.data.splits import rng
from i4d_bench.types import FlameCode, UserError
from variants import design


@dataclass(frozen=True)
class Typical:
    """Standard deviations of an error of 1, in the units above."""

    shape: float
    expression: float
    neck: float
    jaw: float
    eyes: float

    def each(self, shape: int, expression: int) -> Float[np.ndarray, " K"]:
        """Of every coefficient: shape, expression, pose."""
        joints = (0.0, self.neck, self.jaw, self.eyes, self.eyes)
        return np.repeat([self.shape, self.expression, *joints], [shape, expression, *[3] * len(joints)])


BIAS = Typical(shape=0.5, expression=0.3, neck=0.0, jaw=1.0, eyes=2.0)
"""The same in all frames of a person."""
NOISE = Typical(shape=0.0, expression=0.1, neck=0.3, jaw=0.8, eyes=0.6)
"""Another in every frame."""


def flame_error(experiment: Experiment, entry: str) -> float:
    """By how many times a tracker's errors a design's coefficients are off; 0 where its settings do not say.

    Raises UserError for what is no such number, or would change nothing or only a part of what the design learns from.
    """
    error = experiment.settings(entry).get("flame_error", 0)
    if isinstance(error, bool) or not isinstance(error, int | float) or not 0 <= error < math.inf:
        raise UserError(f"{entry}: flame_error counts a tracker's errors, 0 or more, and is {error!r}")
    if not error:
        return 0.0
    if experiment.teacher.path or experiment.world.beside:
        others = "a teacher's pairs" if experiment.teacher.path else "the world beside real video"
        raise UserError(
            f"{entry}: flame_error spoils the data set's own coefficients, and those of {others} would stay as they are"
        )
    needs = design(entry).needs
    if needs != "flame" and not (needs == "motion" and experiment.driver == "flame"):
        raise UserError(f"{entry}: flame_error changes nothing, as the design reads no FLAME coefficients")
    return float(error)


def tracked(
    flame: FlameCode, identity: Int[np.ndarray, " F"], error: float, train: Bool[np.ndarray, " F"]
) -> FlameCode:
    """A data set's coefficients, off by `error` times the typical one. identity: who a frame shows. train: which are trained on.

    What a frame is off by depends on its own and its person's number, not on the device or on how many others there are; another
    error is a multiple of the same.
    """
    if error == 0:
        return flame
    sizes = [flame.shape.shape[1], flame.expression.shape[1]]
    exact = torch.cat([flame.shape, flame.expression], 1).double().cpu().numpy()
    unit = np.concatenate([exact[train].std(0), np.full(flame.pose.shape[1], np.radians(1))])
    person = rng("tracked", "person").standard_normal((int(identity.max()) + 1, len(unit)))
    frame = rng("tracked", "frame").standard_normal((len(identity), len(unit)))
    off = error * unit * (person[identity] * BIAS.each(*sizes) + frame * NOISE.each(*sizes))
    parts = torch.from_numpy(off).float().to(flame.pose.device).split([*sizes, flame.pose.shape[1]], 1)
    return FlameCode(*(of + by for of, by in zip((flame.shape, flame.expression, flame.pose), parts, strict=True)))
