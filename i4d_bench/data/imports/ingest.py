"""Tracked data of other tools → a data set: `i4d-bench ingest --format vhap|gagavatar`.

Crops, masks and cameras as the suite wants them, the tracker's FLAME coefficients as they are. A person who is finished is not
processed again: the part waits in a hidden folder beside `out` until the data set is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from i4d_bench import outputs
from i4d_bench import progress as bars
from i4d_bench.cache import file_digest, writing
from i4d_bench.data import frames as store
from i4d_bench.data.imports import gagavatar, vhap
from i4d_bench.data.imports.person import FEWEST, FPS, Recorder
from i4d_bench.data.imports.tracked import Head, Take
from i4d_bench.data.splits import SPLITS
from i4d_bench.data.video import quiet
from i4d_bench.data.video.clips import SIZES
from i4d_bench.data.video.landmarker import find_model
from i4d_bench.heads.flame import load
from i4d_bench.printing import counted
from i4d_bench.types import UserError

VERSION = 1
"""Part of every part's key: raise it when what comes out changes."""
FORMATS: dict[str, tuple[str, Callable[[Path], Iterator[Take]]]] = {
    "vhap": ("VHAP", vhap.read),
    "gagavatar": ("GAGAvatar's tracker", gagavatar.read),
}
"""Name of a format → whose it is, and what reads a folder of it, person by person."""
TESTED = 0.25
"""Share of several people who are kept apart for the test."""
FLAME = ("flame_shape", "flame_expression", "flame_pose")


@dataclass(frozen=True)
class ImportReport:
    """What came of it. `meta` is the data set's dataset.json."""

    path: Path
    meta: dict[str, Any]

    def lines(self) -> list[str]:
        """For people: a line per person, one per reason for which pictures were left out, and what is not as in video."""
        meta, out = self.meta, []
        for v in meta["videos"]:
            kept = f"{v['file']}: {v['frames']} of {v['frames'] + v['skipped']} pictures kept"
            out.append(
                kept
                if v["landmark_px"] is None
                else f"{kept}, landmarks {v['landmark_px']:.1f} px from the tracked head"
            )
        counts = Counter(s["reason"] for s in meta["skipped"]).most_common()
        out += [f"left out: {count} × {reason}" for reason, count in counts]
        out += [f"left out: {v['file']}, {v['reason']}" for v in meta["left_out"]]
        return [
            *out,
            *meta["notes"],
            f"{self.path}: {counted(meta['frames'], 'frame')} of {counted(len(meta['videos']), 'person', 'people')}",
        ]


@dataclass(frozen=True)
class _Settings:
    format: str
    flame: dict[str, str]  # file, digest
    model: Path | None
    size: int
    stride: int
    max_frames: int | None

    def key(self, take: Take) -> str:
        seen = [version("mediapipe"), file_digest(self.model)] if self.model else None
        parts = [VERSION, self.format, self.flame["digest"], seen, self.size, self.stride, self.max_frames]
        return hashlib.sha256(repr([*parts, take.name, take.content]).encode()).hexdigest()[:16]

    def select(self, take: Take) -> Take:
        """Every `stride`-th moment, `max_frames` pictures at most."""
        moments = set(sorted({s.number for s in take.shots})[:: self.stride])
        keep = [k for k, s in enumerate(take.shots) if s.number in moments][: self.max_frames]
        splits = take.splits and [take.splits[k] for k in keep]
        return replace(take, shots=[take.shots[k] for k in keep], splits=splits)


@dataclass(frozen=True)
class _Part:
    """A finished person: the folder of the arrays, and part.json."""

    folder: Path
    name: str
    info: dict[str, Any]

    @property
    def usable(self) -> bool:
        return self.info["frames"] >= FEWEST

    @property
    def why(self) -> str:
        """What became of the pictures."""
        reasons = Counter(reason for _, reason in self.info["skipped"]).most_common()
        return ", ".join(
            [f"{counted(self.info['frames'], 'picture')} kept", *(f"{count} × {reason}" for reason, count in reasons)]
        )


