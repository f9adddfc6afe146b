"""`i4d-bench run … --dry-run`: parameters, memory and hours of a training, by card and count. Trains and downloads nothing.

Memory and work are counted (`train.footprint`). Seconds come from steps that were measured, where reports/published
holds such, else from the counted work at stated shares of a card's rates; other cards by the ratios of their rates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from i4d_bench.config import presets
from i4d_bench.config.experiment import Experiment, Stage, World
from i4d_bench.data.frames import open_frames
from i4d_bench.data.opening import open_head
from i4d_bench.data.splits import TEST_KINDS, YAW
from i4d_bench.drivers.driver import check
from i4d_bench.jobs.names import designs
from i4d_bench.printing import print_table
from i4d_bench.reading import json_object
from i4d_bench.speed.cards import CARDS, H100, SOURCE, USABLE, Card
from i4d_bench.train import distil
from i4d_bench.train.footprint import META, Counter, Footprint

COUNTS = (1, 2, 4, 8)
MATRIX, BANDWIDTH, REUSE = 0.4, 0.7, 3
"""Shares of a card's matrix rate and bandwidth that a step reaches; a tensor that is written is read twice."""
SPLAT, SPLATTED = 1.0e-3, 196_608
"""Seconds of one frame of so many Gaussians on an H100, forward and backward: four times the forward pass as it was measured."""
LAUNCHES = 0.03
"""Seconds in which the host launches the kernels of one part of a step: a step of the preset gpu takes 28 to 43 ms on an H100,
most of them so."""
EFFICIENCY = 0.9
"""Of several cards, where nobody measured it."""
STATE = 16
"""Bytes per parameter: weight, gradient and Adam's two moments."""
CONTEXT, SLACK = 2.0, 1.25
"""GiB of CUDA, its libraries' room to work and validation; the allocator's blocks over what they hold."""


@dataclass(frozen=True)
class Phase:
    """A stage of a design, or of the warm-up, and what a part of its steps takes."""

    name: str
    stage: Stage
    footprint: Footprint
    parameters: int


