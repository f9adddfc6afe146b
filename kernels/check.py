"""Every kernel once: on the GPU at hand (`i4d-bench doctor`), and, by `kernels.compile`, for GPUs that are not there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, NamedTuple

import torch

from kernels.cases import CASES, OF_TRAINING, case
from kernels.contract import Case, tensors
from kernels.layout import Unsupported

KINDS = {
    "fp32": (torch.float32, "highest"),
    "tf32": (torch.float32, "high"),
    "fp16": (torch.float16, "highest"),
    "bf16": (torch.bfloat16, "highest"),
}
"""What features are stored in, and what torch.set_float32_matmul_precision allows."""
TF32 = 8
"""How much more than `Case.check` allows one tf32 product may be wrong: tensor cores cut what cuBLAS rounds first."""
IN_TF32 = ("decode", "local_fusion", "spatial_fusion", "attribute_fusion", "cross_attention")
"""Ops whose fp32 products are one tf32 product where torch allows it; the others' are exact, or three, always."""


class Problem(NamedTuple):
    case: Case
    frames: int = 1
    sizes: Mapping[str, int] = MappingProxyType({})

    def inputs(self, n: int, kind: str, device: str) -> dict[str, Any]:
        """Nothing where the op is the same as in fp32."""
        x = self.case.inputs(n, 1, self.frames, KINDS[kind][0], device, **self.sizes)
        stored = any(t.dtype == KINDS[kind][0] for t in tensors(x))
        return x if stored and (kind != "tf32" or self.case.name in IN_TF32) else {}


PROBLEMS = [
    *(Problem(c) for c in (*CASES, *OF_TRAINING)),
    Problem(case("cross_attention"), sizes={"tokens": 256}),
    Problem(case("flame_skinning"), frames=16),
    Problem(case("flame_skinning_shape"), frames=17),
    Problem(case("blend_gaussians"), frames=4),
]
"""Every op, and again where more tokens or frames have kernels of their own."""


@contextmanager
def precision(kind: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(KINDS[kind][1])
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def tile_lists(device: str) -> int:
    """Lists a splat on four tiles, and says how many pairs there are."""
    from kernels.raster.tiles import TileLists

    means, radii = (
        torch.full((1, 1, 2), 16.0, device=device),
        torch.full((1, 1, 2), 9, dtype=torch.int32, device=device),
    )
    _, _, pairs = TileLists(1, 32, 32, 16, device)(means, radii, torch.ones(1, 1, device=device))
    return int(pairs)


def splat(device: str) -> float:
    """Draws a Gaussian of opacity 1/2 in the middle of a white pixel, and says by the gradient how much of it is seen there."""
    from kernels.raster.rooms import LONGEST, Rooms
    from kernels.raster.splat import TILE, splat

    one = lambda *v: torch.tensor([v], device=device)  # noqa: E731
    view, K = torch.eye(4, device=device)[None], one([32.0, 0, 16.5], [0, 32.0, 16.5], [0.0, 0, 1])
    color = one([1.0, 1, 1]).requires_grad_()
    given = (one([0.0, 0, 2]), one([1.0, 0, 0, 0]), one([0.1, 0.1, 0.1]), one(0.5), color)
    lists = Rooms(1, 32, 32, LONGEST, device, TILE)
    rgb, alpha, depth, _ = splat(*given, one(0.0, 0, 0), view, K, 32, 32, lists=lists)
    assert depth is not None
    (rgb[0, 16, 16, 0] + 0 * (alpha.sum() + depth.sum())).backward()
    assert color.grad is not None
    return float(color.grad[0, 0, 0])


def nearest(device: str) -> tuple[int, int]:
    """Which of two points, and which of two triangles, is nearest to a point."""
    from kernels.fused.nearest import nearest_points, nearest_triangles

    point = torch.zeros(1, 1, 3, device=device)
    corners = torch.eye(3, device=device) + torch.tensor([2.0, 1.0], device=device)[None, :, None, None]
    leaf = torch.arange(2, device=device)[None]
    return int(nearest_points(point, corners.mean(2), 1)[1]), int(nearest_triangles(point, corners, leaf))


def convolutions(device: str) -> float:
    """A driver's layers of ones at a pixel in the middle: 1 of 7 × 7 products of 1/49, 1 of 9 × 64 of 1/576, to which 64 of 39/64
    are added; and the mean of that."""
    from kernels.fused.convolution import Plus, convolve, first, last, pool, room

    half = torch.float16 if device == "cuda" else torch.float32
    of = lambda value, *shape: torch.full(shape, value, dtype=half, device=device)  # noqa: E731
    x = pool(first(of(1, 1, 1, 28, 28), of(1 / 49, 64, 1, 7, 7), of(0, 64)))
    ended = torch.zeros(room(), dtype=torch.int32, device=device)
    y = convolve(x, of(1 / 576, 64, 64, 3, 3), of(0, 64), 1, ended, Plus(x, of(39 / 64, 64, 64, 1, 1)))
    return float(last(y[:, :, 3:4, 3:4], of(1 / 64, 1, 64), of(0, 1)))


def check(n: int = 1000) -> dict[str, list[str]]:
    """Runs every kernel on the GPU, forward and backward, and holds it to its twin in fp64. → by kind, what does not work. Raises
    Unsupported where nothing can. Compiles them all the first time: minutes."""
    failed = {}
    for kind in KINDS:
        with precision(kind):
            failed[kind] = [f"{p.case.name}: {why}" for p in PROBLEMS if (why := _fault(p, kind, n))]
    if tile_lists("cuda") != 4:
        failed["fp32"].append("tile_lists: not the pairs that there are")
    if abs(splat("cuda") - 0.5) > 1e-5:
        failed["fp32"].append("splat: not the colour that there is")
    if nearest("cuda") != (1, 1):
        failed["fp32"].append("nearest: not what is")
    if abs(convolutions("cuda") - 40) > 0.1:
        failed["fp16"].append("convolutions: not the sum that there is")
    return failed


def _fault(problem: Problem, kind: str, n: int) -> str:
    x = problem.inputs(n, kind, "cuda")
    if not x:
        return ""
    try:
        worst = max(problem.case.check(x, "triton", backward=True).values())
    except Unsupported as e:
        return str(e)
    return f"{worst:.1f} times the error that it may have" if worst > (TF32 if kind == "tf32" else 1) else ""
