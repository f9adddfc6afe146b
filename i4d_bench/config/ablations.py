"""Ablations: designs and settings that answer one question."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from i4d_bench.config.experiment import Experiment
from i4d_bench.config.nearest import nearest
from i4d_bench.config.override import override
from i4d_bench.types import UserError
from variants import names
from variants.base import defaults


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


RATES = (1e-4, 3e-4, 1e-3, 3e-3)
STARTS = {
    "silent": {"init_scale": 0.0},  # at the canonical avatar
    "own": {"init_scale": 1.0},  # as the design starts by default
    "deaf": {"init_scale": 1.0, "cross_scale": 0.0},  # Portrait4D's: silent to the driver alone
}
"""What every learned design is tried with, the same for all (DESIGN §4), but for starts whose settings it does not have."""
SEARCHES = ("search", "finals")
BEST = 3
"""Arms of a search that are trained again, as long as a design is."""
BEYOND = {RATES[0]: 3e-5, RATES[-1]: 1e-2}
"""Trained with them where a design's best is at the end of the rates: the next one, so that no search stops at an edge."""


TRAINED_LONGER = ("local_adaln", "global_cross_attention", "global_triplane_attention", "global_joint_attention",
                  "flame_blendshapes")  # fmt: skip
TRACKED = ("flame_binding", "flame_blendshapes", "flame_adaln")


def ablations() -> dict[str, Ablation]:
    """By name. `search` has every learned design, those of the user's own, too."""
    each = lambda design, setting, *values: [f"{design}@{setting}={v}" for v in values]  # noqa: E731
    learned = [d for d in names() if "init_scale" in defaults(d)]
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
        "token-resolution": (
            "How fine must plane tokens be? An eye is 2.7 by 1 of 16² tokens.",
            each("global_triplane_attention", "tokens", 16, 32, 64),
        ),
        "budget": (
            "Has it converged? Each design as long as the preset has it, twice, and four times as long.",
            [d for name in TRAINED_LONGER for d in each(name, "budget", 1, 2, 4)],
        ),
        "flame-error": (
            "What does a tracker's error cost? FLAME coefficients off by so many times what a tracker is off.",
            [d for name in TRACKED for d in each(name, "flame_error", 0, 0.5, 1, 2)],
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
            "Which learning rate and which start does each design want? All arms for a quarter of the steps.",
            _searched(learned),
            (),
            0.25,
            False,
        ),
        "finals": (
            f"Which of the best {BEST} arms of the search, or which rate beyond them, does each design want? "
            "--designs: what finals.txt of its report lists.",
            [],
            (),
            1.0,
            False,
        ),
    }
    return {name: Ablation(question, (*rows, "static"), *more) for name, (question, rows, *more) in all_of_them.items()}


def _searched(entries: Iterable[str]) -> list[str]:
    """Every arm of the search for designs with a scale of their last layer. Raises UserError for one without."""
    out = []
    for entry in entries:
        if "init_scale" not in defaults(entry):
            raise UserError(
                f"{entry} cannot be searched: it has no setting init_scale, the scale of its last layer at the start"
            )
        starts = [start for start in STARTS.values() if start.keys() <= defaults(entry).keys()]
        arms = [{"lr": lr, **start} for lr in RATES for start in starts]
        written = [",".join(f"{k}={v}" for k, v in arm.items()) for arm in arms]
        out += [f"{entry}{',' if '@' in entry else '@'}{arm}" for arm in written]
    return out


def ablation(name: str, experiment: Experiment, more: tuple[str, ...] = ()) -> Experiment:
    """The preset with the ablation's designs and settings. `more` designs stand beside its own; a search tries them alone.

    Raises UserError for an unknown name, with the nearest, and for finals of nothing.
    """
    known = ablations()
    if name not in known:
        raise UserError(f"there is no ablation {name!r}; did you mean {nearest(name, known)}?")
    chosen = known[name]
    if name == "finals" and not more:
        raise UserError(
            "finals need their designs: --designs $(cat FOLDER/finals.txt), FOLDER the report of --ablation search"
        )
    rows = (*more, *chosen.designs) if name != "search" or not more else (*_searched(more), "static")
    return replace(as_in(name, experiment), designs=tuple(dict.fromkeys(rows)))


def as_in(name: str, experiment: Experiment) -> Experiment:
    """With an ablation's settings, whatever the designs."""
    chosen, train = ablations()[name], experiment.train
    stages = tuple(replace(s, steps=max(1, round(chosen.share * s.steps))) for s in train.stages)
    experiment = replace(experiment, ablation=name, train=replace(train, stages=stages))
    return override(experiment, list(chosen.set))


def scored(experiment: Experiment) -> bool:
    """Whether designs meet the test people; a search is judged by the validation gap alone."""
    return experiment.ablation is None or ablations()[experiment.ablation].scored
