"""The training loop: it resumes to the same weights, and precision is where it must be."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

import pytest
import torch

from i4d_bench.config import presets
from i4d_bench.config.experiment import Teacher
from i4d_bench.config.override import override
from i4d_bench.data import synthetic
from i4d_bench.data.frames import open_frames
from i4d_bench.data.opening import open_head
from i4d_bench.drivers.driver import Driver
from i4d_bench.heads.worlds import exported_head
from i4d_bench.loader import Loader
from i4d_bench.model.avatar import Backbone
from i4d_bench.train import loop
from i4d_bench.train.adversary import Adversary
from i4d_bench.train.distil import FromPairs, Mixed
from i4d_bench.train.lessons import FromFrames, Lessons
from i4d_bench.train.loop import BiasSink, Trainer
from i4d_bench.types import UserError

CPU = torch.device("cpu")


def warmed(trainer: Trainer, folder: Path) -> Path:
    """Its backbone's checkpoint."""
    trainer.warm_up(folder / "backbone.pt")
    return folder / "backbone.pt"


def trainer(frames) -> Trainer:
    e = override(presets.smoke(), ["train.stages=[[6,32,16,2,2]]", "train.checkpoint_seconds=0.0"])
    return Trainer(e, Loader(frames, Driver("sliders", frames), CPU), None, CPU)


def test_a_design_may_have_a_learning_rate_of_its_own(smoke_frames, tmp_path):
    """Above the preset's, and not the backbone's: one of the two settings that the search tries."""
    t = trainer(smoke_frames)
    t.design(tmp_path / "a", "local_adaln@lr=0.25,init_scale=0", warmed(t, tmp_path))
    groups = torch.load(tmp_path / "a" / "checkpoint.pt")["optimizer"]["param_groups"]
    assert [g["base"] for g in groups] == [t.experiment.train.lr, 0.25]


def test_an_interrupted_run_resumes_to_the_same_weights(smoke_frames, tmp_path, monkeypatch):
    whole, broken = trainer(smoke_frames), trainer(smoke_frames)
    straight, progress = whole.design(tmp_path / "a", "local_adaln", warmed(whole, tmp_path))

    step, calls = Trainer.step, []

    def killed(self, *args):
        calls.append(1)
        if len(calls) == 4:
            raise RuntimeError("killed")
        return step(self, *args)

    monkeypatch.setattr(Trainer, "step", killed)
    with pytest.raises(RuntimeError, match="killed"):
        broken.design(tmp_path / "b", "local_adaln", tmp_path / "backbone.pt")
    monkeypatch.setattr(Trainer, "step", step)
    resumed, again = trainer(smoke_frames).design(tmp_path / "b", "local_adaln", tmp_path / "backbone.pt")
    assert again.step == progress.step == 6
    assert [c["gap"] for c in again.curve] == [c["gap"] for c in progress.curve]
    for key, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


def test_a_run_that_diverges_says_when_and_keeps_its_curve(smoke_frames, tmp_path, monkeypatch):
    t, step = trainer(smoke_frames), Trainer.step

    def spoilt(self, student, lesson, stage, number, optimizer):
        loss = step(self, student, lesson, stage, number, optimizer)
        if number == 3 + 4:  # of the six after the warm-up's three
            with torch.no_grad():
                student.fusion.W2.weight.fill_(torch.nan)
        return loss

    start = warmed(t, tmp_path)
    monkeypatch.setattr(Trainer, "step", spoilt)
    with pytest.raises(loop.Diverged, match="local_adaln became nan by step 6") as e:
        t.design(tmp_path / "a", "local_adaln", start)
    assert [c["step"] for c in e.value.progress.curve] == [2, 4]


def spoil_weights(monkeypatch):
    """Every step leaves a weight that is no number, and a loss that is one: that of the background, which is all that is drawn."""
    step = Trainer.step

    def spoilt(self, student, *args):
        loss = step(self, student, *args)
        with torch.no_grad():
            next((student.fusion or student.backbone).parameters()).fill_(torch.nan)
        return torch.full_like(loss, 0.5)

    monkeypatch.setattr(Trainer, "step", spoilt)