@dataclass(frozen=True)
class Measured:
    """Records of training steps. seconds, memory: measured over estimated, by resolution. efficiency: by number of cards."""

    device: str = ""
    seconds: dict[int, float] = field(default_factory=dict)
    memory: dict[int, float] = field(default_factory=dict)
    efficiency: dict[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Forecast:
    """Of one design. data: GiB of the data set on every card."""

    phases: tuple[Phase, ...]
    accumulate: int
    data: float
    measured: Measured = Measured()

    def memory(self, phase: Phase, cards: int, accumulate: int) -> float:
        """GiB that one of so many cards holds at most."""
        part = math.ceil(phase.stage.sources / cards / _each(accumulate, cards))
        state = (STATE + 4 * (cards > 1)) * phase.parameters  # gradients travel in one piece
        counted = CONTEXT + self.data + (state + SLACK * phase.footprint.at(part).peak) / 2**30
        return self.measured.memory.get(phase.stage.resolution, 1.0) * counted

    def peak(self, cards: int, accumulate: int) -> float:
        return max(self.memory(phase, cards, accumulate) for phase in self.phases)

    def fitting(self, card: Card, cards: int) -> int | None:
        """The least accumulation, from the experiment's own on, by which a step fits; None where none does."""
        most = max(phase.stage.sources for phase in self.phases)
        ways = range(self.accumulate, max(most, self.accumulate) + 1)
        return next((a for a in ways if self.peak(cards, a) <= card.usable), None)

    def seconds(self, phase: Phase, card: Card, cards: int, accumulate: int) -> float:
        """Of one step."""
        own = phase.stage.sources / cards
        parts = min(_each(accumulate, cards), own)
        work = phase.footprint.at(own / parts) * parts
        frames = own * phase.stage.frames * phase.footprint.gaussians / SPLATTED
        busy = work.flops / (MATRIX * card.bf16 * 1e12) + REUSE * work.made / (BANDWIDTH * card.bandwidth * 1e9)
        busy += SPLAT * frames * H100.fp32 / card.fp32
        efficiency = 1.0 if cards == 1 else self.measured.efficiency.get(cards, EFFICIENCY)
        return self.measured.seconds.get(phase.stage.resolution, 1.0) * max(busy, parts * LAUNCHES) / efficiency

    def hours(self, card: Card, cards: int) -> float | None:
        """None where it does not fit, or a step's people cannot be divided among the cards."""
        accumulate = self.fitting(card, cards)
        if accumulate is None or any(phase.stage.sources % cards for phase in self.phases):
            return None
        return sum(p.stage.steps * self.seconds(p, card, cards, accumulate) for p in self.phases) / 3600


def _each(accumulate: int, cards: int) -> int:
    """Parts of a step that one of the cards takes (`distributed.each`)."""
    return math.ceil(accumulate / cards)


def show(experiment: Experiment, published: Path) -> None:
    """Prints the forecast of every design. Raises UserError for what `run` would refuse before it starts."""
    entries = designs(experiment)
    check(experiment.driver)
    distil.check(experiment.teacher, experiment.train)
    counter = Counter(experiment, open_head(experiment, META))
    data, measured = data_gib(experiment.world), read(published) if experiment.preset == "paper" else Measured()
    for entry in entries:
        _print(entry, counter, Forecast(phases(counter, entry), experiment.train.accumulate, data, measured))
    _explain(measured, experiment.train.accumulate, experiment.teacher.supervision == "lifted")


def phases(counter: Counter, entry: str) -> tuple[Phase, ...]:
    """Of the warm-up and of a design's own stages."""
    train, own = counter.experiment.train, counter.parameters(None)
    at, total = 0, sum(stage.steps for stage in train.stages)
    out = [Phase("warm-up", stage, counter.footprint(None, stage), own) for stage in train.warmup]
    for stage in train.stages:
        at += stage.steps
        judged = bool(train.loss.adversarial) and at > train.loss.adversarial_from * total
        footprint = counter.footprint(entry, stage, judged)
        out.append(Phase("", stage, footprint, own + counter.parameters(entry)))
    return tuple(out)


def data_gib(world: World) -> float:
    """What the loader keeps on a card: colours, alpha and regions of every frame, a byte each."""
    if world.path is not None:
        parts = [open_frames(path).arrays for path in (world.path, *world.further)]
        real = sum(part[name].nbytes for part in parts for name in ("rgb", "alpha", "region")) / 2**30
        return real + (data_gib(world.rendered(world.beside)) if world.beside else 0)
    tested = (world.val_identities + world.test_identities) * len(TEST_KINDS) * len(YAW)
    frames = world.train_identities * world.expressions * world.views + tested
    return 5 * frames * world.resolution**2 / 2**30


def read(published: Path) -> Measured:
    """Records of the preset paper's steps with local_adaln (`jobs.scaling`), the first with one card among them."""
    files = sorted(published.glob("scaling-paper-*.json"))
    found = [json_object(path, "design", "measured") for path in files]
    found = [content["measured"] for content in found if content["design"] == "local_adaln"]
    records = next(({m["ranks"]: m for m in held} for held in found if held[0]["ranks"] == 1), None)
    if records is None:
        return Measured()
    device = records[1]["environment"]["gpu"]["name"]
    joint = {n: {r["resolution"]: r for r in m["rows"] if r["phase"] == "joint"} for n, m in records.items()}
    seconds = {n: {size: r["seconds"] for size, r in rows.items()} for n, rows in joint.items()}
    card = next((c for c in CARDS if c.key in device), H100)
    plain = presets.paper()
    counter, parts = Counter(plain, open_head(plain, META)), plain.train.accumulate
    counted = Forecast(phases(counter, "local_adaln"), parts, data_gib(plain.world))
    of = {p.stage.resolution: p for p in counted.phases if not p.name}
    slower = {size: s / counted.seconds(of[size], card, 1, parts) for size, s in seconds[1].items() if size in of}
    larger = {
        size: max(r["memory"]) / 2**30 / counted.memory(of[size], 1, parts)
        for size, r in joint[1].items()
        if size in of
    }
    both = {n: at.keys() & seconds[1].keys() for n, at in seconds.items()}
    efficiency = {
        n: sum(seconds[1][k] for k in at) / (n * sum(seconds[n][k] for k in at)) for n, at in both.items() if at
    }
    return Measured(device, slower, larger, efficiency)


def _print(entry: str, counter: Counter, forecast: Forecast) -> None:
    fusion = counter.parameters(entry)
    print(
        f"\n{entry}: {counter.parameters(None) / 1e6:.1f} M parameters of the backbone, {fusion / 1e6:.3f} M of its own"
    )
    rows = []
    for p in forecast.phases:
        step, size = p.footprint.at(p.stage.sources), p.stage.resolution
        here = [forecast.memory(p, 1, forecast.accumulate), forecast.seconds(p, H100, 1, forecast.accumulate)]
        rows.append([f"{size}² {p.name}".strip(), f"{p.footprint.gaussians:,}", f"{p.stage.steps:,}",
                     f"{step.flops / 1e12:.2f}", f"{here[0]:.1f}", f"{here[1]:.2f}"])  # fmt: skip
    print_table(("stage", "Gaussians", "steps", "TFLOP a step", "GiB on one card", "s a step on one H100"), rows)
    rows = []
    for card in CARDS:
        hours = [forecast.hours(card, n) for n in COUNTS]
        wanted = [forecast.fitting(card, n) for n in COUNTS]
        rows.append([f"{card.name} ({card.memory} GB)", *("—" if h is None else f"{h:,.1f}" for h in hours),
                     _remark(forecast.accumulate, wanted)])  # fmt: skip
    print()
    print_table(("estimated hours on", *(f"{n} card{'s' * (n > 1)}" for n in COUNTS), "fits"), rows)


def _remark(own: int, wanted: list[int | None]) -> str:
    """What accumulation a card needs, alone and in company."""
    if wanted[0] == own:
        return "yes"
    more = [f"{n}: {a}" for n, a in zip(COUNTS, wanted, strict=True) if a is not None and a != own]
    if not more:
        return "no" if wanted[-1] is None else "on several"
    return f"with train.accumulate (cards: parts) {', '.join(more)}"


def _explain(measured: Measured, accumulate: int, lifted: bool) -> None:
    base = (
        f"steps measured on {measured.device}"
        if measured.device
        else f"counted FLOPs at {MATRIX:.0%} of the bf16 rate, bytes at {BANDWIDTH:.0%} of the bandwidth, and splatting; "
        "no step of this was measured"
    )
    known = [f"{n} cards {e:.0%}" for n, e in sorted(measured.efficiency.items()) if n > 1]
    several = f"an efficiency of {EFFICIENCY:.0%}, assumed"
    if known:
        several = (
            f"the measured efficiency ({', '.join(known)}), by other numbers of cards at {EFFICIENCY:.0%}, assumed"
        )
    memory = f"shapes and memory measured on {measured.device}" if measured.memory else "shapes"
    print(f"\nAll times are estimated, from {base}.")
    print(f"Other cards by the rates in {SOURCE}; several: 1/N at {several}, a step's people divided among them.")
    print(
        f"Memory is estimated from {memory}, and fits below {USABLE:.0%} of the nominal; with train.accumulate={accumulate}, a "
        "smaller one is faster where it fits."
    )
    print("Hours hold the warm-up, which is made once for all designs, but not data, validation and scores.")
    if lifted:
        print("The lifting network, which trains as long as a design and then makes every step's views, comes on top.")
