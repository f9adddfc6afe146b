"""One training protocol for every design (DESIGN §4).

The backbone warms up once on reconstruction; then every design starts from its weights and trains jointly with it, on
the same batches in the same order for the same number of steps. A step depends on (configuration, seed, step) alone, so
that a killed run resumes to the same result.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from i4d_bench.config.experiment import Experiment, Stage
from i4d_bench.data.splits import self_driven
from i4d_bench.evaluate.gap import driving_gap
from i4d_bench.loader import Loader
from i4d_bench.metrics.identity import Embedder, are_known
from i4d_bench.model.avatar import Avatar, Backbone
from i4d_bench.progress import track
from i4d_bench.render import render
from i4d_bench.train import distributed
from i4d_bench.train.adversary import Adversary
from i4d_bench.train.checkpoint import Progress, Remembered, resume, save
from i4d_bench.train.curves import Curves
from i4d_bench.train.lessons import FromFrames, Lesson, Lessons
from i4d_bench.train.losses import feature_change, identity_change, reconstruction
from i4d_bench.types import MOTION_DIM, MOTION_TOKENS, ParametricHead
from variants import Fusion

EARLY = (25, 50, 100, 150)
"""Steps at which a design is validated besides every `validate_every`: some follow within the first hundred."""


class Diverged(RuntimeError):
    """The loss or a weight stopped being a number. progress: until then."""

    def __init__(self, why: str, progress: Progress):
        super().__init__(why)
        self.progress = progress


class BiasSink(nn.Module):
    """A token in the driving code of pictures that a 2D animator made (PAPER §6): what is flat about them is learned there. True
    views, and every picture after training, have none."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.zeros(MOTION_TOKENS * MOTION_DIM))

    def forward(self, motion: Float[Tensor, "F 512"], planar: Bool[Tensor, " F"]) -> Float[Tensor, "F 512"]:
        return motion + planar[:, None] * self.token


@dataclass
class Student:
    """What learns in one fit. deceives: whether its pictures are judged by the adversary yet."""

    backbone: Backbone
    fusion: Fusion | None
    sink: BiasSink | None = None
    adversary: Adversary | None = None
    deceives: bool = False

    def parts(self) -> dict[str, Remembered]:
        """Those that a checkpoint holds."""
        more = {"sink": self.sink, "adversary": self.adversary}
        return {"backbone": self.backbone, "fusion": self.fusion or nn.Module()} | {
            k: part for k, part in more.items() if part is not None
        }


