"""What a training step learns from. Lessons depend on (seed, step) alone, wherever they come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from i4d_bench.config.experiment import Stage
from i4d_bench.data.splits import SPLITS, split_of
from i4d_bench.loader import Batches, Loader, Targets
from i4d_bench.train import distributed
from i4d_bench.types import MotionCode, placed

T = TypeVar("T")


@dataclass(frozen=True)
class Lesson:
    """S people, and for each k frames that stand together. planar: of these frames those that a 2D animator made. people: their
    numbers among all that the step has, of which other ranks have the rest."""

    images: Float[Tensor, "S 3 P P"]  # as the encoder sees them
    source: MotionCode  # [S]
    driving: MotionCode  # [S·k]
    truth: Targets  # [S·k]
    planar: Bool[Tensor, " F"]
    people: Int[Tensor, " S"]

    @property
    def frames(self) -> int:
        """Of each person."""
        return len(self.planar) // len(self.images)

    def backgrounds(self, seed: int) -> Float[Tensor, "A k 3"]:
        """A random colour for every frame of each of the step's people, other ranks' too."""
        generator = torch.Generator().manual_seed(seed)
        every = torch.rand(len(self.people) * distributed.ranks(), self.frames, 3, generator=generator)
        return placed(every, self.people.device)

    def parts(self, count: int) -> Iterator[Lesson]:
        """The lesson in parts of about as many people each."""
        for people in np.array_split(np.arange(len(self.images)), min(count, len(self.images))):
            a, b = int(people[0]), int(people[-1]) + 1
            yield self.map(lambda t, a=a, b=b: t[a:b], lambda t, a=a, b=b: t[a * self.frames : b * self.frames])

    def map(self, of_people: Callable[[Tensor], Tensor], of_frames: Callable[[Tensor], Tensor]) -> Lesson:
        return Lesson(
            of_people(self.images),
            self.source.map(of_people),
            self.driving.map(of_frames),
            self.truth.map(of_frames),
            of_frames(self.planar),
            of_people(self.people),
        )


@runtime_checkable
class Lessons(Protocol):
    """Where lessons come from."""

    def over(self, steps: range, stage: Stage, drive: bool) -> Iterator[Lesson]:
        """Those of these steps, this rank's people of each. Without `drive` every frame shows the source's expression."""
        ...


class FromFrames:
    """The data set's own frames: one in four keeps the source's expression, views are as they come."""

    def __init__(self, loader: Loader, size: int, seed: int):
        """size: of the images that the encoder sees."""
        self.loader, self.size = loader, size
        self.batches = Batches(loader.frames, np.flatnonzero(split_of(loader.frames) == SPLITS.index("train")), seed)

    def over(self, steps: range, stage: Stage, drive: bool) -> Iterator[Lesson]:
        for step in steps:
            source, target = self.batches.draw(step, stage, drive)
            mine = distributed.share(len(source))
            people = torch.arange(len(source), device=self.loader.device)[mine]
            source, target = source[mine], target.reshape(len(source), -1)[mine].ravel()
            yield Lesson(
                self.loader.sources(source, self.size),
                self.loader.code(source),
                self.loader.code(target),
                self.loader.targets(target, stage.resolution),
                torch.zeros(len(target), dtype=torch.bool, device=self.loader.device),
                people,
            )


def both(of: Callable[[Tensor, Tensor], Tensor], a: T, b: T) -> T:
    """Applies a function to the tensors of two things that are built alike."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return of(a, b)
    if is_dataclass(a) and not isinstance(a, type):
        return type(a)(**{f.name: both(of, getattr(a, f.name), getattr(b, f.name)) for f in fields(a)})
    return a
