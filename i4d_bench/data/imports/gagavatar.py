"""GAGAvatar's tracked data (PAPER §9): many people's pictures in one folder.

    img_lmdb       LMDB: name of a picture → encoded image, 512²
    optim.pkl      pickle: name → shapecode, expcode, posecode (root, jaw), eyecode, transform_matrix (PyTorch3D: x_camera =
                   5 x R + T, x to the left, y up; focal 12 in units of half the image's side)
    dataset.json   names by split; of a single tracked video there is none, and smoothed.pkl may stand beside optim.pkl

A name is VIDEO_NUMBER; who a video shows is not said, so every video counts as somebody.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from i4d_bench.data.imports.tracked import Shot, Take, rigid
from i4d_bench.data.splits import SPLITS
from i4d_bench.data.video.photos import opened
from i4d_bench.extras import install
from i4d_bench.heads.flame_pickle import plain, unpickle
from i4d_bench.types import UserError

SIDE = 512
FOCAL, SCALE = 12.0, 5.0
"""In units of half the side; of the head that was fitted, whose vertices are FLAME's times so much."""
UNTRACKED = "tracked parameters missing or damaged"
TO_OPENCV = np.diag([-1.0, -1.0, 1.0])


def read(folder: Path) -> Iterator[Take]:
    """The folder's videos, one after the other. Raises UserError when it is no such folder."""
    path = next((p for n in ("optim.pkl", "smoothed.pkl") if (p := folder / n).is_file()), None)
    if path is None or not (folder / "img_lmdb").exists():
        raise UserError(f"{folder} is not GAGAvatar's tracked data: there is no optim.pkl or no img_lmdb in it")
    records = _records(path)
    splits = _splits(folder / "dataset.json", records)
    videos: dict[str, list[str]] = {}
    for name in sorted(splits, key=_order):
        videos.setdefault(_order(name)[0], []).append(name)
    with _Pictures(folder / "img_lmdb") as pictures:
        for video, names in videos.items():
            content = [_stamp(path), pictures.stamp, [(name, splits[name]) for name in names]]
            known: list[str] = []
            take = Take(video, repr(content), splits=known)
            for name in names:
                try:
                    take.shots.append(_shot(name, records[name], partial(pictures.image, name)))
                    known.append(splits[name])
                except (KeyError, TypeError, ValueError):
                    take.skipped.append((name, UNTRACKED))
            yield take


def _records(path: Path) -> dict[str, Any]:
    records = unpickle(path, "pickle of tracked parameters")
    if not isinstance(records, dict) or not records or not all(isinstance(name, str) for name in records):
        raise UserError(f"{path} is not a dictionary of tracked pictures by their names")
    return records


def _splits(path: Path, records: dict[str, Any]) -> dict[str, str]:
    """Every picture's split, empty where nothing says it."""
    if not path.is_file():
        return dict.fromkeys(records, "")
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        splits = {str(name): split for split in SPLITS for name in index.get(split, [])}
    except (OSError, ValueError, TypeError, AttributeError) as e:
        raise UserError(f"{path} is not a readable list of pictures by split ({type(e).__name__}: {e})") from e
    if not splits:
        raise UserError(f"{path} lists no pictures under {', '.join(SPLITS)}")
    return splits


def _order(name: str) -> tuple[str, int, str]:
    """The video, the number in it, and the name, for where it has no number."""
    video, _, number = name.rpartition("_")
    return (video, int(number), name) if video and number.isdecimal() else (video or name, 0, name)


def _stamp(path: Path) -> tuple[int, int]:
    """Instead of a large file's content: its size and time of change."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _shot(name: str, record: Any, image) -> Shot:
    """KeyError, TypeError or ValueError where the record is not as it should be."""
    root_jaw, eyes = _row(record, "posecode", 6), _row(record, "eyecode", 6)
    camera = _row(record, "transform_matrix", 12).reshape(3, 4)
    view = np.eye(4)
    view[:3, :3], view[:3, 3] = TO_OPENCV @ camera[:, :3].T, TO_OPENCV @ camera[:, 3] / SCALE
    if not rigid(view):
        raise ValueError("the camera does more than turn and move")
    pose = np.concatenate([root_jaw[:3], np.zeros(3), root_jaw[3:], eyes])
    K = np.array([[FOCAL * SIDE / 2, 0, SIDE / 2], [0, FOCAL * SIDE / 2, SIDE / 2], [0, 0, 1]])
    shape, expression = _row(record, "shapecode"), _row(record, "expcode")
    return Shot(name, _order(name)[1], image, None, shape, expression, pose, view, K, (SIDE, SIDE))


def _row(record: Any, key: str, count: int | None = None) -> Float[np.ndarray, " K"]:
    row = np.asarray(plain(record[key]), np.float64).reshape(-1)
    if not len(row) or (count is not None and len(row) != count) or not np.isfinite(row).all():
        raise ValueError(f"{key} has {len(row)} numbers")
    return row


class _Pictures:
    """The images of an LMDB, open inside a `with` block. Raises UserError when there is none, or no lmdb to read it with."""

    def __init__(self, path: Path):
        try:
            import lmdb
        except ImportError as e:
            raise UserError(f"GAGAvatar's images are in an LMDB: {install('video')}") from e
        data = path / "data.mdb" if path.is_dir() else path
        try:
            self.stamp = _stamp(data)
            self._database = lmdb.open(str(path), subdir=path.is_dir(), readonly=True, lock=False, readahead=False)
        except (OSError, lmdb.Error) as e:
            raise UserError(f"{path} is not a readable LMDB ({e})") from e

    def __enter__(self) -> _Pictures:
        return self

    def __exit__(self, *_) -> None:
        self._database.close()

    def image(self, name: str) -> UInt8[np.ndarray, "H W 3"]:
        with self._database.begin() as transaction:
            content = transaction.get(name.encode())
        with opened(io.BytesIO(content or b""), name) as image:
            return np.asarray(image.convert("RGB"))
