"""Real people by name: who is kept out of training (`--hold-out`), and what tables say of who was seen in it."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from i4d_bench.config.experiment import digest
from i4d_bench.data.frames import Frames
from i4d_bench.data.splits import MOST_DRIVERS, SPLITS, split_of
from i4d_bench.types import UserError

FEW = 6
"""So many people are called by their names or numbers."""


def people(frames: Frames) -> dict[int, str]:
    """By number, the names of a data set's real people: of the video or folder that shows them, else their numbers."""
    files = [video["file"] for video in frames.meta.get("videos", [])]
    return {int(k): files[k] if files else str(k) for k in np.unique(frames.identity)}


def hold_out(frames: Frames, names: Sequence[str]) -> Frames:
    """Every frame of these people becomes the test's. names: as in `people`, with or without a file's ending, or numbers.

    The data's hash names them, too: what is trained without them is another training. Raises UserError for an unknown name, and
    when nobody is left to train on.
    """
    numbers, known, split = _numbers(frames, names), people(frames), split_of(frames)
    split[np.isin(frames.identity, numbers)] = SPLITS.index("test")
    if not (split == SPLITS.index("train")).any():
        raise UserError(f"nobody is left to train on: {frames.path} has {_listed(known.values())}")
    called = [str(k) for k in numbers] if len(numbers) <= FEW else [str(len(numbers)), digest(numbers)]
    meta = frames.meta | {"hash": "-".join([frames.meta["hash"], "without", *called])}
    return dataclasses.replace(frames, meta=meta, arrays=frames.arrays | {"split": split.astype(np.uint8)})


def without(frames: Frames, names: Sequence[str]) -> str:
    """What folders call a data set of which these people are held out. Raises UserError for an unknown name."""
    numbers, known = _numbers(frames, names), people(frames)
    called = [Path(known[k]).stem for k in numbers]
    if len(called) > FEW:
        called = [str(len(called)), digest(numbers)[:6]]
    return "-".join(["without", *called])


def _numbers(frames: Frames, names: Sequence[str]) -> list[int]:
    """Whose they are, each once."""
    return sorted({_number(frames, name) for name in names})


def _number(frames: Frames, name: str) -> int:
    known = people(frames)
    found = [k for k, own in known.items() if own == name]
    found = found or [k for k, own in known.items() if Path(own).stem == name]
    if len(found) > 1:
        raise UserError(f"{name!r} names several people of {frames.path}: {', '.join(known[k] for k in found)}")
    if found:
        return found[0]
    if name.isdecimal() and int(name) in known:
        return int(name)
    near = difflib.get_close_matches(name, known.values(), n=3, cutoff=0.4)
    raise UserError(f"{frames.path} shows nobody called {name!r}; it shows {_listed(near or known.values())}")


def who_was_seen(frames: Frames) -> str:
    """For tables: whom the test sets show."""
    if frames.meta["kind"] != "clips":
        return "Test people were never trained on."
    known, split = people(frames), split_of(frames)
    trained, tested = (set(frames.identity[split == SPLITS.index(s)].tolist()) for s in ("train", "test"))
    sets = {
        "self, cross, reconstruction: people seen in training, at later moments than those trained on": tested
        & trained,
        "unseen self, cross, reconstruction: people of whom no frame was trained on": tested - trained,
    }
    said = [f"{what} ({_listed(known[k] for k in sorted(of))})" for what, of in sets.items() if of]
    said = [f"{'; '.join(said)}.", f"Cross: each is driven by all others, {MOST_DRIVERS} at most."]
    if frames.meta.get("source") == "joined":
        said.append(
            f"Of {' and '.join(frames.meta['sources'])}, all of which are trained on, validated and tested with."
        )
    if "beside" in frames.meta:
        said.append(
            f"Half of every training step's people are the {frames.meta['beside']} world's, which is not tested."
        )
    return " ".join(said)


def _listed(names) -> str:
    names = list(names)
    return ", ".join(names) if len(names) <= FEW else f"{', '.join(names[:FEW])} and {len(names) - FEW} more"
