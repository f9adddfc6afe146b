"""Several data sets of real people as one, side by side: `--data A --data B`. Made once, and kept in the cache."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from i4d_bench.cache import cache_dir, make_once
from i4d_bench.config.experiment import World, digest
from i4d_bench.data import frames as store
from i4d_bench.data.frames import Frames, open_frames
from i4d_bench.data.seen import people
from i4d_bench.data.splits import split_of
from i4d_bench.types import UserError

VERSION = 1
"""Raise it when what comes out changes."""
FLAME = ("flame_shape", "flame_expression", "flame_pose")
CHUNK = 256
"""Frames that are resampled at a time."""


def open_real(world: World) -> Frames:
    """The real people of a world of clips, each split as in its own data set. Raises UserError for what is no data set of real
    people, and for the same video in two of them."""
    assert world.path is not None
    parts = [open_frames(path) for path in (world.path, *world.further)]
    if len(parts) == 1:
        return parts[0]
    _check(parts)
    folder = cache_dir() / "data" / f"joined-{digest([VERSION, [part.meta['hash'] for part in parts], _names(parts)])}"
    make_once(folder, lambda: _join(parts, folder))
    return open_frames(folder)


def _check(parts: list[Frames]) -> None:
    """Raises UserError where somebody would stand on both sides of a split, and for what is not real video."""
    for part in parts:
        if part.meta["kind"] != "clips":
            raise UserError(
                f"{part.path} is no real video ({part.meta['kind']}): a rendered world goes beside it by --world"
            )
    hashes = Counter(part.meta["hash"] for part in parts)
    videos = Counter(key for part in parts for key in part.meta.get("keys", []))
    if max([*hashes.values(), *videos.values()]) > 1:
        raise UserError(f"{', '.join(str(part.path) for part in parts)} share videos: a person would count as two")


def _names(parts: list[Frames]) -> list[str]:
    return [part.path.resolve().name for part in parts]


def _join(parts: list[Frames], folder: Path) -> None:
    size = min(part.resolution for part in parts)
    known = [[part.meta.get("flame"), *(part.arrays[n].shape[1:] for n in FLAME if n in part.arrays)] for part in parts]
    own = list(FLAME) if known[0][0] and all(k == known[0] for k in known) else []
    times = ["times"] if all("times" in part.arrays for part in parts) else []
    with tempfile.TemporaryDirectory(dir=_made(folder.parent), prefix="joined-") as temporary:
        arrays = {}
        for name in (*store.ARRAYS, "split", *times, *own):
            length, like = sum(map(len, parts)), next(_chunks(parts, name, size))
            arrays[name] = store.create(Path(temporary) / f"{name}.npy", like.dtype, (length, *like.shape[1:]))
            begin = 0
            for chunk in _chunks(parts, name, size):
                arrays[name][begin : begin + len(chunk)] = chunk
                begin += len(chunk)
        store.write(folder, arrays, _meta(parts, size, known[0][0] if own else None))


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _chunks(parts: list[Frames], name: str, size: int) -> Iterator[np.ndarray]:
    """An array of all parts, some frames at a time: people renumbered, pictures at size × size pixels."""
    people_before = 0
    for part in parts:
        who, number = np.unique(part.identity, return_inverse=True)
        for i in range(0, len(part), CHUNK):
            of = slice(i, i + CHUNK)
            if name == "identity":
                yield (number[of] + people_before).astype(np.int32)
            elif name == "split":
                yield split_of(part)[of].astype(np.uint8)
            else:
                yield _resampled(name, part.arrays[name][of], size / part.resolution)
        people_before += len(who)


def _resampled(name: str, array: np.ndarray, scale: float) -> np.ndarray:
    """Pictures, and what is measured in their pixels."""
    if scale == 1:
        return array
    if name in ("Ks", "landmarks"):
        return (array * (np.array([[scale], [scale], [1]]) if name == "Ks" else scale)).astype(array.dtype)
    if name == "region":
        index = ((np.arange(round(array.shape[1] * scale)) + 0.5) / scale).astype(int)
        return array[:, index][:, :, index]
    if name in ("rgb", "alpha"):
        image = torch.from_numpy(np.ascontiguousarray(array)).float().reshape(*array.shape[:3], -1).movedim(-1, 1)
        side = round(array.shape[1] * scale)
        smaller = F.interpolate(image, (side, side), mode="area").movedim(1, -1)
        return smaller.round().byte().numpy().reshape(len(array), side, side, *array.shape[3:])
    return array


def _meta(parts: list[Frames], size: int, flame: dict[str, Any] | None) -> dict[str, Any]:
    """Who is who, by the names that the parts have."""
    videos = [
        v for part in parts for v in part.meta.get("videos") or [{"file": name} for name in people(part).values()]
    ]
    rates = [part.meta.get("fps", [25.0]) for part in parts]
    known = [len(rate) == len(people(part)) for rate, part in zip(rates, parts, strict=True)]
    meta = {"kind": "clips", "source": "joined", "sources": _names(parts), "videos": videos, "size": size}
    meta |= {"fps": [fps for rate in rates for fps in rate]} if all(known) else {}
    return meta | ({"flame": flame} if flame else {})
