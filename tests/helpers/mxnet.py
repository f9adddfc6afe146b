"""Writes MXNet's .params files, in the three versions of the format that are found."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

CODES = {"float32": 0, "float64": 1, "float16": 2, "uint8": 3, "int32": 4, "int8": 5, "int64": 6}


def write_params(path: Path, arrays: dict[str, np.ndarray], version: int = 2) -> Path:
    out = struct.pack("<QQQ", 0x112, 0, len(arrays))
    for a in arrays.values():
        shape = struct.pack(f"<I{a.ndim}{'q' if version else 'I'}", a.ndim, *a.shape)
        out += {0: b"", 1: struct.pack("<I", 0xF993FAC8), 2: struct.pack("<Ii", 0xF993FAC9, 0)}[version] + shape
        out += struct.pack("<iii", 1, 0, CODES[a.dtype.name]) + a.tobytes()
    out += struct.pack("<Q", len(arrays))
    for name in arrays:
        out += struct.pack("<Q", len(name)) + name.encode()
    path.write_bytes(out)
    return path
