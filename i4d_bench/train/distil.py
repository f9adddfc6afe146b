"""Lessons from a teacher's pairs: the source reconstructs itself, and reaches what the animator made of it (PAPER §1).

Of a person's k frames the first is the source with its own code (δf → 0), the others are pairs. Which pictures stand for a pair is
the supervision (`config.experiment.Teacher`): the animator's, a lifting network's views of them, or true views. A warm-up without
driving reconstructs every source from its own side alone, the same for all supervisions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from i4d_bench.config.experiment import SUPERVISIONS, Stage, Teacher, Train
from i4d_bench.data.teacher.store import Store
from i4d_bench.data.teacher.stream import Draws, stream
from i4d_bench.drivers.driver import Driver
from i4d_bench.heads.flame import FlameModel
from i4d_bench.loader import Targets, targets
from i4d_bench.model.surface import HeadSurface
from i4d_bench.train import distributed
from i4d_bench.train.lessons import Lesson, Lessons, both
from i4d_bench.train.lifting import Lifter
from i4d_bench.types import FlameCode, MotionCode, UserError, placed

Pictures = dict[str, Tensor]
"""By array (`samples.Picture`), each [B, …]."""


class FromPairs:
    """A teacher's pairs. true_views: those of the store, else the animator's own. lifter: its views stand for the pictures."""

    def __init__(
        self,
        store: Store,
        driver: Driver,
        head: FlameModel | None,
        size: int,
        seed: int,
        true_views: bool = False,
        lifter: Lifter | None = None,
        workers: int = 0,
    ):
        """size: of the images that the encoder sees."""
        self.store, self.driver, self.head, self.size, self.seed = store, driver, head, size, seed
        self.true_views, self.lifter, self.workers = true_views, lifter, workers
        self.surface = HeadSurface().to(driver.device)

    def over(self, steps: range, stage: Stage, drive: bool) -> Iterator[Lesson]:
        pairs, true_views = (stage.frames - 1, self.true_views) if drive else (1, False)
        draws = Draws(self.store, "train", stage.sources, pairs, self.seed, true_views)
        mine, on_gpu = distributed.share(draws.people), self.driver.device.type == "cuda"
        people = range(draws.people)[mine]
        batches = stream(self.store, draws, steps, self.workers, mine, pinned=on_gpu)
        for step, batch in zip(steps, batches, strict=True):
            here = {
                role: {k: t.to(self.driver.device, non_blocking=True) for k, t in pictures.items()}
                for role, pictures in batch.items()
            }
            yield self._driven(here, people, stage, step) if drive else self._still(here["source"], people, stage)

    def _still(self, source: Pictures, people: range, stage: Stage) -> Lesson:
        own = self._code(source)
        none = torch.zeros(len(people), dtype=torch.bool)
        return self._lesson(source, people, own, own, as_targets(source, stage.resolution), none)

    def _driven(self, batch: dict[str, Pictures], people: range, stage: Stage, step: int) -> Lesson:
        source = batch["source"]
        own, driving = self._code(source), self._code(batch["driver"])
        woven = _weave(len(source["rgb"]))
        pictures = {k: woven(source[k], batch["target"][k]) for k in source}
        codes = both(woven, own, driving)
        if self.lifter is None:  # the source's own picture is true
            planar = (torch.arange(stage.frames) > 0).repeat(len(people)) & (not self.true_views)
            return self._lesson(source, people, own, codes, as_targets(pictures, stage.resolution), planar)
        keys = [(self.seed, step, p * stage.frames + k) for p in people for k in range(stage.frames)]
        truth = self.lifter.views(as_targets(pictures, self.size), stage.resolution, keys)
        return self._lesson(source, people, own, codes, truth, torch.ones(len(truth.rgb), dtype=torch.bool))

    def _lesson(
        self, source: Pictures, people: range, own: MotionCode, driving: MotionCode, truth: Targets, planar: Tensor
    ) -> Lesson:
        photos, device = as_targets(source, self.size), self.driver.device
        images = self.surface.rectify(photos.photo, photos.camera)
        return Lesson(images, own, driving, truth, *(placed(t, device) for t in (planar, torch.tensor(people))))

    def _code(self, pictures: Pictures) -> MotionCode:
        flame = None
        if self.head is not None:
            expression, pose = self.head.arkit(pictures["coefficients"])
            flame = FlameCode(pose.new_zeros(len(pose), self.head.n_shape), expression, pose)
        codes = self.driver.codes(pictures["rgb"], pictures["landmarks"], pictures["coefficients"], flame)
        return MotionCode(codes, flame)


def check(teacher: Teacher, train: Train) -> None:
    """Raises UserError where an experiment cannot learn as its teacher's settings say."""
    if teacher.supervision not in SUPERVISIONS:
        raise UserError(f"there is no supervision {teacher.supervision!r}; there are {', '.join(SUPERVISIONS)}")
    if teacher.path is None:
        if teacher != Teacher():
            raise UserError("supervision and bias sink go with a teacher's pairs (--teacher)")
        return
    if teacher.bias_sink and teacher.supervision == "multiview":
        raise UserError("the bias sink tells an animator's pictures from true views: multiview has none of the former")
    if any(stage.frames < 2 for stage in train.stages):
        raise UserError("a stage that learns from pairs needs two frames of each person: the source's and a pair's")
    if teacher.bias_sink and any(stage.sources < 2 for stage in (*train.warmup, *train.stages)):
        raise UserError("a stage that learns from pairs and from true views needs two people, one for each")
    store = Store(Path(teacher.path))
    for true_views in {False, teacher.supervision == "multiview"}:
        Draws(store, "train", 1, 1, 0, true_views)


class Mixed:
    """Half of every step's people by lessons of one kind (a teacher's, a rendered world's), half by the data set's own."""

    def __init__(self, others: Lessons, own: Lessons):
        self.others, self.own = others, own

    def over(self, steps: range, stage: Stage, drive: bool) -> Iterator[Lesson]:
        half, rest = halves(stage.sources)
        yield from map(
            _joined,
            self.others.over(steps, replace(stage, sources=half), drive),
            self.own.over(steps, replace(stage, sources=rest), drive),
        )


def halves(people: int) -> tuple[int, int]:
    """Of a mixed step's people those by other lessons, and those by the data set's own."""
    return people // 2, people - people // 2


def as_targets(pictures: Pictures, size: int) -> Targets:
    """As a loader gives them, at size × size pixels."""
    p = pictures
    return targets(p["rgb"], p["alpha"], p["region"], p["viewmats"], p["Ks"], p["landmarks"], size)


def _weave(people: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Puts each person's own [S, …] before what follows of that person [S·j, …]."""

    def woven(own: Tensor, others: Tensor) -> Tensor:
        return torch.cat([own[:, None], others.unflatten(0, (people, -1))], 1).flatten(0, 1)

    return woven


def _joined(a: Lesson, b: Lesson) -> Lesson:
    """Both in one. Without driving a person of a's has fewer frames than one of b's: they are shown again."""
    k = max(a.frames, b.frames)
    a, b = (x.map(lambda t: t, lambda t, again=k // x.frames: t.repeat_interleave(again, 0)) for x in (a, b))
    b = replace(b, people=b.people + len(a.people) * distributed.ranks())
    return both(lambda x, y: torch.cat([x, y]), a, b)
