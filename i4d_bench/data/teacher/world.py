"""The embedded animator of rendered heads: a 2D portrait animator whose errors are known.

It renders the source's person with the driver's expression as the driver is seen, and spoils that (`spoils`). What such a
teacher teaches can be held against the truth: further views of a pair are true ones, the upper bound of supervision.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np

from i4d_bench import source
from i4d_bench.camera import look_at
from i4d_bench.config.experiment import World
from i4d_bench.data import people
from i4d_bench.data.people import Person, Pinhole
from i4d_bench.data.splits import SIDE_VIEW, SPLITS, rng
from i4d_bench.data.teacher.samples import Picture, Sample
from i4d_bench.data.teacher.spoils import Spoil, drifted, flattened, flickered, swum
from i4d_bench.data.teacher.store import Row
from i4d_bench.heads.base import HeadIdentity
from i4d_bench.heads.worlds import head_world, world_version
from i4d_bench.render.mesh import Light
from i4d_bench.types import UserError


def _name(person: Person) -> str:
    return f"p{person.number:05d}"


def _other(person: Person, k: int) -> Person:
    """The k-th of the others of the split."""
    index = k + (k >= person.index)
    return Person(person.number - person.index + index, person.split, index)


class Frame(NamedTuple):
    """A frame of the world's data set: a person with an expression, seen from a view (numbers)."""

    person: Person
    expression: int
    view: int

    @property
    def name(self) -> str:
        return f"{_name(self.person)}e{self.expression}v{self.view}"


class Pair(NamedTuple):
    source: Frame
    driver: Frame

    def id(self, view: int) -> str:
        return f"{self.source.name}-{self.driver.name}-{view}"


