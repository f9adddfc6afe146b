"""Real video → a data set: `i4d-bench ingest`. One person per video; every frame is kept or listed with the reason.

A finished video is not processed again: its part waits in a hidden folder beside `out`, under a hash of its content and
of the settings, until the data set is complete.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import UInt8

from i4d_bench import outputs
from i4d_bench import progress as bars
from i4d_bench.cache import writing
from i4d_bench.data import frames as store
from i4d_bench.data.video import files, quiet, tracking
from i4d_bench.data.video.landmarker import Landmarker, find_model
from i4d_bench.data.video.matting import METHOD
from i4d_bench.printing import counted
from i4d_bench.types import UserError

VERSION = 2
"""Part of every part's key: raise it when what comes out changes."""
SIZES = (128, 1024)
FEWEST = 2
"""Frames that a video must give: one to learn from, one to test on."""


@dataclass(frozen=True)
class IngestReport:
    """What came of it. `meta` is the data set's dataset.json."""

    path: Path
    meta: dict[str, Any]

    def lines(self) -> list[str]:
        """For people: a line per video, then one per reason for which frames were left out."""
        out = []
        for v in self.meta["videos"]:
            kept = f"{v['frames']} of {v['frames'] + v['skipped']} frames kept"
            kept += f", tone-mapped from {v['hdr']}" if v["hdr"] else ""
            out.append(f"{v['file']}: {kept}, landmarks {v['reprojection_px']:.2f} px from the rigid head (median)")
        for reason, count in Counter(s["reason"] for s in self.meta["skipped"]).most_common():
            out.append(f"left out: {count} × {reason}")
        return [
            *out,
            f"{self.path}: {counted(self.meta['frames'], 'frame')} of {counted(len(self.meta['videos']), 'person', 'people')}",
        ]


F = TypeVar("F", bound=tuple)
"""A frame's number first."""


