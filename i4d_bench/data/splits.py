"""The splits, as code: who and what is trained on, and the (source, driving, target) triples of every test set.

Rendered worlds: training people never appear in a test; test expressions are held-out combinations, and `extreme` ones
are strong and asymmetric; training views lie within ±35° of yaw, `novel` ones reach ±60°. Real video: of every person the
first part in time is trained on, the next validates and the last is tested (SHARES), unless the data set says so itself
(array `split`). Real people of whom no frame is trained on are *unseen*, and tested in sets of their own.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from i4d_bench.data.frames import Frames

SPLITS = ("train", "val", "test")
SETS = ("recon", "self", "cross", "novel", "extreme")
UNSEEN = "unseen_"
"""Before a set's name: the same of real people who were never trained on. Without it, of those who were, at other moments."""
EVERY_SET = (*SETS, *(UNSEEN + name for name in ("recon", "self", "cross")))
SHARES = (0.60, 0.15, 0.25)
"""Of a real person's moments, in their order: those that are trained on, validated and tested with."""
MOST_FRAMES, MOST_DRIVERS = 48, 8
"""Of a test person of real video: frames that drive in one set, and other people who do."""
NO_TRUTH = -1

# Rendered test people. Expression 0 is the source's, 1 and 2 are held-out combinations, 3 is extreme and 4 is the
# partner's expression 1 on this face: the truth of cross-reenactment.
TEST_KINDS = ("train", "test", "test", "extreme", "partner")
SOURCE_VIEW, SIDE_VIEW, WIDE_VIEW = 0, 1, 2
YAW = {SOURCE_VIEW: (0, 12), SIDE_VIEW: (0, 35), WIDE_VIEW: (35, 60)}


@dataclass(frozen=True)
class Triples:
    """Rows of a test set: frame numbers. `target` is NO_TRUTH where nobody knows the right image."""

    source: Int[np.ndarray, " T"]
    driving: Int[np.ndarray, " T"]
    target: Int[np.ndarray, " T"]

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index) -> Triples:
        return Triples(self.source[index], self.driving[index], self.target[index])


NOTHING = Triples(*[np.zeros(0, int)] * 3)


def partner(person: int, people: int) -> int:
    """Whose expression drives test person `person` in cross-reenactment: the next one."""
    return (person + 1) % people


def yaw(frames: Frames) -> Float[np.ndarray, " F"]:
    """Degrees between the face's forward axis (canonical z) and the direction to the camera, signed."""
    towards = _towards(frames)
    return np.degrees(np.arctan2(towards[:, 0], towards[:, 2]))


def pitch(frames: Frames) -> Float[np.ndarray, " F"]:
    """Degrees of the camera above the face's horizontal plane."""
    towards = _towards(frames)
    return np.degrees(np.arctan2(towards[:, 1], np.hypot(towards[:, 0], towards[:, 2])))


def _towards(frames: Frames) -> Float[np.ndarray, "F 3"]:
    """Where the cameras are."""
    return -np.einsum("fij,fi->fj", frames.viewmats[:, :3, :3], frames.viewmats[:, :3, 3])


def split_of(frames: Frames) -> Int[np.ndarray, " F"]:
    """Index into SPLITS for every frame. Where a data set of real people says itself who is tested, and has nobody to validate
    with, the last of each training person's moments do."""
    real, own = frames.meta["kind"] == "clips", "split" in frames.arrays
    if not real and not own:
        bounds = np.cumsum([frames.meta["people"][s] for s in SPLITS])
        return np.searchsorted(bounds, frames.identity, side="right")
    out = np.array(frames.split, int) if own else np.zeros(len(frames), int)
    if real and not (own and (out == SPLITS.index("val")).any()):
        shares = SHARES[:1] / np.sum(SHARES[:2]) if own else np.cumsum(SHARES[:2])
        for of in by_person(frames, out == SPLITS.index("train")):
            moments, rank = np.unique(frames.expression[of], return_inverse=True)
            begin = np.maximum(1, (shares * len(moments) + 1e-9).astype(int))
            out[of] = np.searchsorted(begin, rank, side="right")
    return out


def by_person(frames: Frames, within: Bool[np.ndarray, " F"]) -> list[Int[np.ndarray, " K"]]:
    """The frames of each person within these, in their order."""
    index = np.flatnonzero(within)
    index = index[np.argsort(frames.identity[index], kind="stable")]
    return np.split(index, np.flatnonzero(np.diff(frames.identity[index])) + 1) if len(index) else []


