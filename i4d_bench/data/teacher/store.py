"""A store of teacher pairs: tar shards that any tool reads, and one Parquet index with a row per pair and view (DESIGN §3).

    STORE/shards/NAME.tar    samples, one after the other (`samples.pack`), about 1 GB
    STORE/shards/NAME.jsonl  its rows, written after each sample: what a killed writer goes on from
    STORE/index.parquet      all rows, of pictures that there are and of those that failed

A row is written after its sample's bytes, so that no row ever names half a sample; what lies behind the last row is cut off when
writing goes on. Several writers may fill one store: each has shards of its own.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import Timeout

from i4d_bench.cache import LOST, acquire, alone, atomic_file, file_digest, lock, writing
from i4d_bench.data.splits import SPLITS
from i4d_bench.data.teacher.samples import ROLES, Damaged, Sample, pack, unpack
from i4d_bench.types import UserError

INDEX, SHARDS = "index.parquet", "shards"
SHARD_BYTES = 1 << 30
WAIT = LOST + 5
"""Seconds for a killed writer's lock to be freed, on whichever machine it was."""
END = bytes(1024)
"""Of a tar file."""


@dataclass(frozen=True)
class Row:
    """A pair (source, driver) seen in one view. `failure` says why there is no picture; then shard, offset, length and sha256 are
    empty. `camera`: the target's world → camera matrix and intrinsics, 16 + 9 numbers by rows."""

    id: str
    identity: str
    source: str
    driver: str
    view: int
    split: str  # one of SPLITS
    animator: str
    version: str
    flags: str  # the animator's settings, JSON
    camera: tuple[float, ...] = ()
    failure: str = ""
    shard: str = ""  # the tar's name in the folder of shards
    offset: int = 0
    length: int = 0
    sha256: str = ""


SCHEMA = pa.schema(
    [
        (f.name, {"int": pa.int64(), "str": pa.string()}.get(str(f.type), pa.list_(pa.float64())))
        for f in dataclasses.fields(Row)
    ],
    metadata={"i4d_bench": "teacher store 1"},
)


class Writer:
    """Adds to a store. `name`: of this writer's shards; no two writers of one store have the same at one time.

    Raises UserError where the folder cannot be written, or another writer of this name is at work.
    """

    def __init__(self, folder: Path, name: str = "0", shard_bytes: int = SHARD_BYTES):
        self.shards, self.name, self.shard_bytes = folder / SHARDS, name, shard_bytes
        with writing(folder):
            self.shards.mkdir(parents=True, exist_ok=True)
        self.lock = lock(self.shards / name)
        try:
            acquire(self.lock, WAIT)
        except Timeout:
            raise UserError(f"another process writes {folder} under the name {name}") from None
        self.number = max((int(p.stem.rpartition("-")[2]) for p in self.shards.glob(f"{name}-*.jsonl")), default=0)
        with writing(self.path):
            self._cut()

    @property
    def path(self) -> Path:
        return self.shards / f"{self.name}-{self.number:05d}.tar"

    def add(self, row: Row, sample: Sample) -> None:
        """Stores a sample. On a full disk nothing of it stays. Raises UserError."""
        piece = pack(row.id, sample)
        with writing(self.path):
            if self.path.exists() and self.path.stat().st_size + len(piece) > self.shard_bytes:
                self._end()
                self.number += 1
            try:
                with self.path.open("ab") as file:
                    offset = file.seek(0, os.SEEK_END)
                    file.write(piece)
                camera = [*sample["target"]["viewmats"].ravel(), *sample["target"]["Ks"].ravel()]
                digest = hashlib.sha256(piece).hexdigest()
                place = {"shard": self.path.name, "offset": offset, "length": len(piece), "sha256": digest}
                self._note(dataclasses.replace(row, camera=tuple(map(float, camera)), **place))
            except OSError:
                self._cut()
                raise

    def fail(self, row: Row, reason: str) -> None:
        """Stores that there is no picture, and why. Raises UserError."""
        with writing(self.path):
            self._note(dataclasses.replace(row, failure=reason or "no reason was given"))

    def close(self) -> None:
        try:
            with writing(self.path):
                self._end()
        finally:
            self.lock.release()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _note(self, row: Row) -> None:
        line = json.dumps(dataclasses.asdict(row)) + "\n"
        with self.path.with_suffix(".jsonl").open("a", encoding="utf-8") as file:
            file.write(line)

    def _cut(self) -> None:
        """Off with half a row, and with bytes that no row names."""
        journal = self.path.with_suffix(".jsonl")
        if journal.exists():
            text = journal.read_bytes()
            os.truncate(journal, text.rfind(b"\n") + 1)
        if self.path.exists():
            rows = _journal(journal) if journal.exists() else []
            os.truncate(self.path, max((r.offset + r.length for r in rows), default=0))

    def _end(self) -> None:
        self._cut()
        if self.path.exists():
            with self.path.open("ab") as file:
                file.write(END)


def _journal(path: Path) -> list[Row]:
    """Whole rows of a shard's journal."""
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [Row(**{**content, "camera": tuple(content["camera"])}) for content in map(json.loads, lines)]


def standing(folder: Path) -> dict[str, Row]:
    """By id, the rows that writers have left so far. A picture counts more than a failure."""
    found: dict[str, Row] = {}
    for path in sorted((folder / SHARDS).glob("*.jsonl")):
        for row in _journal(path):
            if row.id not in found or found[row.id].failure:
                found[row.id] = row
    return found


