"""The experiment as nested dataclasses, stored with every result."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import Any

from variants import Fusion, create
from variants.base import defaults, parse


@dataclass(frozen=True)
class World:
    """Which data. `kind`: procedural, ict (needs its file) or clips: real people of the ingested data set `path` and of `further`
    ones, without those who are `hold_out` in training, which half of each step's people of a rendered world (a kind) may stand
    `beside`."""

    kind: str = "procedural"
    path: str | None = None
    further: tuple[str, ...] = ()
    hold_out: tuple[str, ...] = ()
    beside: str | None = None
    resolution: int = 64
    train_identities: int = 400
    val_identities: int = 24
    test_identities: int = 96
    expressions: int = 4  # per training identity
    views: int = 3  # per training expression; the first is near frontal
    seed: int = 0

    def rendered(self, kind: str) -> World:
        """The rendered world of that kind, of these sizes."""
        return replace(self, kind=kind, path=None, further=(), hold_out=(), beside=None)


@dataclass(frozen=True)
class Model:
    """The backbone every design shares."""

    size: int = 64  # encoder input, pixels
    planes: int | None = None  # texels per side of the planes at most, dividing size; None: as many as the grid needs
    stem: int = 32
    widths: tuple[int, int, int] = (48, 96, 160)
    blocks: int = 2
    motion_basis: int = 48  # channels of m
    output_scale: float = 0.3  # of Φ's last layer at the start
    sampling: str = "plane"
    grid: int = 64  # texels (rays) per side at full size
    focus: float = 1.0  # spacing of Gaussians in the face over that of an even sheet
    bf16: bool = False


@dataclass(frozen=True)
class Stage:
    """A stretch of training at one resolution."""

    steps: int
    resolution: int
    grid: int
    sources: int
    frames: int  # per source; one in four keeps the source's expression


@dataclass(frozen=True)
class Loss:
    """Weights of PAPER §1's terms, and of SSIM."""

    l1: float = 1.0
    regions: float = 5.0
    lpips: float = 0.0
    ssim: float = 0.5
    delta: float = 0.001
    identity: float = 0.0
    identity_network: str = "dlib"
    adversarial: float = 0.0
    adversarial_from: float = 0.5  # share of a design's steps after which it counts


SUPERVISIONS = ("monocular", "lifted", "multiview")


@dataclass(frozen=True)
class Teacher:
    """Pairs of a 2D animator that designs learn from in place of the data set's own frames.

    supervision: `monocular` by the animator's pictures alone; `lifted` by views of them that a lifting network renders (PAPER §1);
    `multiview` by the store's true views. bias_sink: half of every batch is the data set's own frames, and a learned token in the
    driving code says which half is the animator's (PAPER §6).
    """

    path: str | None = None
    supervision: str = "monocular"
    bias_sink: bool = False


@dataclass(frozen=True)
class Train:
    warmup: tuple[Stage, ...] = ()
    stages: tuple[Stage, ...] = ()
    lr: float = 1e-3
    lr_fusion: float = 1e-3
    lr_steps: int = 100  # linear warm-up
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float = 10.0
    encoder_steps: int = 1000  # of the image driver's encoder
    accumulate: int = 1  # parts that a step's people are taken in, for want of memory; several GPUs share them
    loss: Loss = field(default_factory=Loss)
    validate_every: int = 100
    checkpoint_seconds: float = 20.0


@dataclass(frozen=True)
class Evaluate:
    batch: int = 16
    lpips: tuple[str, ...] = ("alex",)
    identity: tuple[str, ...] = ("dlib",)
    reader_steps: int = 800  # of the expression reader, on the world's own truth; 0: none


FORMER_DRIVERS = {"oracle": "sliders"}
"""What a driver was called when older records were made."""
HARNESS = ("lr", "budget", "flame_error")
"""Settings of a design that are not its constructor's: the learning rate in place of `Train.lr_fusion`, how many times as long it
trains, and how far its FLAME coefficients are off, in a tracker's errors (`drivers.tracked`)."""


@dataclass(frozen=True)
class Experiment:
    """Everything that decides a result."""

    preset: str
    world: World
    model: Model
    train: Train
    evaluate: Evaluate
    teacher: Teacher = field(default_factory=Teacher)
    driver: str = "sliders"  # a name, or the file of a motion encoder
    init: tuple[str, ...] = ()  # folders of finished runs, or of several, whose weights designs start from
    flame: str | None = None  # a FLAME file in place of the world's exported head
    seed: int = 0
    designs: tuple[str, ...] = ("local_adaln", "global_triplane_attention", "flame_blendshapes", "static")
    sources: tuple[
        str, ...
    ] = ()  # files and modules of designs from elsewhere, which other processes must `variants.load`
    overrides: dict[str, dict[str, Any]] = field(default_factory=dict)  # per design, and of HARNESS
    ablation: str | None = None

    def settings(self, entry: str) -> dict[str, Any]:
        """Of a design as lists write it (`variants.base.parse`): the experiment's overrides, above them the entry's own."""
        name, own = parse(entry)
        return self.overrides.get(name, {}) | own

    def resolved(self, entry: str) -> dict[str, Any]:
        """`settings` above the constructor's defaults: what the design is made of, all of it."""
        return defaults(entry) | self.settings(entry)

    def fusion(self, entry: str, **more) -> Fusion:
        """The design, new; `more` settings above all. Raises UserError for an unknown name or setting."""
        settings = self.settings(entry) | more
        return create(parse(entry)[0], **{k: v for k, v in settings.items() if k not in HARNESS})

    def stages(self, entry: str) -> tuple[Stage, ...]:
        """Those that a design trains in."""
        budget = self.settings(entry).get("budget", 1)
        return tuple(replace(s, steps=max(1, round(budget * s.steps))) for s in self.train.stages)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def shared(self) -> dict[str, Any]:
        """What all designs of this experiment have in common and their numbers depend on."""
        content = self.to_dict()
        for key in ("designs", "sources", "overrides", "ablation", "init"):
            del content[key]
        del content["train"]["checkpoint_seconds"]
        return content


def digest(content: Any) -> str:
    """A short hash of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def from_dict(content: dict[str, Any]) -> Experiment:
    """The experiment that `to_dict` wrote, after JSON. Older ones said how many frames a run timed (`timed_frames`),
    and had another name for a driver."""

    def tuples(d: dict[str, Any]) -> dict[str, Any]:
        return {k: tuple(v) if isinstance(v, list) else v for k, v in d.items()}

    train = tuples(content["train"])
    train |= {k: tuple(Stage(**s) for s in train[k]) for k in ("warmup", "stages")} | {"loss": Loss(**train["loss"])}
    evaluate = {k: v for k, v in tuples(content["evaluate"]).items() if k != "timed_frames"}
    parts = {"world": World(**tuples(content["world"])), "model": Model(**tuples(content["model"])), "train": Train(**train),
             "evaluate": Evaluate(**evaluate), "teacher": Teacher(**content.get("teacher", {})),
             "driver": FORMER_DRIVERS.get(content["driver"], content["driver"])}  # fmt: skip
    return Experiment(**(tuples(content) | parts))
