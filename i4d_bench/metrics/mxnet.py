"""Runs an MXNet symbol graph in torch: the few operators of MobileFace, on any device, differentiable."""

from __future__ import annotations

import ast
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

BATCH_NORM_EPS = 1e-3  # MXNet's default, which its JSON leaves out


def _convolution(attrs, x, weight, bias=None):
    return F.conv2d(x, weight, bias, attrs.get("stride", 1), attrs.get("pad", 0), groups=attrs.get("num_group", 1))


def _batch_norm(attrs, x, gamma, beta, mean, var):
    # MXNet's default fix_gamma=True means γ = 1 whatever is stored.
    gamma = torch.ones_like(gamma) if attrs.get("fix_gamma", True) else gamma
    return F.batch_norm(x, mean, var, gamma, beta, eps=attrs.get("eps", BATCH_NORM_EPS))


OPERATORS = {
    "Convolution": _convolution,
    "BatchNorm": _batch_norm,
    "FullyConnected": lambda attrs, x, weight, bias=None: F.linear(x, weight, bias),
    "Flatten": lambda attrs, x: x.flatten(1),
    "elemwise_add": lambda attrs, a, b: a + b,
    "_minus_scalar": lambda attrs, x: x - attrs["scalar"],
    "_mul_scalar": lambda attrs, x: x * attrs["scalar"],
    "_maximum_scalar": lambda attrs, x: x.clamp_min(attrs["scalar"]),
    "_minimum_scalar": lambda attrs, x: x.clamp_max(attrs["scalar"]),
}


class MxnetGraph(nn.Module):
    """A frozen network: `symbol` is the JSON's dictionary, `weights` its parameters by name.

    Raises ValueError for an operator that is not in OPERATORS or a parameter that is missing.
    """

    def __init__(self, symbol: dict[str, Any], weights: dict[str, np.ndarray]):
        super().__init__()
        self.nodes = []
        inputs = [n["name"] for n in symbol["nodes"] if n["op"] == "null" and n["name"] not in weights]
        if inputs != ["data"]:
            raise ValueError(f"the graph has inputs or missing parameters {inputs}, expected one input 'data'")
        for node in symbol["nodes"]:
            if node["op"] not in OPERATORS and node["op"] != "null":
                raise ValueError(f"the graph has an operator that is not known here: {node['op']}")
            attrs = {k: ast.literal_eval(v) for k, v in node.get("attrs", {}).items() if node["op"] != "null"}
            self.nodes.append((node["op"], node["name"], attrs, [i[0] for i in node["inputs"]]))
            if node["name"] in weights:
                self.register_buffer(node["name"], torch.from_numpy(weights[node["name"]]).float())
        self.head = symbol["heads"][0][0]

    def forward(self, data: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B D"]:
        values: list[Tensor] = []
        for op, name, attrs, inputs in self.nodes:
            if op == "null":
                values.append(data if name == "data" else getattr(self, name))
            else:
                values.append(OPERATORS[op](attrs, *(values[i] for i in inputs)))
        return values[self.head]