def test_a_design_whose_weights_are_no_numbers_has_diverged_whatever_its_loss_is(smoke_frames, tmp_path, monkeypatch):
    t = trainer(smoke_frames)
    start = warmed(t, tmp_path)
    spoil_weights(monkeypatch)
    with pytest.raises(loop.Diverged, match="the weights' norm of local_adaln became nan by step 2"):
        t.design(tmp_path / "a", "local_adaln", start)


def test_a_warm_up_whose_weights_are_no_numbers_leaves_nothing_to_start_from(smoke_frames, tmp_path, monkeypatch):
    t = trainer(smoke_frames)
    spoil_weights(monkeypatch)
    with pytest.raises(loop.Diverged, match="the weights' norm of backbone became nan by step 2"):
        warmed(t, tmp_path)
    with pytest.raises(loop.Diverged):
        warmed(t, tmp_path)


TERMS = ["train.loss.adversarial=0.1", "train.loss.adversarial_from=0.5", "train.loss.identity=0.1"]


class Network:
    """Stands for a face network."""

    name = "mean colour"

    def embed(self, images, landmarks, check=True):
        return torch.nn.functional.normalize(images.mean((1, 2)) - 0.5, dim=-1)


def taught(frames, pairs, *settings, mixed=False, identity=None) -> Trainer:
    """By the pairs of an animator, perhaps beside the data set's own frames."""
    e = override(presets.smoke(), ["train.stages=[[6,32,16,2,2]]", "train.checkpoint_seconds=0.0", *settings])
    e = dataclasses.replace(e, teacher=Teacher(str(pairs.folder), bias_sink=mixed))
    loader, head = Loader(frames, Driver("sliders", frames), CPU), exported_head("procedural")
    lessons: Lessons = FromPairs(pairs, loader.driver, head, e.model.size, e.seed)
    if mixed:
        lessons = Mixed(lessons, FromFrames(loader, e.model.size, e.seed))
    return Trainer(e, loader, head, CPU, identity=identity, lessons=lessons)


def test_every_term_at_once_resumes_to_the_same_weights(smoke_frames, pairs, tmp_path, monkeypatch):
    make = lambda: taught(smoke_frames, pairs, *TERMS, mixed=True, identity=Network())  # noqa: E731
    straight, progress = make().design(tmp_path / "a", "local_adaln", warmed(make(), tmp_path))
    step, learned = Trainer.step, []

    def killed(self, student, lesson, *args):
        learned.append(student.adversary.steps)
        if len(learned) == 5:
            raise RuntimeError("killed")
        return step(self, student, lesson, *args)

    monkeypatch.setattr(Trainer, "step", killed)
    with pytest.raises(RuntimeError, match="killed"):
        make().design(tmp_path / "b", "local_adaln", tmp_path / "backbone.pt")
    assert learned == [0, 0, 0, 0, 1], "the adversary begins midway"
    monkeypatch.setattr(Trainer, "step", step)
    resumed, again = make().design(tmp_path / "b", "local_adaln", tmp_path / "backbone.pt")
    assert again.step == progress.step == 6 and [c["gap"] for c in again.curve] == [c["gap"] for c in progress.curve]
    for key, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key
    states = [torch.load(tmp_path / x / "checkpoint.pt") for x in "ab"]
    assert states[0]["sink"]["token"].any() and torch.equal(states[0]["sink"]["token"], states[1]["sink"]["token"])
    assert states[0]["adversary"]["steps"] == states[1]["adversary"]["steps"] == 3


def test_a_step_that_was_interrupted_leaves_nothing(smoke_frames, pairs, tmp_path, monkeypatch):
    """Within it the adversary has learned already, and the student has not."""
    t = taught(smoke_frames, pairs, *TERMS, "train.checkpoint_seconds=1000.0", "train.validate_every=1")
    learn = Adversary.learn

    def pressed(self, *args):
        learn(self, *args)
        if self.steps == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Adversary, "learn", pressed)
    with pytest.raises(KeyboardInterrupt):
        t.design(tmp_path / "a", "local_adaln", warmed(t, tmp_path))
    state = torch.load(tmp_path / "a" / "checkpoint.pt")
    assert state["progress"]["step"] == 4 and state["adversary"]["steps"] == 1