@dataclass
class Trainer:
    """Lessons, a data set to validate on, a frozen driver and an experiment; trains the backbone and any design on them. Of several
    ranks (`distributed`) each trains with its part of the lessons, and the first validates and writes.

    lessons: the data set's own frames if none are given. identity: the network of that term of the loss, where it has a weight.
    log: a folder for TensorBoard.
    """

    experiment: Experiment
    loader: Loader
    head: ParametricHead | None
    device: torch.device
    lpips: nn.Module | None = None
    identity: Embedder | None = None
    lessons: Lessons | None = None
    log: Path | None = None

    def __post_init__(self):
        self.own = FromFrames(self.loader, self.experiment.model.size, self.experiment.seed)
        self.validation = self_driven(self.loader.frames, "val")

    def warm_up(self, path: Path) -> None:
        """Warms the backbone up on reconstruction into a checkpoint at `path`, goes on with one, or finds it done. Raises
        Diverged."""
        self._backbone(path, "backbone", self.lessons or self.own, self.experiment.train.warmup)

    def lifter(self, path: Path) -> None:
        """Trains a lifting network on the data set's own frames, as long as a design, into a checkpoint at `path`. Raises
        Diverged."""
        train = self.experiment.train
        self._backbone(path, "lifting network", self.own, (*train.warmup, *train.stages))

    def _backbone(self, path: Path, name: str, lessons: Lessons, stages: tuple[Stage, ...]) -> None:
        torch.manual_seed(self.experiment.seed)
        backbone = Backbone(self.experiment.model).to(self.device)
        self._fit(path, name, lessons, backbone, None, stages)

    def design(self, folder: Path, name: str, backbone: Path, init: Path | None = None) -> tuple[Avatar, Progress]:
        """Trains design `name` jointly with the backbone, or finds it done. init: a finished run's checkpoint, whose backbone and
        design it starts from; the optimiser then begins anew and the learning rate rises as in a warm-up. Raises Diverged."""
        torch.manual_seed(self.experiment.seed)
        start = torch.load(init or backbone, map_location=self.device)
        model = Backbone(self.experiment.model).to(self.device)
        model.load_state_dict(start["backbone"])
        avatar = Avatar(model, self.fusion(name))
        if init is not None:
            avatar.fusion.load_state_dict(start["fusion"])
        lessons, stages = self.lessons or self.own, self.experiment.stages(name)
        warm = None if init else start["optimizer"]
        progress = self._fit(folder / "checkpoint.pt", name, lessons, avatar.backbone, avatar.fusion, stages, warm)
        return avatar, progress

    def fusion(self, name: str) -> Fusion:
        return self.experiment.fusion(name).to(self.device)

    def student(
        self, name: str, backbone: Backbone, fusion: Fusion | None, warm: dict | None = None
    ) -> tuple[Student, torch.optim.Optimizer]:
        """What learns, and what moves it. warm: the state of the warm-up's optimiser, which a design goes on with."""
        config = self.experiment.train
        groups = [{"params": list(backbone.parameters()), "lr": config.lr, "base": config.lr}]
        optimizer = torch.optim.Adam(groups, betas=config.betas, eps=1e-8, fused=True)
        student = Student(backbone, fusion)
        if fusion is None:
            return student, optimizer
        if warm is not None:
            optimizer.load_state_dict(warm)
        own = list(fusion.parameters())
        if own:
            lr = self.experiment.settings(name).get("lr", config.lr_fusion)
            if self.experiment.teacher.bias_sink:
                student.sink = BiasSink().to(self.device)
                own += student.sink.parameters()
            optimizer.add_param_group({"params": own, "lr": lr, "base": lr})
        if config.loss.adversarial:
            student.adversary = Adversary(self.device)
        return student, optimizer

    def _fit(
        self, path: Path, name: str, lessons: Lessons, backbone: Backbone, fusion: Fusion | None, stages, warm=None
    ) -> Progress:
        """warm: the state of the warm-up's optimiser, if there was one before."""
        config, leads = self.experiment.train, distributed.first()
        student, optimizer = self.student(name, backbone, fusion, warm)
        parts = student.parts() | {"optimizer": optimizer}
        progress, total = Progress(), sum(s.steps for s in stages)
        if distributed.of_first(path.exists):
            progress = resume(path, parts, self.device)
        if progress.step >= total:
            return progress
        saved = started = time.monotonic()
        before, loss = progress.seconds, torch.zeros(())
        offset = 0 if fusion is None else sum(s.steps for s in config.warmup)  # lessons go on where the warm-up ended
        given = _lessons(lessons, progress.step, stages, offset, drive=fusion is not None)
        between = True  # steps: within one, some have learned and others not, or it is not validated yet
        curves = Curves(self.log if leads else None, path, progress.step)
        try:
            note = lambda: f"loss {float(loss):.4f}"  # noqa: E731
            for step in track(range(progress.step, total), name, total, progress.step, note):
                stage, lesson = next(given)
                scale = _schedule(step, total, config.lr_steps, cosine=fusion is not None, rises=warm is None)
                for group in optimizer.param_groups:
                    group["lr"] = group["base"] * scale
                student.deceives = step >= config.loss.adversarial_from * total
                between = False
                loss = self.step(student, lesson, stage, offset + step, optimizer)
                progress.step, progress.seconds = step + 1, before + time.monotonic() - started
                curves.learned(step + 1, loss, optimizer)
                due = progress.step % config.validate_every == 0 or progress.step in (*EARLY, total)
                checked = fusion is not None and due
                if due:
                    _check(name, loss, optimizer, progress)
                if leads and checked:
                    progress.curve.append(self._validate(backbone, fusion, progress, float(loss)))
                    curves.validated(progress.curve[-1])
                between = True
                if leads and (checked or time.monotonic() - saved > config.checkpoint_seconds):
                    save(path, parts, progress)
                    saved = time.monotonic()
                if checked:
                    distributed.wait()
        except KeyboardInterrupt:
            if leads and between:
                save(path, parts, progress)
            raise
        finally:
            curves.close()
        if leads:
            save(path, parts, progress)
        distributed.wait()
        return progress

    def step(
        self, student: Student, lesson: Lesson, stage: Stage, step: int, optimizer: torch.optim.Optimizer
    ) -> Tensor:
        """Learns from a lesson. Returns the loss, a mean over the ranks."""
        optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        backgrounds, shown = lesson.backgrounds(step), _shown(lesson)
        for part in lesson.parts(distributed.each(self.experiment.train.accumulate)):
            background = backgrounds[part.people].flatten(0, 1)
            image = self._image(student, part, stage, background)
            share = len(part.images) / len(lesson.images)
            loss = share * self._loss(student, part, *image, background, shown)
            with self._products(), torch.autograd.set_multithreading_enabled(False):
                loss.backward()  # on this thread: until another wakes up, several kernels could be launched
            total += loss.detach()
            if student.adversary is not None and student.deceives:
                student.adversary.study(image[0], part.truth.over(background), part.driving.motion, share)
        if student.adversary is not None and student.deceives:
            student.adversary.learn()
        for group in optimizer.param_groups:
            distributed.average(group["params"])
            nn.utils.clip_grad_norm_(group["params"], self.experiment.train.clip)
        optimizer.step()
        return distributed.mean(total)

    def _image(
        self, student: Student, lesson: Lesson, stage: Stage, background: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """What the student makes of a lesson [S·k,H,W,3], and δf."""
        driving = lesson.driving
        if student.sink is not None:
            driving = dataclasses.replace(driving, motion=student.sink(driving.motion, lesson.planar))
        with self._products():
            if student.fusion is None:
                canonical = student.backbone.lift(lesson.images, stage.grid).canonical
                gaussians = canonical.map(lambda t: t.repeat_interleave(lesson.frames, 0))
            else:
                avatar = Avatar(student.backbone, student.fusion)
                gaussians = avatar(lesson.images, lesson.source, driving, stage.grid, self.head)
        return render(gaussians, lesson.truth.camera, background, depth=False).rgb, gaussians.delta

    def _loss(
        self,
        student: Student,
        lesson: Lesson,
        image: Tensor,
        delta: Tensor | None,
        background: Tensor,
        shown: Float[Tensor, "2"],
    ) -> Tensor:
        weights, truth = self.experiment.train.loss, lesson.truth.over(background)
        loss = reconstruction(image, truth, lesson.truth.regions, weights, self.lpips, shown[0])
        if delta is not None:
            loss = loss + weights.delta * feature_change(delta)
        if self.identity is not None:
            change = identity_change(image, truth, lesson.truth.landmarks, self.identity, shown[1])
            loss = loss + weights.identity * change
        if student.adversary is not None and student.deceives:
            loss = loss + weights.adversarial * student.adversary.deceived(image, lesson.driving.motion)
        return loss

    @contextmanager
    def _products(self) -> Iterator[None]:
        """Inside, fp32 matrix products may have tf32's 11 bits where the encoder has bf16's 8. Not for SSIM: small differences."""
        before = torch.get_float32_matmul_precision()
        try:
            if self.experiment.model.bf16 and self.device.type == "cuda":
                torch.set_float32_matmul_precision("high")
            yield
        finally:
            torch.set_float32_matmul_precision(before)

    def _validate(self, backbone, fusion, progress: Progress, loss: float) -> dict[str, float]:
        batch = min(16, self.experiment.evaluate.batch)
        rows = driving_gap(Avatar(backbone, fusion), self.loader, self.validation, self.head, batch)
        means = {k: float(v.mean()) for k, v in rows.items()}
        return {"step": progress.step, "seconds": progress.seconds, "loss": loss, **means}


@torch.no_grad()
def _check(name: str, loss: Tensor, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
    """Raises Diverged. Weights are looked at, too: rasterisers leave out Gaussians that are no numbers, and what then remains, the
    background, has a loss."""
    weights = nn.utils.get_total_norm([p for group in optimizer.param_groups for p in group["params"]])
    for what, value in (("loss", float(loss)), ("weights' norm", float(weights))):
        if not math.isfinite(value):
            raise Diverged(f"the {what} of {name} became {value} by step {progress.step}", progress)


def _shown(lesson: Lesson) -> Float[Tensor, "2"]:
    """In a picture of the whole step, every rank's: pixels of eyes and mouth, and how likely its landmarks are known."""
    pixels = lesson.truth.regions.flatten(1).sum(1, dtype=torch.float32)
    return distributed.mean(torch.stack([pixels.mean(), are_known(lesson.truth.landmarks).float().mean()]))


def _lessons(
    lessons: Lessons, first: int, stages: tuple[Stage, ...], offset: int, drive: bool
) -> Iterator[tuple[Stage, Lesson]]:
    """From step `first` on, each with its stage."""
    begin = 0
    for stage in stages:
        end = begin + stage.steps
        steps = range(offset + max(begin, first), offset + end)
        yield from ((stage, lesson) for lesson in lessons.over(steps, stage, drive))
        begin = end


def _schedule(step: int, total: int, rise: int, cosine: bool, rises: bool) -> float:
    """Share of the learning rate: a linear rise where an optimiser begins, a cosine to 2 % in joint training."""
    share = min(1.0, (step + 1) / rise) if rises else 1.0
    return share * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / total))) if cosine else share
