"""One function per preset returns the whole experiment. The command line picks one and overrides fields; the full
configuration travels with every result."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import inspect
import json
from dataclasses import dataclass, field, replace
from typing import Any

from i4d_bench.types import UserError
from variants import Fusion, create, design, names
from variants.base import parse


@dataclass(frozen=True)
class World:
    """Which data. `kind`: procedural, ict (needs its file) or clips (`path` names an ingested data set)."""

    kind: str = "procedural"
    path: str | None = None
    resolution: int = 64
    train_identities: int = 400
    val_identities: int = 24
    test_identities: int = 96
    expressions: int = 4  # per training identity
    views: int = 3  # per training expression; the first is near frontal
    seed: int = 0


@dataclass(frozen=True)
class Model:
    """The backbone every design shares."""

    size: int = 64  # encoder input and planes, pixels
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
    """Weights of PAPER §1's terms (the adversarial and the identity term are off)."""

    l1: float = 1.0
    regions: float = 5.0
    lpips: float = 0.0
    ssim: float = 0.5
    delta: float = 0.001


@dataclass(frozen=True)
class Train:
    warmup: tuple[Stage, ...] = ()
    stages: tuple[Stage, ...] = ()
    lr: float = 1e-3
    lr_fusion: float = 1e-3
    lr_steps: int = 100  # linear warm-up
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float = 10.0
    loss: Loss = field(default_factory=Loss)
    validate_every: int = 100
    checkpoint_seconds: float = 20.0


@dataclass(frozen=True)
class Evaluate:
    batch: int = 16
    lpips: tuple[str, ...] = ("alex",)
    identity: tuple[str, ...] = ("dlib",)
    reader_steps: int = 800  # of the expression reader, on the world's own truth; 0: none
    timed_frames: int = 200


@dataclass(frozen=True)
class Experiment:
    """Everything that decides a result."""

    preset: str
    world: World
    model: Model
    train: Train
    evaluate: Evaluate
    driver: str = "oracle"
    flame: str | None = None  # a FLAME file in place of the world's exported head
    seed: int = 0
    designs: tuple[str, ...] = ("local_adaln", "global_triplane_attention", "flame_blendshapes", "static")
    overrides: dict[str, dict[str, Any]] = field(
        default_factory=dict
    )  # per design; `lr`: its own in place of train.lr_fusion
    ablation: str | None = None

    def settings(self, entry: str) -> dict[str, Any]:
        """Of a design as lists write it (`variants.base.parse`): the experiment's overrides, above them the entry's own."""
        name, own = parse(entry)
        return self.overrides.get(name, {}) | own

    def fusion(self, entry: str, **more) -> Fusion:
        """The design, new; `more` settings above all. Raises UserError for an unknown name or setting."""
        settings = self.settings(entry) | more
        settings.pop("lr", None)
        return create(parse(entry)[0], **settings)

    @property
    def scored(self) -> bool:
        """Whether designs meet the test people; a search is judged by the validation gap alone."""
        return self.ablation is None or ablations()[self.ablation].scored

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def shared(self) -> dict[str, Any]:
        """What all designs of this experiment have in common and their numbers depend on."""
        content = self.to_dict()
        del content["designs"], content["overrides"], content["ablation"], content["train"]["checkpoint_seconds"]
        return content