def ingest(
    folders: list[Path],
    out: Path,
    *,
    format: str,
    flame: Path | None,
    size: int = 128,
    model: Path | None = None,
    stride: int = 1,
    max_frames: int | None = None,
    progress: bool = True,
) -> ImportReport:
    """Makes the data set `out` (i4d_bench.data.frames) of folders in that format (a key of FORMATS).

    flame: the FLAME file that the tracker used. size: side of the crops, pixels. model: MediaPipe's face_landmarker.task, else
    where `find_model` looks; it may be missing. stride: takes every so many moments. max_frames: looks at no more than this many
    pictures of a person. The last quarter of several people is the test set, unless the format says who is.
    Raises UserError when a folder cannot be read or nobody in it can be used, or `out` cannot be written; `out` is then as it
    was, and people who were finished are not processed again next time.
    """
    folders, out = [Path(f) for f in folders], outputs.data_set(Path(out))
    flame = _checked(folders, flame, size, stride, max_frames)
    found = _optional_model(model)
    settings = _Settings(format, {"file": flame.name, "digest": file_digest(flame)}, found, size, stride, max_frames)
    if not _finished(out, folders, settings):
        parts = out.with_name(f".{out.name}.parts")
        try:
            with writing(out):
                parts.mkdir(parents=True, exist_ok=True)
                _build(folders, out, parts, settings, Head(load(flame)), progress)
        finally:
            if parts.exists() and not any(parts.iterdir()):
                parts.rmdir()
    report = ImportReport(out, store.open_frames(out).meta)
    if progress:
        for line in report.lines():
            bars.console.print(line)
    return report


def _checked(folders: list[Path], flame: Path | None, size: int, stride: int, max_frames: int | None) -> Path:
    """The FLAME file, when everything can be begun."""
    if flame is None:
        raise UserError("tracked coefficients mean nothing without the FLAME file that they belong to: name it with --flame (the "
                        "pictures alone are a video: ingest FOLDER/images)")  # fmt: skip
    if not folders:
        raise UserError("name at least one folder to ingest")
    if not SIZES[0] <= size <= SIZES[1]:
        raise UserError(f"the crops' size must lie between {SIZES[0]} and {SIZES[1]} pixels, not {size}")
    if stride < 1 or (max_frames is not None and max_frames < FEWEST):
        raise UserError(f"stride must be at least 1 and max_frames at least {FEWEST}")
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"there is no folder {folder}")
    if len({f.resolve() for f in folders}) < len(folders):
        raise UserError("a folder is named twice: name it once")
    return Path(flame)


def _optional_model(path: Path | None) -> Path | None:
    """MediaPipe's model. Nobody needs it who did not ask for it: without, the data set says what it lacks."""
    try:
        return find_model(path)
    except UserError:
        if path is not None:
            raise
        return None


def _finished(out: Path, folders: list[Path], settings: _Settings) -> bool:
    """Whether `out` already is what is asked for."""
    if not (out / "dataset.json").is_file():
        return False
    meta = store.open_frames(out).meta
    if meta.get("source") != settings.format or "keys" not in meta:
        return False
    read = FORMATS[settings.format][1]
    return meta["keys"] == [settings.key(take) for folder in folders for take in read(folder)]


def _build(folders: list[Path], out: Path, parts: Path, settings: _Settings, head: Head, progress: bool) -> None:
    with quiet.landmarker(settings.model) if settings.model else nullcontext() as landmarker:
        everybody = _people(folders, parts, settings, Recorder(head, landmarker, settings.size), progress)
    with tempfile.TemporaryDirectory(dir=parts, prefix="joined-") as joined:
        usable = [p for p in everybody if p.usable]
        store.write(out, _joined(usable, Path(joined)), _meta(folders, everybody, settings))
    shutil.rmtree(parts)


