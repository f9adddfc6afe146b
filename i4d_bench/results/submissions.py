"""Results from elsewhere as one file: a zip of manifest.json (who, and the hash of every other file), runs/ as a report folder has
it, and predictions/RUN_ID.npz with the pictures of the sets self and cross."""

from __future__ import annotations

import hashlib
import json
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from i4d_bench import BENCHMARK_VERSION
from i4d_bench.cache import atomic_file
from i4d_bench.progress import track
from i4d_bench.reading import holding, reading
from i4d_bench.results.evidence import now
from i4d_bench.types import UserError

SCHEMA = 1
MANIFEST, RUNS, PREDICTIONS = "manifest.json", "runs/", "predictions/"
ENDING = ".zip"
LARGEST = 8 << 30
"""Bytes that a submission may unpack to."""


def pack(out: Path, files: Mapping[str, Path], name: str, url: str) -> None:
    """files: by their names inside. name, url: whose results these are."""
    content = {
        "schema": SCHEMA,
        "benchmark_version": BENCHMARK_VERSION,
        "name": name,
        "url": url,
        "created": now(),
        "files": {inside: digest(path.read_bytes()) for inside, path in files.items()},
    }
    with atomic_file(out) as part, zipfile.ZipFile(part, "w") as archive:
        archive.writestr(MANIFEST, json.dumps(content, indent=1) + "\n")
        for inside, path in track(files.items(), "packing", len(files)):
            archive.write(path, inside)


@contextmanager
def unpacked(file: Path) -> Iterator[tuple[dict[str, Any], Path]]:
    """The manifest, and a folder of the submission's name with the files that it names, which is gone afterwards. Raises UserError
    where they are others; what is raised inside says where they lie in the submission."""
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / file.stem
        folder.mkdir()
        try:
            yield _unpack(file, folder), folder
        except UserError as e:
            raise UserError(str(e).replace(str(folder), str(file))) from e


def _unpack(file: Path, folder: Path) -> dict[str, Any]:
    with reading(file, "is no submission"), zipfile.ZipFile(file) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > LARGEST:
            raise UserError(f"{file} unpacks to more than {LARGEST >> 30} GB")
        if MANIFEST not in archive.namelist():
            raise ValueError(f"it lacks {MANIFEST}")
        manifest = holding(json.loads(archive.read(MANIFEST)), "schema", "benchmark_version", "name", "url", "files")
        named = manifest["files"]
        if set(archive.namelist()) - {MANIFEST} != set(named):
            raise UserError(f"{file} holds other files than its manifest names")
        for inside, wanted in named.items():
            place = folder / inside
            if place.parent not in (folder / "runs", folder / "predictions"):
                raise UserError(f"{file} has a file where none belongs: {inside}")
            data = archive.read(inside)
            if digest(data) != wanted:
                raise UserError(f"{file}: {inside} is not the file that was packed")
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(data)
    if manifest.get("schema") != SCHEMA:
        raise UserError(f"{file} is a submission of schema {manifest.get('schema')}, and this version reads {SCHEMA}")
    return manifest


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