def digest(content: Any) -> str:
    """A short hash of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


QUICK = {name: {"delta_scale": 1.0, "w_std": 0.14} for name in ("local_adaln", "flame_adaln")}
"""The published start (0.01, 0.02) is for long training."""
TUNED = {
    "flame_adaln": (3e-3, 1.0),
    "flame_blendshapes": (1e-4, 0.0),
    "flame_uv": (3e-4, 0.0),
    "flame_vertices": (3e-3, 1.0),
    "global_cross_attention": (3e-3, 0.0),
    "global_interleaved_attention": (1e-3, 0.0),
    "global_joint_attention": (3e-4, 0.0),
    "global_latent_attention": (1e-3, 1.0),
    "global_triplane_attention": (1e-3, 0.0),
    "local_adaln": (1e-3, 0.0),
    "local_bilinear": (3e-3, 0.0),
    "local_blendshapes": (1e-3, 0.0),
    "local_film": (1e-3, 0.0),
    "local_mlp": (1e-3, 0.0),
    "local_nobasis": (1e-3, 1.0),
    "local_spatial": (3e-4, 1.0),
}
"""Learning rate and scale of the last layer at the start: the best of the ablation `search` on the preset gpu, by validation people
(reports/ablation-search-gpu-h100-procedural-oracle)."""
ON_PLANES = ("global_triplane_attention", "global_interleaved_attention", "global_joint_attention")


def cpu() -> Experiment:
    """Two cores, no GPU: two minutes a design. Images trained, rendered and scored at 64², Gaussians dense in the face."""
    return Experiment(
        preset="cpu",
        world=World(),
        model=Model(stem=24, widths=(32, 64, 96), grid=24, focus=0.45),
        train=Train(warmup=(Stage(400, 64, 24, 8, 4),), stages=(Stage(500, 64, 24, 8, 4),), lr_fusion=2e-3),
        evaluate=Evaluate(),
        overrides=QUICK
        | {name: {"dim": 128, "tokens": 8} for name in ON_PLANES}
        | {"global_latent_attention": {"dim": 128}, "flame_uv": {"width": 16, "resolution": 32}}
        | {
            "flame_vertices": {"max_vertices": 320}
        },  # half of what is lifted; all 5,023 would be nine times the others' Gaussians
    )


def gpu() -> Experiment:
    """One data-centre GPU: 128², 16,384 Gaussians and a back sheet, minutes a design."""
    return Experiment(
        preset="gpu",
        world=World(resolution=128, train_identities=1200, val_identities=24, test_identities=96),
        model=Model(size=128, stem=48, widths=(96, 192, 256), blocks=4, grid=128, bf16=True),
        train=Train(
            warmup=(Stage(600, 128, 128, 16, 4),),
            stages=(Stage(3600, 128, 128, 16, 4),),
            loss=Loss(lpips=0.5, ssim=0.2),
            validate_every=200,
        ),
        evaluate=Evaluate(batch=32, reader_steps=1000, identity=("dlib", "mobileface")),
        overrides={name: QUICK.get(name, {}) | dict(zip(SEARCH, best, strict=True)) for name, best in TUNED.items()},
    )


def untuned(experiment: Experiment) -> Experiment:
    """Every design with the learning rate and the start that are its own by default, in place of a search's."""
    kept = {name: {k: v for k, v in own.items() if k not in SEARCH} for name, own in experiment.overrides.items()}
    return replace(experiment, overrides=kept)


def smoke() -> Experiment:
    """The whole pipeline in seconds, for tests; its numbers mean nothing."""
    stage = Stage(3, 32, 16, 2, 2)
    return Experiment(
        preset="smoke",
        world=World(resolution=32, train_identities=4, val_identities=2, test_identities=3, expressions=2, views=2),
        model=Model(size=32, stem=8, widths=(8, 16, 16), blocks=1, grid=16),
        train=Train(warmup=(stage,), stages=(stage,), lr_steps=2, validate_every=2),
        evaluate=Evaluate(lpips=(), identity=(), reader_steps=3, timed_frames=3, batch=4),
        overrides={name: {"dim": 32, "tokens": 4} for name in ON_PLANES}
        | {"global_latent_attention": {"dim": 32}, "flame_uv": {"width": 8, "resolution": 16}},
    )


PRESETS = {"cpu": cpu, "gpu": gpu, "smoke": smoke}


def preset(name: str) -> Experiment:
    """Raises UserError with the nearest names."""
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=3, cutoff=0.3) or list(PRESETS)
        raise UserError(f"there is no preset {name!r}; did you mean {', '.join(near)}?")
    return PRESETS[name]()


@dataclass(frozen=True)
class Ablation:
    """Designs and settings that answer one question, each row beside the others.

    share: of the preset's training steps. scored: False where the validation gap decides and test people are not met.
    """

    question: str
    designs: tuple[str, ...]
    set: tuple[str, ...] = ()
    share: float = 1.0
    scored: bool = True


SEARCH = {"lr": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2), "init_scale": (0.0, 1.0)}
"""What every learned design is tried with, the same for all (DESIGN §4); 0 starts at the canonical avatar."""