def _people(folders: list[Path], parts: Path, settings: _Settings, record: Recorder, progress: bool) -> list[_Part]:
    """Everybody's part. Raises UserError where a folder has nobody who can be used."""
    out: list[_Part] = []
    for folder in folders:
        own = []
        for take in FORMATS[settings.format][1](folder):
            part = parts / settings.key(take)
            if not (part / "part.json").is_file():
                _make_part(settings.select(take), part, record, progress)
            own.append(_Part(part, take.name, json.loads((part / "part.json").read_text(encoding="utf-8"))))
        if not any(p.usable for p in own):
            raise UserError(f"{folder} shows nobody who can be used: {own[0].name}, {own[0].why}")
        out += own
    return out


def _make_part(take: Take, part: Path, record: Recorder, progress: bool) -> None:
    """Processes one person into the folder `part`, which appears when it is complete."""

    def show(items, label: str, total: int):
        return bars.track(items, f"{take.name}: {label}", total) if progress else items

    partial = Path(tempfile.mkdtemp(dir=part.parent, prefix=f"{part.name}-"))
    try:
        (partial / "part.json").write_text(json.dumps(record(take, partial, show)), encoding="utf-8")
        os.replace(partial, part)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _joined(made: list[_Part], folder: Path) -> dict[str, np.ndarray]:
    """The parts' arrays one after another, on disk; identity is the part's number, coefficients are filled up with zeros."""
    arrays = {}
    for name in (*store.ARRAYS, *FLAME):
        pieces = [np.load(p.folder / f"{name}.npy", mmap_mode="r")[: p.info["frames"]] for p in made]
        if name == "identity":
            pieces = [np.full(len(p), k, np.int32) for k, p in enumerate(pieces)]
        shape = (sum(map(len, pieces)), *np.max([p.shape[1:] for p in pieces], 0).astype(int).tolist())
        arrays[name] = store.create(folder / f"{name}.npy", pieces[0].dtype, shape)
        np.concatenate(pieces, out=arrays[name])
    split = _split(made)
    return arrays if split is None else arrays | {"split": split}


def _split(made: list[_Part]) -> np.ndarray | None:
    """Who is tested: as the format says where it keeps some for training and some for the test, else the last quarter of several
    people. None of one person alone: the last quarter of the pictures is then the test, as of any video."""
    given = [s for part in made for s in part.info["splits"] or [""] * part.info["frames"]]
    if {"train", "test"} <= set(given) <= set(SPLITS):
        return np.array([SPLITS.index(s) for s in given], np.uint8)
    if len(made) == 1:
        return None
    tested = max(1, round(TESTED * len(made)))
    return np.concatenate([
        np.full(part.info["frames"], SPLITS.index("test" if k >= len(made) - tested else "train"), np.uint8)
        for k, part in enumerate(made)
    ])  # fmt: skip


def _meta(folders: list[Path], everybody: list[_Part], settings: _Settings) -> dict[str, Any]:
    """Names only: nothing of this machine's folders."""
    made = [p for p in everybody if p.usable]
    tracker = FORMATS[settings.format][0]
    notes = [f"{p.name}: {note}" for p in made for note in p.info["notes"]]
    if settings.model is None:
        notes.append("MediaPipe's model was not there: landmarks are the tracked mesh's, the 52 expression coefficients are empty, "
                     "and runs want --driver flame")  # fmt: skip
    rows = [{"file": p.name, "frames": p.info["frames"], "skipped": len(p.info["skipped"]), "landmark_px": p.info["landmark_px"]}
            for p in made]  # fmt: skip
    return {
        "kind": "clips",
        "source": settings.format,
        "sources": [f.resolve().name for f in folders],
        "keys": [p.folder.name for p in everybody],
        "videos": rows,
        "fps": [FPS] * len(made),
        "size": settings.size,
        "stride": settings.stride,
        "max_frames": settings.max_frames,
        "mask": ", ".join(sorted({p.info["mask"] for p in made})),
        "driver": "blendshapes" if settings.model else "flame",
        "flame": {"tracker": tracker, **settings.flame},
        "versions": {name: version(name) for name in ("mediapipe", "numpy") if name == "numpy" or settings.model},
        "skipped": [{"video": p.name, "frame": frame, "reason": why} for p in made for frame, why in p.info["skipped"]],
        "left_out": [{"file": p.name, "reason": p.why} for p in everybody if not p.usable],
        "notes": notes,
    }
