"""Motion encoders of users as tests need them: a small network, as TorchScript and as ONNX (protobuf's wire format by hand)."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

CELL = 56
"""The network averages cells of so many pixels, 4 × 4 of them."""


class TinyEncoder(nn.Module):
    """[B,3,224,224] in 0..1 → `shape` numbers each, linear in the picture."""

    def __init__(self, shape: tuple[int, ...] = (512,), seed: int = 0):
        super().__init__()
        self.shape, self.cell = list(shape), CELL
        g = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(48, int(np.prod(shape)), generator=g))
        self.bias = nn.Parameter(torch.randn(int(np.prod(shape)), generator=g))

    def forward(self, images: Tensor) -> Tensor:
        cells = torch.nn.functional.avg_pool2d(images, self.cell).flatten(1)
        return (cells @ self.weight + self.bias).unflatten(1, self.shape)


def torchscript(path: Path, network: nn.Module | None = None) -> Path:
    path.parent.mkdir(exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.script((network or TinyEncoder()).eval()).save(str(path))
    return path


def onnx(path: Path, network: TinyEncoder | None = None, batch: int | None = None, outside: str = "") -> Path:
    """`batch`: fixed in the graph; None: any. `outside`: a file beside `path` that holds the weight."""
    network = network or TinyEncoder()
    weight, bias = (p.detach().numpy() for p in (network.weight, network.bias))
    nodes = [
        _node("AveragePool", ["images"], "cells", _ints("kernel_shape", CELL, CELL) + _ints("strides", CELL, CELL)),
        _node("Flatten", ["cells"], "flat"),
        _node("Gemm", ["flat", "weight", "bias"], "codes" if network.shape == [512] else "rows"),
    ]
    if network.shape != [512]:
        nodes.append(_node("Reshape", ["rows", "shape"], "codes"))
    shape = np.array([-1, *network.shape], np.int64)
    if outside:
        (path.parent / outside).write_bytes(weight.tobytes())
    tensors = [_tensor("weight", weight, outside), _tensor("bias", bias), _tensor("shape", shape)]
    size = _number(1, batch) if batch else _bytes(2, b"batch")
    graph = b"".join(_bytes(1, n) for n in nodes) + _bytes(2, b"tiny") + b"".join(_bytes(5, t) for t in tensors)
    graph += _bytes(11, _value("images", [size, *(_number(1, n) for n in (3, 224, 224))]))
    graph += _bytes(12, _value("codes", [size, *(_number(1, n) for n in network.shape)]))
    path.write_bytes(_number(1, 8) + _bytes(7, graph) + _bytes(8, _number(2, 13)))
    return path


def _varint(n: int) -> bytes:
    out = b""
    while n > 127:
        out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])


def _number(field: int, n: int) -> bytes:
    return _varint(field << 3) + _varint(n)


def _bytes(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _ints(name: str, *values: int) -> bytes:
    """An attribute of a node."""
    content = _bytes(1, name.encode()) + b"".join(_number(8, v) for v in values) + _number(20, 7)
    return _bytes(5, content)


def _node(kind: str, inputs: list[str], output: str, attributes: bytes = b"") -> bytes:
    named = b"".join(_bytes(1, i.encode()) for i in inputs) + _bytes(2, output.encode())
    return named + _bytes(4, kind.encode()) + attributes


def _tensor(name: str, values: np.ndarray, outside: str = "") -> bytes:
    kind = {"float32": 1, "int64": 7}[values.dtype.name]
    head = b"".join(_number(1, n) for n in values.shape) + _number(2, kind) + _bytes(8, name.encode())
    if not outside:
        return head + _bytes(9, values.tobytes())
    entry = _bytes(1, b"location") + _bytes(2, outside.encode())
    return head + _bytes(13, entry) + _number(14, 1)


def _value(name: str, sizes: list[bytes]) -> bytes:
    """Floats of a shape, whose sizes are encoded already."""
    shape = b"".join(_bytes(1, size) for size in sizes)
    return _bytes(1, name.encode()) + _bytes(2, _bytes(1, _number(1, 1) + _bytes(2, shape)))