@dataclass(frozen=True)
class _Settings:
    size: int
    stride: int
    max_frames: int | None

    def key(self, path: Path, model: Path) -> str:
        parts = [VERSION, version("mediapipe"), _digest(model), _digest(path), self.size, self.stride, self.max_frames]
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

    def select(self, frames: Iterable[F]) -> Iterator[F]:
        """Every `stride`-th frame, `max_frames` at most."""
        return itertools.islice((f for f in frames if f[0] % self.stride == 0), self.max_frames)

    def expected(self, count: int) -> int:
        count = -(-count // self.stride)
        return count if self.max_frames is None else min(count, self.max_frames)


def _digest(path: Path) -> str:
    try:
        digest = hashlib.sha256()
        for part in files.images(path) if path.is_dir() else [path]:
            with part.open("rb") as f:
                while block := f.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()
    except OSError as e:
        raise UserError(f"{path} cannot be read: {e.strerror or e}") from e


def ingest(
    videos: list[Path],
    out: Path,
    *,
    size: int = 256,
    model: Path | None = None,
    stride: int = 1,
    max_frames: int | None = None,
    progress: bool = True,
) -> IngestReport:
    """Makes the data set `out` (i4d_bench.data.frames) of talking-head videos, one identity each, in the order given.

    size: side of the crops, pixels. model: MediaPipe's face_landmarker.task, else where `find_model` looks.
    stride: takes every so many frames. max_frames: looks at no more than this many frames of a video.
    Raises UserError when a video cannot be read or shows no usable face, or `out` cannot be written; `out` is then as
    it was, and the videos that were finished are not processed again next time.
    """
    videos, out = [Path(v) for v in videos], outputs.data_set(Path(out))
    settings = _checked(videos, size, stride, max_frames)
    model = find_model(model)
    keys = [settings.key(path, model) for path in videos]
    for a, b in itertools.combinations(range(len(videos)), 2):
        if keys[a] == keys[b]:
            raise UserError(f"{videos[a]} and {videos[b]} are the same video: name it once")
    done = _finished(out, keys, [path.name for path in videos])
    if done is None:
        parts = out.with_name(f".{out.name}.parts")
        try:
            with writing(out):
                parts.mkdir(parents=True, exist_ok=True)
                done = _build(videos, keys, parts, out, settings, model, progress)
        finally:
            if parts.exists() and not any(parts.iterdir()):
                parts.rmdir()
    if progress:
        for line in done.lines():
            bars.console.print(line)
    return done


def _checked(videos: list[Path], size: int, stride: int, max_frames: int | None) -> _Settings:
    if not videos:
        raise UserError("name at least one video to ingest")
    if not SIZES[0] <= size <= SIZES[1]:
        raise UserError(f"the crops' size must lie between {SIZES[0]} and {SIZES[1]} pixels, not {size}")
    if stride < 1 or (max_frames is not None and max_frames < FEWEST):
        raise UserError(f"stride must be at least 1 and max_frames at least {FEWEST}")
    for path in videos:
        files.check(path)  # all are looked at before any work is done
    return _Settings(size, stride, max_frames)


def _finished(out: Path, keys: list[str], names: list[str]) -> IngestReport | None:
    """The report of `out` when it already is what was asked for."""
    if not (out / "dataset.json").is_file():
        return None
    meta = store.open_frames(out).meta
    same = meta["kind"] == "clips" and meta.get("keys") == keys and meta.get("sources") == names
    return IngestReport(out, meta) if same else None


def _build(
    videos: list[Path], keys: list[str], parts: Path, out: Path, settings: _Settings, model: Path, progress: bool
) -> IngestReport:
    made = []
    with bars.Whole(len(videos), "videos") as whole:
        for path, key in whole.parts(zip(videos, keys, strict=True)):
            part = parts / key
            if not (part / "part.json").is_file():
                _make_part(path, part, settings, model, progress)
            made.append(part)
    infos = [json.loads((part / "part.json").read_text(encoding="utf-8")) for part in made]
    with tempfile.TemporaryDirectory(dir=parts, prefix="joined-") as joined:
        store.write(out, _join(made, Path(joined)), _meta(videos, keys, infos, settings))
    shutil.rmtree(parts)
    return IngestReport(out, store.open_frames(out).meta)


def _make_part(path: Path, part: Path, settings: _Settings, model: Path, progress: bool) -> None:
    """Processes one video into the folder `part`, which appears when it is complete."""

    def show(items, label: str, total: int):
        return bars.track(items, f"{path.name}: {label}", total) if progress else items

    lost: list[int] = []
    fps, total = files.fps(path), settings.expected(files.frame_count(path))
    with quiet.landmarker(model, most=2) as landmarker:
        seen = show(settings.select(files.read_frames(path, lost)), "faces", total)
        track = tracking.find_faces(seen, landmarker)
    track.skipped += [(number, tracking.DAMAGED) for number, _ in settings.select((n, None) for n in lost)]
    track.skipped.sort()
    if len(track.numbers) < FEWEST:
        if not track.skipped:
            raise UserError(f"{path} holds {len(track.numbers)} frame to look at, and {FEWEST} are the least")
        why = ", ".join(f"{n} × {reason}" for reason, n in Counter(r for _, r in track.skipped).most_common())
        raise UserError(f"{path} shows no usable face ({counted(len(track.numbers), 'frame')} kept; {why}): it needs one person's "
                        f"face, whole and near enough")  # fmt: skip
    heads = tracking.fit_track(track, fps, settings.size)
    partial = Path(tempfile.mkdtemp(dir=part.parent, prefix=f"{part.name}-"))
    try:
        tracking.write_arrays(partial, track, heads, settings.select(files.read_frames(path, [])), show)
        info = {
            "fps": fps,
            "hdr": files.hdr(path),
            "frames": len(track.numbers),
            "skipped": track.skipped,
            "reprojection_px": float(np.median(heads.error)),
        }
        (partial / "part.json").write_text(json.dumps(info), encoding="utf-8")
        os.replace(partial, part)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _join(parts: list[Path], folder: Path) -> dict[str, np.ndarray]:
    """The parts' arrays one after another, on disk; identity is the part's number."""
    arrays = {}
    for name in (*store.ARRAYS, "times"):
        pieces = [np.load(part / f"{name}.npy", mmap_mode="r") for part in parts]
        if name == "identity":
            pieces = [np.full(len(p), k, np.int32) for k, p in enumerate(pieces)]
        shape = (sum(map(len, pieces)), *pieces[0].shape[1:])
        arrays[name] = store.create(folder / f"{name}.npy", pieces[0].dtype, shape)
        np.concatenate(pieces, out=arrays[name])
    return arrays


def _meta(videos: list[Path], keys: list[str], infos: list[dict], settings: _Settings) -> dict[str, Any]:
    """File names only: nothing of this machine's folders."""
    names = [path.name for path in videos]
    skipped = [
        {"video": name, "frame": frame, "reason": reason}
        for name, info in zip(names, infos, strict=True)
        for frame, reason in info["skipped"]
    ]
    rows = [{"file": n, **i, "skipped": len(i["skipped"])} for n, i in zip(names, infos, strict=True)]
    errors, weights = ([i[k] for i in infos] for k in ("reprojection_px", "frames"))
    return {
        "kind": "clips",
        "source": "video",
        "sources": names,
        "keys": keys,
        "videos": rows,
        "fps": [i["fps"] for i in infos],
        "size": settings.size,
        "stride": settings.stride,
        "max_frames": settings.max_frames,
        "mask": METHOD,
        "reprojection_px": float(np.average(errors, weights=weights)),
        "driver": "blendshapes",
        "versions": {name: version(name) for name in ("mediapipe", "av", "numpy")},
        "skipped": skipped,
    }


def prepare_image(path: Path, size: int = 256, model: Path | None = None) -> dict[str, np.ndarray]:
    """The arrays of a data set with one frame: a photo cropped, cut out and given a camera as video frames are.

    Raises UserError when the photo cannot be read or does not show exactly one whole face.
    """
    rgb = files.read_image(path)
    with quiet.landmarker(model, most=2) as landmarker:
        try:
            return prepare(rgb, size, landmarker)
        except UserError as e:
            raise UserError(f"the photo {path} cannot be used ({e}): it must show one person's whole face") from e


def prepare(rgb: UInt8[np.ndarray, "H W 3"], size: int, landmarker: Landmarker) -> dict[str, np.ndarray]:
    """`prepare_image` of a picture, by a landmarker that finds up to two faces. Raises UserError: what is wrong with it."""
    picture = files.Picture(0, 0.0, rgb)
    track = tracking.find_faces([picture], landmarker)
    if not track.numbers:
        raise UserError(track.skipped[0][1])
    heads = tracking.fit_track(track, 1.0, size)
    with tempfile.TemporaryDirectory() as folder:
        tracking.write_arrays(Path(folder), track, heads, [picture], lambda items, label, total: items)
        return {name: np.load(Path(folder) / f"{name}.npy") for name in store.ARRAYS}