def write_index(folder: Path, rows: Iterable[Row] | None = None) -> None:
    """Writes the index: of these rows, else of all that writers have left. Raises UserError."""
    if rows is None:
        rows = sorted(standing(folder).values(), key=lambda r: r.id)
    table = pa.Table.from_pylist([dataclasses.asdict(r) for r in rows], SCHEMA)
    with atomic_file(folder / INDEX) as path:
        pq.write_table(table, path)


def leave_out(folder: Path, rows: list[Row], reasons: dict[str, str]) -> None:
    """Turns rows into failed ones, by their ids, in the index and for writers that go on. Raises UserError."""

    def judged(row: Row) -> Row:
        nowhere = {"shard": "", "offset": 0, "length": 0, "sha256": ""}
        return dataclasses.replace(row, failure=f"bad: {reasons[row.id]}", **nowhere) if row.id in reasons else row

    with alone(folder / INDEX):  # not while pairs are made
        for path in sorted((folder / SHARDS).glob("*.jsonl")):
            lines = [json.dumps(dataclasses.asdict(judged(row))) + "\n" for row in _journal(path)]
            with atomic_file(path) as new:
                new.write_text("".join(lines), encoding="utf-8")
        write_index(folder, {row.id: judged(row) for row in rows}.values())


def pairs_digest(folder: Path) -> str:
    """A hash of all pictures of a store: the index has theirs. Raises UserError where there is none."""
    if not (folder / INDEX).is_file():
        raise UserError(f"{folder} is no store of teacher pairs (no {INDEX} in it)")
    return file_digest(folder / INDEX)


class Store:
    """A store opened for reading. Of the index only what sampling needs is in memory, about 40 bytes a row; samples are read when
    they are asked for. Raises UserError where there is no index, or it is damaged."""

    def __init__(self, folder: Path):
        self.folder = folder
        try:
            schema = pq.read_schema(folder / INDEX)
            missing = set(SCHEMA.names) - set(schema.names)
            if missing:
                raise UserError(f"{folder / INDEX} has no column {sorted(missing)[0]}: it is no index of teacher pairs")
            table = pq.read_table(
                folder / INDEX, columns=["identity", "view", "split", "shard", "offset", "length", "failure"]
            )
        except FileNotFoundError as e:
            raise UserError(f"{folder} is no store of teacher pairs (no {INDEX} in it)") from e
        except (OSError, pa.ArrowException) as e:
            raise UserError(
                f"the index {folder / INDEX} is damaged ({e}): `i4d-bench teacher make` writes it again"
            ) from e
        self.size = len(table)
        names, self.identity = np.unique(
            table["identity"].to_numpy(zero_copy_only=False).astype(str), return_inverse=True
        )
        self.people = names
        self.view = table["view"].to_numpy().astype(np.int32)
        split = table["split"].to_numpy(zero_copy_only=False)
        self.split = np.array([SPLITS.index(s) if s in SPLITS else -1 for s in split], np.int8)
        self.shards, self.shard = np.unique(
            table["shard"].to_numpy(zero_copy_only=False).astype(str), return_inverse=True
        )
        self.offset, self.length = (table[k].to_numpy() for k in ("offset", "length"))
        self.good = np.array([not f for f in table["failure"].to_pylist()])
        self._files: dict[int, int] = {}

    def __len__(self) -> int:
        return self.size

    def within(self, split: str) -> np.ndarray:
        """Numbers of the rows with a picture of the split."""
        return np.flatnonzero(self.good & (self.split == SPLITS.index(split)))

    def piece(self, row: int) -> bytes:
        """The bytes of a row's sample. Raises Damaged where the shard is not there or too short, or lies outside the store."""
        k = int(self.shard[row])
        if k not in self._files:
            name = str(self.shards[k])
            path = self.folder / SHARDS / name
            if not name or Path(name).name != name:
                raise Damaged(f"its shard {name!r} lies outside the store")
            try:
                self._files[k] = os.open(path, os.O_RDONLY)
            except OSError as e:
                raise Damaged(f"its shard {name} cannot be opened ({e.strerror})") from e
        offset, length = int(self.offset[row]), int(self.length[row])
        if offset < 0 or length <= 0:
            raise Damaged(f"its place in the shard, {length} bytes from {offset}, makes no sense")
        size = os.fstat(self._files[k]).st_size
        if offset + length > size:
            raise Damaged(f"its shard {self.shards[k]} ends before it, at {size} bytes")
        return os.pread(self._files[k], length, offset)

    def read(self, row: int, roles: tuple[str, ...] = ROLES) -> Sample:
        """These pictures of a row. Raises UserError that names the row where it is damaged."""
        try:
            return unpack(self.piece(row), roles=roles)
        except Damaged as e:
            raise UserError(
                f"row {row} of {self.folder}: {e}; `i4d-bench data check {self.folder} --leave-out` goes without"
            ) from e

    def rows(self) -> list[Row]:
        """The whole index."""
        content = pq.read_table(self.folder / INDEX).select(SCHEMA.names).to_pylist()
        return [Row(**{**c, "camera": tuple(c["camera"] or ())}) for c in content]

    def close(self) -> None:
        for file in self._files.values():
            os.close(file)
        self._files.clear()

    def __getstate__(self):  # workers open their own files
        return {**self.__dict__, "_files": {}}
