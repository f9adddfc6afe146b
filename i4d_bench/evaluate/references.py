"""What is known without any avatar scores on the same samples (DESIGN §5): without these, a number says little.

`true frame`: what an avatar should show, by the same measures; what it has of reprojection is shading, of the identity leak what a
network itself takes from an expression. `source photo`: the photo itself, which never moves. `mean expression`: always the mean of
the people trained on. `other people`: true frames of two people, the zero of CSIM.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from i4d_bench.data.frames import Frames
from i4d_bench.data.splits import (
    EVERY_SET,
    NO_TRUTH,
    SPLITS,
    UNSEEN,
    Triples,
    other_view,
    own_expressions,
    split_of,
    triples,
)
from i4d_bench.evaluate.evaluator import driver_leak, identity_leaks, reader_scores, reprojection
from i4d_bench.loader import Loader
from i4d_bench.metrics import expression, identity
from i4d_bench.metrics.expression import Reader, VideoReader
from i4d_bench.metrics.identity import Embedder

TRUE, STILL, MEAN, OTHERS = NAMES = ("true frame", "source photo", "mean expression", "other people")
TELLS = 0.1
"""A face network whose scores of one person and of two lie closer together than this does not tell people apart there."""
References = dict[str, dict[str, dict[str, float]]]
"""By name (NAMES), set and metric."""


def references(
    loader: Loader,
    embedders: dict[str, Embedder],
    reader: Reader | None = None,
    video: VideoReader | None = None,
    batch: int = 32,
) -> References:
    """Of every test set, means over its samples; sets without a true frame have none."""
    out: References = {name: {} for name in NAMES}
    for set_ in EVERY_SET:
        rows = triples(loader.frames, "test", set_)
        if not len(rows) or (rows.target == NO_TRUTH).any():
            continue
        found: dict[str, dict[str, list[Tensor]]] = {name: {} for name in NAMES}
        for i in range(0, len(rows), batch):
            part = rows[slice(i, i + batch)]
            for metric, value in _steadiness(loader, embedders, set_, part).items():
                found[TRUE].setdefault(metric, []).append(value.cpu().double())
            for name, values in _of_part(loader, embedders, reader if set_ != "novel" else None, video, part).items():
                for metric, value in values.items():
                    found[name].setdefault(metric, []).append(value.cpu().double())
        people = torch.from_numpy(loader.frames.identity[rows.target].astype(np.int64))
        embedded = found.pop(OTHERS)
        out[OTHERS][set_] = {m: identity.impostor_mean(torch.cat(v), people) for m, v in embedded.items()}
        for name, values in found.items():
            out[name][set_] = {m: float(torch.cat(v).nanmean()) for m, v in values.items()}
    return out


def telling(found: References, net: str) -> bool:
    """Whether a face network tells the test people apart by what `references` found; true where nobody can know (one person)."""
    same, other = resemblance(found, net)
    return not same - other < TELLS


def resemblance(found: References, net: str) -> tuple[float, float]:
    """By a face network, of two pictures of one person and of two people, in self-reenactment: of the people seen in training or
    of the unseen, whoever is told apart less well. NaN where nobody can know."""
    sets = ("self", f"{UNSEEN}self")
    same, other = ([found[name].get(s, {}).get(f"csim_{net}", np.nan) for s in sets] for name in (STILL, OTHERS))
    return min(zip(same, other, strict=True), key=lambda pair: np.nan_to_num(pair[0] - pair[1], nan=np.inf))


def _of_part(
    loader: Loader, embedders: dict[str, Embedder], reader: Reader | None, video: VideoReader | None, part: Triples
) -> dict[str, dict[str, Tensor]]:
    """By name and metric a value per sample; of other people the true frames' embeddings."""
    frames, size = loader.frames, loader.frames.resolution
    true, still = (loader.photos(index, size).movedim(1, -1) for index in (part.target, part.source))
    wanted = torch.from_numpy(frames.coefficients[part.driving]).to(true.device)
    out: dict[str, dict[str, Tensor]] = {name: {} for name in NAMES}
    if reader is not None:
        out[TRUE] |= reader_scores(reader, loader, true, part.driving, part.target)
        out[MEAN]["aed_true"] = expression.aed(_mean(frames, wanted), wanted)
    if video is not None:
        about = frames.coefficients[part.driving], frames.landmarks[part.target], frames.viewmats[part.target]
        measured = video.score(true, *about)
        measured.pop("landmarks")
        out[TRUE] |= {k: torch.as_tensor(v) for k, v in measured.items()}
        out[MEAN]["aed_mp52"] = expression.aed(_mean(frames, wanted), wanted)
    embed: Callable[[Embedder, Tensor, np.ndarray], Tensor] = lambda network, images, index: network.embed(  # noqa: E731
        images, torch.from_numpy(frames.landmarks[index])
    )
    for net, network in embedders.items():
        embedded = embed(network, true, part.target)
        out[OTHERS][f"csim_{net}"] = embedded
        out[TRUE][f"csim_{net}"] = identity.csim(embedded, embedded)
        out[STILL][f"csim_{net}"] = identity.csim(embed(network, still, part.source), embedded)
    return out


def _steadiness(loader: Loader, embedders: dict[str, Embedder], set_: str, part: Triples) -> dict[str, Tensor]:
    """As the evaluator has it, of true frames, in the rendered worlds. That of one expression does not depend on who makes it."""
    if loader.frames.meta["kind"] == "clips":
        return {}
    show = lambda index: loader.photos(index, loader.frames.resolution).movedim(1, -1)  # noqa: E731
    if set_ == "novel":
        return reprojection(loader, part, show(part.target), show(other_view(part.target)))
    if set_ == "cross":
        return driver_leak(loader, part, show(part.target), show(part.target))
    if set_ == "recon":
        return identity_leaks(loader, embedders, part, show(own_expressions(part.source).reshape(-1)))
    return {}


def _mean(frames: Frames, like: Tensor) -> Tensor:
    """The mean expression of the training frames, once for each sample."""
    train = frames.coefficients[split_of(frames) == SPLITS.index("train")]
    return torch.from_numpy(np.nanmean(train, 0)).to(like).expand_as(like)
