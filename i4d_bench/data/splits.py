"""The splits, as code: who and what is trained on, and the (source, driving, target) triples of every test set.

Rendered worlds: training people never appear in a test; test expressions are held-out combinations, and `extreme` ones
are strong and asymmetric; training views lie within ±35° of yaw, `novel` ones reach ±60°. Real video: the last quarter
of every video is the test part, unless the data set keeps its people apart (array `split`, from tracked data of several).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from i4d_bench.data.frames import Frames

SPLITS = ("train", "val", "test")
SETS = ("recon", "self", "cross", "novel", "extreme")
HELD_OUT = 0.75
"""Share of each video that is trained on."""
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
    """Index into SPLITS for every frame."""
    if "split" in frames.arrays:
        return np.asarray(frames.split, int)
    if frames.meta["kind"] == "clips":
        out = np.zeros(len(frames), int)
        for person in np.unique(frames.identity):
            of = np.flatnonzero(frames.identity == person)
            out[of[max(1, int(len(of) * HELD_OUT)) :]] = 2
        return out
    bounds = np.cumsum([frames.meta["people"][s] for s in SPLITS])
    return np.searchsorted(bounds, frames.identity, side="right")


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
    """The rows of set `name` ("recon", "self", "cross", "novel", "extreme") of the split; empty where it has none."""
    if frames.meta["kind"] == "clips":
        return _clip_triples(frames, split, name)
    within = np.flatnonzero(split_of(frames) == SPLITS.index(split))
    if split == "train":
        raise ValueError("training draws its own batches")
    views, kinds = 3, len(TEST_KINDS)
    grid = within.reshape(-1, kinds, views)  # written person by person, expression by expression, view by view
    people = len(grid)
    if name == "cross" and people < 2:
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


def _clip_triples(frames: Frames, split: str, name: str, most: int = 48) -> Triples:
    """Real video: self = the held-out part of the source's own video, cross = another person's held-out part. Of people who are
    kept apart, those of the split are tested (without validation people those of the test), on all their frames but the source."""
    part, angle = split_of(frames), np.abs(yaw(frames))
    apart = "split" in frames.arrays
    within = np.flatnonzero(part == SPLITS.index(split)) if apart else np.arange(len(frames))
    people = np.unique(frames.identity[within if len(within) else part == SPLITS.index("test")])
    first, held = {}, {}
    order = np.argsort(frames.identity, kind="stable")
    everybody, begin = np.unique(frames.identity[order], return_index=True)
    for p, mine in zip(everybody, np.split(order, begin[1:]), strict=True):
        start = mine if apart else mine[part[mine] == 0]
        first[p] = start[angle[start].argmin()]
        rest = mine[mine != first[p]] if apart else mine[part[mine] == 2]
        held[p] = rest[np.unique(np.linspace(0, len(rest) - 1, most).astype(int))] if len(rest) else rest
    if name == "recon":
        s = np.array([first[p] for p in people])
        return Triples(s, s, s)
    if name == "self":
        d = np.concatenate([held[p] for p in people])
        return Triples(np.concatenate([np.full(len(held[p]), first[p]) for p in people]), d, d)
    if name == "cross" and len(held) > 1:
        others = people if len(people) > 1 else np.setdiff1d(everybody, people)
        pairs = [(first[p], held[others[partner(i, len(others))]]) for i, p in enumerate(people)]
        d = np.concatenate([h for _, h in pairs])
        return Triples(np.concatenate([np.full(len(h), s) for s, h in pairs]), d, np.full(len(d), NO_TRUTH))
    return NOTHING


def rng(*key) -> np.random.Generator:
    """A generator that depends on `key` alone: the same on every machine."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8], "little"))
