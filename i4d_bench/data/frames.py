"""One on-disk format for every data set: a folder of .npy arrays (memory-mapped) and `dataset.json`.

Writing is atomic: the folder appears under its name only when it is complete.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from i4d_bench.cache import writing
from i4d_bench.types import Camera, FlameCode, UserError

SCHEMA = 1

ARRAYS = {
    "rgb": "uint8 [F,H,W,3], premultiplied by alpha (black outside the head)",
    "alpha": "uint8 [F,H,W], coverage 0..255",
    "region": "uint8 [F,H,W], index into heads.base.REGIONS",
    "viewmats": "float32 [F,4,4], world → camera, OpenCV axes, canonical units",
    "Ks": "float32 [F,3,3], pixels",
    "identity": "int32 [F], who",
    "expression": "int32 [F], which expression (a video's frame number)",
    "coefficients": "float32 [F,52], ARKit-named (heads.expressions.NAMES), 0..1; all NaN where nobody measured them",
    "landmarks": "float32 [F,68,2], pixels, iBUG order, NaN where unknown",
}
OPTIONAL = {
    "times": "float64 [F], seconds since the first frame of the frame's own video",
    "depth": "float16 [F,H,W], camera z, 0 where nothing is",
    "light": "float32 [F,18], what shines in a rendered world (render.mesh.Light)",
    "flame_shape": "float32 [F,S]",
    "flame_expression": "float32 [F,E]",
    "flame_pose": "float32 [F,15]",
    "split": "uint8 [F], index into splits.SPLITS: where the data say who is trained on",
}


@dataclass(frozen=True)
class Frames:
    """A data set opened for reading. Arrays are memory-mapped; `meta` is dataset.json."""

    path: Path
    meta: dict[str, Any]
    arrays: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.arrays["identity"])

    def __getattr__(self, name: str) -> np.ndarray:
        try:
            return self.__dict__["arrays"][name]
        except KeyError:
            raise AttributeError(f"data set has no array {name!r}") from None

    @property
    def resolution(self) -> int:
        return self.rgb.shape[1]

    def camera(self, index) -> Camera:
        h, w = self.rgb.shape[1:3]
        return Camera(torch.from_numpy(self.viewmats[index]), torch.from_numpy(self.Ks[index]), w, h)

    @property
    def measured(self) -> bool:
        """Whether the 52 expression coefficients are known."""
        return bool(np.isfinite(self.coefficients).all())

    def flame(self, index) -> FlameCode | None:
        if "flame_expression" not in self.arrays:
            return None
        return FlameCode(*(torch.from_numpy(self.arrays[f"flame_{k}"][index]) for k in ("shape", "expression", "pose")))


def write(path: str | Path, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> Path:
    """Writes a data set. `meta` says at least {"kind", "source"}; the content hash is added as "hash".

    Raises UserError when the folder cannot be written, ValueError when an array is missing or misshapen.
    """
    path = Path(path)
    missing = ARRAYS.keys() - arrays.keys()
    unknown = arrays.keys() - ARRAYS.keys() - OPTIONAL.keys()
    if missing or unknown:
        raise ValueError(f"data set arrays: missing {sorted(missing)}, unknown {sorted(unknown)}")
    counts = {k: len(a) for k, a in arrays.items()}
    if len(set(counts.values())) != 1:
        raise ValueError(f"data set arrays differ in length: {counts}")
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    digest = hashlib.sha256()
    with writing(path):
        try:
            partial.mkdir(parents=True)
            for name in sorted(arrays):
                a = np.ascontiguousarray(arrays[name])
                digest.update(f"{name}{a.dtype}{a.shape}".encode())
                digest.update(a.data.cast("B"))
                np.save(partial / f"{name}.npy", a)
            full = {"schema": SCHEMA, "hash": digest.hexdigest()[:16], "frames": counts["identity"], **meta}
            (partial / "dataset.json").write_text(json.dumps(full, indent=1), encoding="utf-8")
            if path.exists():
                shutil.rmtree(path)
            partial.rename(path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return path


def create(path: Path, dtype: np.dtype | type, shape: tuple[int, ...]) -> np.memmap:
    """A memory-mapped .npy of zeros, written out: on a full disk a sparse one would end the process (SIGBUS) where it is filled.

    Raises OSError when there is no room.
    """
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, size, 1 << 20):
            file.write(bytes(min(1 << 20, size - start)))
    return np.lib.format.open_memmap(path, "r+")


def open_frames(path: str | Path) -> Frames:
    """Opens a data set. Raises UserError when there is none, or it is damaged or of another schema."""
    path = Path(path)
    index = path / "dataset.json"
    if not index.is_file():
        raise UserError(f"{path} is not a data set (no dataset.json in it)")
    try:
        meta = json.loads(index.read_text(encoding="utf-8"))
        if meta.get("schema") != SCHEMA:
            raise UserError(f"{path} has data schema {meta.get('schema')}, this version reads {SCHEMA}: make it again")
        names = [n for n in (*ARRAYS, *OPTIONAL) if n in ARRAYS or (path / f"{n}.npy").exists()]
        arrays = {n: np.load(path / f"{n}.npy", mmap_mode="c") for n in names}
    except (OSError, ValueError) as e:
        raise UserError(f"the data set {path} is damaged ({e}): delete the folder and make it again") from e
    return Frames(path, meta, arrays)