@dataclass(frozen=True)
class WorldMaker:
    """A `pairs.Maker`. Drivers are people of the source's own split, seen within training's angles. pairs: per person. views: per
    pair; view 0 is the driver's, spoiled, and the others are true. frontal: the animator works on frontal pictures of both and
    makes one, as the paper's does, whose pictures a lifting network had turned (PAPER §1).

    Raises UserError for fewer than one of either, and for a split with too few people.
    """

    world: World
    spoil: Spoil
    pairs: int = 8
    views: int = 1
    frontal: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("pairs", "views"):
            if getattr(self, name) < 1:
                raise UserError(f"there must be at least one of {name}, not {getattr(self, name)}")
        for split in SPLITS:
            count = getattr(self.world, f"{split}_identities")
            if count < 2:
                has = f"{count} {'person' if count == 1 else 'people'}"
                raise UserError(f"the split {split} has {has}: it needs two, as a driver is another person of it")
            drivers = (count - 1) * self._frames(split)
            if drivers < self.pairs:
                raise UserError(f"{self.pairs} pairs for each person: the split {split} has {drivers} drivers for one")

    def jobs(self) -> Sequence[Person]:
        """Everyone, each as the source of their pairs. Raises UserError for a world that there is not."""
        head_world(self.world.kind)
        return people.people(self.world)

    def rows(self, job: Person) -> list[Row]:
        version = _version(self.world.kind)
        spoiled, true = (
            json.dumps({**what, "world": dataclasses.asdict(self.world), "seed": self.seed}, sort_keys=True)
            for what in ({"true": False, **dataclasses.asdict(self.spoil), "frontal": self.frontal}, {"true": True})
        )
        return [
            Row(
                id=pair.id(view),
                identity=_name(job),
                source=pair.source.name,
                driver=pair.driver.name,
                view=view,
                split=job.split,
                animator="world",
                version=version,
                flags=true if view else spoiled,
            )
            for pair in self._drawn(job)
            for view in range(self.views)
        ]

    def make(self, job: Person, rows: list[Row], worker: int) -> Iterator[tuple[Row, Sample | str]]:
        wanted = {row.id: row for row in rows}
        for pair in self._drawn(job):
            views = [view for view in range(self.views) if pair.id(view) in wanted]
            if not views:
                continue
            source, driver = self._seen(pair.source), self._seen(pair.driver)
            for view in views:
                target = self._view(pair, view) if view else self._animated(pair)
                yield wanted[pair.id(view)], {"source": source, "driver": driver, "target": target}

    def _frames(self, split: str) -> int:
        """How many frames of each of its people may drive."""
        expressions = self.world.expressions if split == "train" else len(people.TEST_KINDS)
        return expressions * self._views(split)

    def _views(self, split: str) -> int:
        return self.world.views if split == "train" else SIDE_VIEW + 1

    def _drawn(self, person: Person) -> list[Pair]:
        """A person's pairs; a larger number begins with a smaller one's."""
        r = rng(self.seed, "pairs", _name(person))
        each, views = self._frames(person.split), self._views(person.split)
        others = getattr(self.world, f"{person.split}_identities") - 1
        drivers: dict[int, int] = {}
        while len(drivers) < self.pairs:
            drawn, expression = int(r.integers(others * each)), int(r.integers(self.world.expressions))
            drivers.setdefault(drawn, expression if person.split == "train" else 0)
        return [
            Pair(Frame(person, expression, 0), Frame(_other(person, k // each), *divmod(k % each, views)))
            for k, expression in drivers.items()
        ]

    def _seen(self, frame: Frame) -> Picture:
        """The frame as the data set has it."""
        sitter = _sitter(self.world, frame.person)
        camera = self._camera(frame)
        return self._picture(sitter.identity, sitter.expressions[frame.expression], camera, sitter.light)

    def _view(self, pair: Pair, view: int) -> Picture:
        """The truth from a further side."""
        sitter = _sitter(self.world, pair.source.person)
        camera = people.orbit(rng(self.seed, "view", pair.id(view)), SIDE_VIEW, self.world.resolution)
        return self._picture(sitter.identity, self._driving(pair), camera, sitter.light)

    def _animated(self, pair: Pair) -> Picture:
        """What the animator makes of it."""
        sitter, spoil = _sitter(self.world, pair.source.person), self.spoil
        identity = drifted(sitter.identity, _sitter(self.world, pair.driver.person).identity, spoil.drift)
        camera = self._camera(pair.driver)
        picture = self._picture(identity, self._driving(pair), camera, sitter.light, spoil.parallax)
        picture = swum(picture, spoil.swim, rng(self.seed, "swim", _name(pair.source.person)))
        return flickered(picture, spoil.flicker, rng(self.seed, "flicker", pair.id(0)))

    def _camera(self, frame: Frame) -> Pinhole:
        """The animator's side of it."""
        return Pinhole(*look_at(0, 0, self.world.resolution)) if self.frontal else people.camera(self.world, *frame)

    def _driving(self, pair: Pair) -> np.ndarray:
        return _sitter(self.world, pair.driver.person).expressions[pair.driver.expression]

    def _picture(
        self, identity: HeadIdentity, expression: np.ndarray, camera: Pinhole, light: Light, flat: float = 0.0
    ) -> Picture:
        head = head_world(self.world.kind)
        vertices = head.vertices(identity, expression)
        surface = head.surface(identity, expression, vertices)
        vertices = flattened(vertices, flat)
        picture = people.picture(head, vertices, surface, expression, camera, self.world.resolution, light)
        del picture["depth"]
        return picture


class _Sitter(NamedTuple):
    identity: HeadIdentity
    light: Light
    expressions: np.ndarray  # [E,52]


@lru_cache(maxsize=64)
def _sitter(world: World, person: Person) -> _Sitter:
    """One object for each person: head worlds remember people by it."""
    identity = people.identity(world, head_world(world.kind), person)
    return _Sitter(identity, people.light(world, person), people.performed(world, person))


@cache
def _version(kind: str) -> str:
    return f"{world_version(kind)}-{source.digest('i4d_bench.data.teacher.world')}"
