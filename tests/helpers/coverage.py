"""How often 95 % intervals of `i4d_bench.stats` hold the truth, by simulation: `python tests/helpers/coverage.py` prints the
table of docs/statistics.md."""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import numpy as np

from i4d_bench.stats import Estimate, crossed

RUNS = 4000
SEEDS, PEOPLE = (3, 4, 5, 8), (10, 96)


class World(NamedTuple):
    """What paired differences vary by: standard deviations of a seed's effect, a person's, a driver's (of cross pairs), the rest.
    tails: normal, or so many degrees of freedom of Student's t (unequal variances: some people and seeds vary more than others).
    missing: share of cells that are not there. drives: how many others everybody drives (0: one driver for two).
    own: how much of a driver's effect is the person's own (1: who is hard to drive is as hard to be driven by)."""

    name: str
    seed: float
    person: float
    rest: float
    driver: float = 0.0
    tails: int | None = None
    missing: float = 0.0
    drives: int = 0
    own: float = 0.0


WORLDS = (
    World("seeds do not matter", 0.0, 1.0, 1.0),
    World("seeds a tenth of people", 0.1, 1.0, 1.0),
    World("seeds a third of people", 0.3, 1.0, 1.0),
    World("seeds as much as people", 1.0, 1.0, 1.0),
    World("seeds more than people", 1.0, 0.3, 1.0),
    World("hardly any rest", 1.0, 1.0, 0.2),
    World("neither seeds nor people matter", 0.0, 0.0, 1.0),
    World("unequal variances", 0.3, 1.0, 1.0, tails=4),
    World("a tenth of the cells missing", 0.3, 1.0, 1.0, missing=0.1),
    World("cross pairs, two of each driver", 0.3, 1.0, 1.0, driver=1.0),
    World("everybody drives the next", 0.3, 1.0, 1.0, driver=1.0, drives=1),
    World("the same, with half of their own effect", 0.3, 1.0, 1.0, driver=1.0, drives=1, own=0.5),
    World("the same, with their own effect", 0.3, 1.0, 1.0, driver=1.0, drives=1, own=1.0),
    World("everybody drives eight, with half of their own effect", 0.3, 1.0, 1.0, driver=1.0, drives=8, own=0.5),
)


def drawn(world: World, seeds: int, people: int, r: np.random.Generator) -> Estimate:
    """Of paired differences whose true mean is 0."""

    def effect(spread: float, *shape: int) -> np.ndarray:
        if world.tails is None:
            return spread * r.normal(size=shape)
        return spread * r.standard_t(world.tails, shape) * np.sqrt(1 - 2 / world.tails)

    person = np.arange(people).repeat(max(1, world.drives))
    driver = (person + 1 + np.arange(len(person)) % world.drives) % people if world.drives else person // 2
    of_seeds, of_people = effect(world.seed, seeds), effect(world.person, people, 1)
    values = of_seeds + of_people[person] + effect(world.rest, len(person), seeds)
    if not world.driver:
        driver = person
    else:
        of_drivers = world.own * of_people + (1 - world.own**2) ** 0.5 * effect(world.driver, people, 1)
        values = values + of_drivers[driver]
    return crossed(np.where(r.random(values.shape) < world.missing, np.nan, values), person, driver)


def coverage(world: World, seeds: int, people: int, runs: int = RUNS, seed: int = 0) -> float:
    """Share of intervals that hold 0."""
    r = np.random.default_rng([seed, seeds, people, *world.name.encode()])
    held = 0
    for _ in range(runs):
        lo, hi = drawn(world, seeds, people, r).bounds()
        held += lo <= 0 <= hi
    return held / runs


def table(runs: int = RUNS) -> str:
    """In Markdown."""
    cases = list(product(PEOPLE, SEEDS))
    lines = ["| what varies | seed / person / rest | " + " | ".join(f"{p} people, {s} seeds" for p, s in cases) + " |"]
    lines.append("|---|---|" + "---:|" * len(cases))
    for world in WORLDS:
        cells = [f"{100 * coverage(world, s, p, runs):.1f}" for p, s in cases]
        spread = f"{world.seed:g} / {world.person:g} / {world.rest:g}"
        lines.append(f"| {world.name} | {spread} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