def ablations() -> dict[str, Ablation]:
    """By name. `search` has every learned design, those of the user's own, too."""
    each = lambda design, setting, *values: [f"{design}@{setting}={v}" for v in values]  # noqa: E731
    learned = [d for d in names() if "init_scale" in inspect.signature(design(d)).parameters]
    grid = [f"lr={lr},init_scale={scale}" for lr in SEARCH["lr"] for scale in SEARCH["init_scale"]]
    with_source = ("local_adaln", "local_film", "global_cross_attention", "global_triplane_attention")
    all_of_them = {
        "driver": (
            "Is it the driver or the operator? With --driver flame all designs read the same coefficients.",
            ["local_adaln", "flame_adaln", "global_cross_attention", "flame_blendshapes"],
        ),
        "motion-dim": (
            "How wide must the motion basis be? One backbone with the widest; a design reads its first channels.",
            each("local_adaln", "motion_basis", 8, 16, 32, 48, 96),
            ("model.motion_basis=96",),
        ),
        "attention-layers": (
            "How deep must attention to the motion tokens be?",
            each("global_cross_attention", "layers", 1, 2, 4),
        ),
        "attention-tokens": (
            "The code's own 32 tokens, or some that are learned?",
            ["global_cross_attention", *each("global_cross_attention", "tokens", 4, 16, 64)],
        ),
        "blendshapes": ("How many blendshapes per Gaussian?", each("local_blendshapes", "blendshapes", 10, 20, 50)),
        "source-code": (
            "Does a design need the source's code beside the driver's?",
            [d + s for d in with_source for s in ("", "@source=false")],
        ),
        "space": (
            "Deform features or positions, by the motion basis or by the features themselves (the paper's own ablation)?",
            ["local_adaln", "local_spatial", "local_nobasis"],
        ),
        "search": (
            "Which learning rate and which scale of the last layer at the start does each design want?",
            [f"{d}@{s}" for d in learned for s in grid],
            (),
            0.25,
            False,
        ),
    }
    return {name: Ablation(question, (*rows, "static"), *more) for name, (question, rows, *more) in all_of_them.items()}


def ablation(name: str, experiment: Experiment) -> Experiment:
    """The preset with the ablation's designs and settings. Raises UserError with the nearest names."""
    known = ablations()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.3) or list(known)
        raise UserError(f"there is no ablation {name!r}; did you mean {', '.join(near)}?")
    chosen, train = known[name], experiment.train
    stages = tuple(replace(s, steps=max(1, round(chosen.share * s.steps))) for s in train.stages)
    experiment = replace(experiment, designs=chosen.designs, ablation=name, train=replace(train, stages=stages))
    return override(experiment, list(chosen.set))


def from_dict(content: dict[str, Any]) -> Experiment:
    """The experiment that `to_dict` wrote, after JSON."""
    tuples = lambda d: {k: tuple(v) if isinstance(v, list) else v for k, v in d.items()}  # noqa: E731
    train = tuples(content["train"])
    train |= {k: tuple(Stage(**s) for s in train[k]) for k in ("warmup", "stages")} | {"loss": Loss(**train["loss"])}
    parts = {"world": World(**content["world"]), "model": Model(**tuples(content["model"])), "train": Train(**train),
             "evaluate": Evaluate(**tuples(content["evaluate"]))}  # fmt: skip
    return Experiment(**(tuples(content) | parts))


def override(experiment: Experiment, assignments: list[str]) -> Experiment:
    """Applies `train.lr=3e-4`-like assignments (`overrides.DESIGN.SETTING=…` for a design's own settings).

    Raises UserError for an unknown field (with the nearest names) or a value of the wrong type.
    """
    for assignment in assignments:
        key, sep, text = assignment.partition("=")
        if not sep:
            raise UserError(f"an override reads FIELD=VALUE, not {assignment!r}")
        experiment = _set(experiment, key.split("."), text, key)
    return experiment


def _set(node, keys: list[str], text: str, full: str):
    head, *rest = keys
    if isinstance(node, dict):
        value = _set(node.get(head, {}), rest, text, full) if rest else _parse(text)
        return {**node, head: value}
    fields = {f.name for f in dataclasses.fields(node)}
    if head not in fields:
        near = difflib.get_close_matches(head, fields, n=3, cutoff=0.4) or sorted(fields)
        raise UserError(f"there is no setting {full!r}; did you mean {', '.join(near)}?")
    old = getattr(node, head)
    if rest:
        if not (dataclasses.is_dataclass(old) or isinstance(old, dict)):
            raise UserError(f"{full!r} goes too deep: {head} is {old!r}")
        return replace(node, **{head: _set(old, rest, text, full)})
    if dataclasses.is_dataclass(old) or isinstance(old, dict):
        raise UserError(f"{full!r} is a group of settings; name one of them")
    return replace(node, **{head: _convert(_parse(text), old, full)})


def _parse(text: str):
    try:
        return json.loads(text)
    except ValueError:
        return text


def _convert(value, old, full: str):
    if isinstance(old, tuple):
        items = value if isinstance(value, list) else [v for v in str(value).split(",") if v]
        if old and dataclasses.is_dataclass(old[0]):
            try:
                return tuple(type(old[0])(*item) for item in items)
            except TypeError as e:
                names = ", ".join(f.name for f in dataclasses.fields(old[0]))
                raise UserError(f"{full} takes a list of [{names}]") from e
        return tuple(items)
    if isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if old is not None and type(value) is not type(old):
        raise UserError(f"{full} takes a {type(old).__name__}, not {value!r}")
    return value