def source_frames(frames: Frames, within: Int[np.ndarray, " K"]) -> Int[np.ndarray, " S"]:
    """Those of `within` that may serve as the source image: near frontal, or each person's most frontal tenth."""
    angle = np.abs(yaw(frames)[within])
    if frames.meta["kind"] != "clips":
        return within[angle <= YAW[SOURCE_VIEW][1] + 0.5]
    chosen = []
    for person in np.unique(frames.identity[within]):
        mine = frames.identity[within] == person
        chosen.append(within[mine & (angle <= max(np.quantile(angle[mine], 0.1), 12))])
    return np.concatenate(chosen)


def triples(frames: Frames, split: str, name: str) -> Triples:
    """The rows of set `name` (one of EVERY_SET) of the split; empty where it has none."""
    if frames.meta["kind"] == "clips":
        return _clip_triples(frames, split, name)
    within = np.flatnonzero(split_of(frames) == SPLITS.index(split))
    if split == "train":
        raise ValueError("training draws its own batches")
    views, kinds = 3, len(TEST_KINDS)
    grid = within.reshape(-1, kinds, views)  # written person by person, expression by expression, view by view
    people = len(grid)
    if name.startswith(UNSEEN) or (name == "cross" and people < 2):
        return NOTHING
    source = grid[:, 0, SOURCE_VIEW]
    both = np.stack([grid[:, 1, SIDE_VIEW], grid[:, 2, SIDE_VIEW]], 1).reshape(-1)
    others = grid[[partner(p, people) for p in range(people)]]
    rows = {
        "recon": (source, source, source),
        "self": (source.repeat(2), both, both),
        "cross": (source, others[:, 1, SIDE_VIEW], grid[:, 4, SIDE_VIEW]),
        "novel": (source, grid[:, 1, WIDE_VIEW], grid[:, 1, WIDE_VIEW]),
        "extreme": (source, grid[:, 3, SIDE_VIEW], grid[:, 3, SIDE_VIEW]),
    }
    return Triples(*rows[name])


def other_view(index: Int[np.ndarray, " T"]) -> Int[np.ndarray, " T"]:
    """In a rendered world: test frames of the same people and expressions as these wide ones, seen from the side view."""
    return index - (WIDE_VIEW - SIDE_VIEW)


def own_expressions(source: Int[np.ndarray, " T"]) -> Int[np.ndarray, "T 4"]:
    """In a rendered world: the frames of the same people near frontal with each expression that is their own."""
    own = [k for k, kind in enumerate(TEST_KINDS) if kind != "partner"]
    return source[:, None] + np.array(own) * len(YAW)


def self_driven(frames: Frames, split: str) -> Triples:
    """Self-reenactment of the people that were trained on, where the split has such, else of the others."""
    seen = triples(frames, split, "self")
    return seen if len(seen) else triples(frames, split, UNSEEN + "self")


def _clip_triples(frames: Frames, split: str, name: str) -> Triples:
    """Real video. The source is the most frontal frame that was trained on, or of the unseen any; the split's others drive. In
    cross-reenactment up to MOST_DRIVERS others do, in a circle, so that each drives about as often."""
    part, angle = split_of(frames), np.abs(yaw(frames))
    everybody = {int(frames.identity[of[0]]): of for of in by_person(frames, np.ones(len(frames), bool))}
    trained = {p: of[part[of] == SPLITS.index("train")] for p, of in everybody.items()}
    shown = {p: own for p, of in everybody.items() if len(own := of[part[of] == SPLITS.index(split)])}
    drivers = shown if len(shown) > 1 else everybody
    unseen, kind = name.startswith(UNSEEN), name.removeprefix(UNSEEN)
    rows: list[tuple[int, np.ndarray]] = []
    for p, own in shown.items():
        if unseen == bool(len(trained[p])):
            continue
        among = own if unseen else trained[p]
        source = among[angle[among].argmin()]
        if kind == "recon":
            rows.append((source, among[among == source]))
        elif kind == "self":
            rows.append((source, _evenly(own[own != source], MOST_FRAMES)))
        elif kind == "cross":
            others = np.array([q for q in drivers if q > p] + [q for q in drivers if q < p], int)
            others = _evenly(others, MOST_DRIVERS)
            rows += [(source, _evenly(drivers[q], MOST_FRAMES // len(others))) for q in others]
    if not rows:
        return NOTHING
    source, driving = np.repeat([s for s, _ in rows], [len(d) for _, d in rows]), np.concatenate([d for _, d in rows])
    return Triples(source, driving, np.full(len(driving), NO_TRUTH) if kind == "cross" else driving)


def _evenly(items: Int[np.ndarray, " K"], most: int) -> Int[np.ndarray, " k"]:
    """So many of them at most, the first and the last among them."""
    return items[np.unique(np.linspace(0, len(items) - 1, most).astype(int))] if len(items) else items


def rng(*key) -> np.random.Generator:
    """A generator that depends on `key` alone: the same on every machine."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8], "little"))
