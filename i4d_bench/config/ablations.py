"""Ablations: designs and settings that answer one question."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, replace

from i4d_bench.config.experiment import Experiment
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


SEARCH = {"lr": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2), "init_scale": (0.0, 1.0)}
"""What every learned design is tried with, the same for all (DESIGN §4); 0 starts at the canonical avatar."""


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
            _searched(learned),
            (),
            0.25,
            False,
        ),
    }
    return {name: Ablation(question, (*rows, "static"), *more) for name, (question, rows, *more) in all_of_them.items()}


def _searched(entries: Iterable[str]) -> list[str]:
    """Every arm of the search for designs with a scale of their last layer. Raises UserError for one without."""
    for entry in entries:
        if "init_scale" not in defaults(entry):
            raise UserError(
                f"{entry} cannot be searched: it has no setting init_scale, the scale of its last layer at the start"
            )
    grid = [f"lr={lr},init_scale={scale}" for lr in SEARCH["lr"] for scale in SEARCH["init_scale"]]
    return [f"{entry}{',' if '@' in entry else '@'}{arm}" for entry in entries for arm in grid]


def ablation(name: str, experiment: Experiment, more: tuple[str, ...] = ()) -> Experiment:
    """The preset with the ablation's designs and settings. `more` designs stand beside its own; a search tries them alone.

    Raises UserError with the nearest names.
    """
    known = ablations()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.3) or list(known)
        raise UserError(f"there is no ablation {name!r}; did you mean {', '.join(near)}?")
    chosen, train = known[name], experiment.train
    stages = tuple(replace(s, steps=max(1, round(chosen.share * s.steps))) for s in train.stages)
    rows = (*more, *chosen.designs) if name != "search" or not more else (*_searched(more), "static")
    rows = tuple(dict.fromkeys(rows))
    experiment = replace(experiment, designs=rows, ablation=name, train=replace(train, stages=stages))
    return override(experiment, list(chosen.set))


def scored(experiment: Experiment) -> bool:
    """Whether designs meet the test people; a search is judged by the validation gap alone."""
    return experiment.ablation is None or ablations()[experiment.ablation].scored