def test_a_validation_that_was_interrupted_is_made_again(smoke_frames, tmp_path, monkeypatch):
    """What was learned until it is not kept without its row of the curve."""
    t, validate = trainer(smoke_frames), Trainer._validate
    start = warmed(t, tmp_path)

    def pressed(self, backbone, fusion, progress, loss):
        if progress.step == 4:
            raise KeyboardInterrupt
        return validate(self, backbone, fusion, progress, loss)

    monkeypatch.setattr(Trainer, "_validate", pressed)
    with pytest.raises(KeyboardInterrupt):
        t.design(tmp_path / "a", "local_adaln", start)
    monkeypatch.setattr(Trainer, "_validate", validate)
    _, progress = trainer(smoke_frames).design(tmp_path / "a", "local_adaln", start)
    assert [c["step"] for c in progress.curve] == [2, 4, 6]


def test_the_bias_sink_hears_of_the_animators_pictures_alone():
    sink = BiasSink()
    planar = torch.tensor([True, False, True])
    out = sink(torch.zeros(3, 512), planar)
    assert not out.any(), "it starts as nothing, and true views stay so"
    (out * torch.tensor([[1.0], [10.0], [2.0]])).sum().backward()
    assert (sink.token.grad == 3).all()


def test_parts_of_a_step_are_the_step(smoke_frames, tmp_path):
    """Accumulated gradients are those of the whole batch, but for eyes and mouth, which count by their own pixels."""
    weights = ["train.loss.regions=0.0", "train.stages=[[1,32,16,4,2]]"]
    states = []
    for parts in (1, 2):
        e = override(presets.smoke(), [*weights, f"train.accumulate={parts}"])
        t = Trainer(e, Loader(smoke_frames, Driver("sliders", smoke_frames), CPU), None, CPU)
        t.design(tmp_path / str(parts), "local_adaln", warmed(t, tmp_path / str(parts)))
        states.append(torch.load(tmp_path / str(parts) / "checkpoint.pt"))
    a, b = ([m["exp_avg"] for m in s["optimizer"]["state"].values()] for s in states)
    assert max(float((x - y).abs().max() / x.abs().max().clamp_min(1e-6)) for x, y in zip(a, b, strict=True)) < 1e-3


def test_a_damaged_checkpoint_says_what_to_do(smoke_frames, tmp_path):
    (tmp_path / "backbone.pt").write_bytes(b"half a file")
    with pytest.raises(UserError, match="delete it"):
        warmed(trainer(smoke_frames), tmp_path)


@pytest.mark.gpu
def test_tf32_stays_away_from_ssim(tmp_path, monkeypatch):
    """Its variances are small differences of products: with tf32's they are noise, and training collapsed. The rest may have it."""
    seen, loss, lift = {}, loop.reconstruction, Backbone.lift
    precision = torch.get_float32_matmul_precision

    def at(name, call):
        return lambda *args, **kwargs: (seen.update({name: precision()}), call(*args, **kwargs))[1]

    monkeypatch.setattr(loop, "reconstruction", at("loss", loss))
    monkeypatch.setattr(Backbone, "lift", at("lift", lift))
    on_gpu(["model.bf16=true"]).warm_up(tmp_path / "backbone.pt")
    assert seen == {"loss": "highest", "lift": "high"} and precision() == "highest"


@pytest.mark.gpu
def test_backward_waits_for_no_other_thread(tmp_path, monkeypatch):
    seen, loss = set(), loop.reconstruction

    def hooked(*args, **kwargs):
        value = loss(*args, **kwargs)
        value.register_hook(lambda gradient: seen.add(threading.get_ident()))
        return value

    monkeypatch.setattr(loop, "reconstruction", hooked)
    on_gpu([]).warm_up(tmp_path / "backbone.pt")
    assert seen == {threading.get_ident()}


def on_gpu(changes: list[str]) -> Trainer:
    e, gpu = override(presets.smoke(), changes), torch.device("cuda")
    data = open_frames(synthetic.rendered(e.world))
    return Trainer(e, Loader(data, Driver("sliders", data, None), gpu), open_head(e, gpu), gpu)
