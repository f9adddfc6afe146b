"""Reads MXNet's .params files (github.com/apache/mxnet, src/ndarray/ndarray.cc), and makes MobileFace's .npz of one.

A file is: 0x112 and 0 (u64 each), the number of arrays and the arrays, the number of names and the names (length, bytes). An array
is, little-endian, by its first u32:

    0xF993FAC9 (MXNet 1.0 on)    storage (i32, 0: dense), shape, device (2 × i32), type (i32), values
    0xF993FAC8 (0.11)            shape, device, type, values
    else: the number of axes     that many u32 lengths, device, type, values

with a shape as u32 axes and i64 lengths. An array without axes ends there.
"""

from __future__ import annotations

import json
import shutil
import struct
from io import BufferedIOBase
from pathlib import Path

import numpy as np

from i4d_bench.cache import atomic_file
from i4d_bench.metrics.mxnet import MxnetGraph
from i4d_bench.types import UserError

LIST = 0x112
DENSE, WITH_SHAPE = 0xF993FAC9, 0xF993FAC8
TYPES = (np.float32, np.float64, np.float16, np.uint8, np.int32, np.int8, np.int64)
MOBILEFACE = "MobileFace_Identification_V2"


def read_params(path: Path) -> dict[str, np.ndarray]:
    """Arrays by their names, without the prefixes "arg:" and "aux:". Raises UserError when the file is not MXNet's."""
    try:
        with Path(path).open("rb") as file:
            magic, _, count = _numbers(file, "<QQQ")
            if magic != LIST:
                raise ValueError("it does not begin with 0x112")
            arrays = [_array(file) for _ in range(count)]
            names = [_take(file, *_numbers(file, "<Q")).decode() for _ in range(*_numbers(file, "<Q"))]
        return {name.partition(":")[2] or name: array for name, array in zip(names, arrays, strict=True)}
    except OSError as e:
        raise UserError(f"cannot read {path}: {e.strerror or e}") from e
    except (ValueError, IndexError, struct.error) as e:
        raise UserError(f"{path} is no whole .params file of MXNet ({e})") from e


def _take(file: BufferedIOBase, size: int) -> bytes:
    data = file.read(min(size, 1 << 31))
    if len(data) != size:
        raise ValueError("it ends early")
    return data


def _numbers(file: BufferedIOBase, form: str) -> tuple[int, ...]:
    return struct.unpack(form, _take(file, struct.calcsize(form)))


def _array(file: BufferedIOBase) -> np.ndarray:
    (first,) = _numbers(file, "<I")
    if first in (DENSE, WITH_SHAPE):
        storage = _numbers(file, "<i")[0] if first == DENSE else 0
        if storage:
            raise ValueError("it holds a sparse array")
        shape = _numbers(file, "<{}q".format(*_numbers(file, "<I")))
    else:
        if first > 32:
            raise ValueError(f"it holds an array of {first} axes, or of another version of MXNet")
        shape = _numbers(file, f"<{first}I")
    if not shape:
        return np.zeros(0, np.float32)
    kind = np.dtype(TYPES[_numbers(file, "<iii")[2]]).newbyteorder("<")
    if min(shape) < 0:
        raise ValueError(f"it holds an array of shape {shape}")
    return np.frombuffer(_take(file, kind.itemsize * int(np.prod(shape))), kind).reshape(shape).copy()


def convert_mobileface(folder: Path, weights: Path, graph: Path) -> None:
    """Writes MobileFace's `weights` (.npz) and `graph` (.json) from a checkout of github.com/becauseofAI/MobileFace.

    Raises UserError when `folder` does not hold the network.
    """
    found = {end: sorted(Path(folder).rglob(f"{MOBILEFACE}{end}")) for end in ("-0000.params", "-symbol.json")}
    for end, files in found.items():
        if not files:
            raise UserError(f"{folder} is no checkout of MobileFace: it holds no {MOBILEFACE}{end}")
    params, symbol = (files[0] for files in found.values())
    arrays = read_params(params)
    try:
        MxnetGraph(json.loads(symbol.read_text(encoding="utf-8")), arrays)
    except (ValueError, KeyError) as e:
        raise UserError(f"{params} and {symbol} do not fit together ({e})") from e
    with atomic_file(weights) as path:
        np.savez(path, allow_pickle=False, **arrays)
    with atomic_file(graph) as path:
        shutil.copyfile(symbol, path)
