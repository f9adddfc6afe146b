"""What the parametric designs share: a head with somebody's shape, and the sentences for what is missing."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from i4d_bench.types import FlameCode, Identity, MotionCode, ParametricHead, UserError
from kernels.layout import Skinned

T = TypeVar("T")
_KEPT: WeakKeyDictionary[ParametricHead, dict[Hashable, object]] = WeakKeyDictionary()
WHERE = "rendered worlds and ingested video come with them, other data must bring them"


def source_of(name: str, identity: Identity, source: MotionCode) -> tuple[ParametricHead, FlameCode]:
    """The head and the source's coefficients. Raises UserError where `name` gets none."""
    if identity.head is None or source.flame is None:
        raise UserError(f"{name} needs a parametric head and the source's FLAME coefficients: {WHERE}")
    return identity.head, source.flame


def driver_of(name: str, driving: MotionCode) -> FlameCode:
    """The driver's coefficients. Raises UserError where `name` gets none."""
    if driving.flame is None:
        raise UserError(f"{name} needs the driver's FLAME coefficients: {WHERE}")
    return driving.flame


def anybody(head: ParametricHead, code: FlameCode) -> Float[Tensor, "V 3"]:
    """The head without shape, expression and pose: what every person's mesh can be compared with."""
    return head(*(torch.zeros_like(t[:1]) for t in (code.shape, code.expression, code.pose)))[0]


def kept(head: ParametricHead, code: FlameCode, key: Hashable, make: Callable[[Tensor], T]) -> T:
    """What `make` makes of the head that is `anybody`, once per head, key and device: training prepares people in every step."""
    found, key = _KEPT.setdefault(head, {}), (key, code.shape.device)
    if key not in found:
        found[key] = make(anybody(head, code))
    return found[key]  # pyright: ignore[reportReturnType]  (what was made by this key)


def per_frame(t: Shaped[Tensor, "B ..."], frames: int) -> Shaped[Tensor, "F ..."]:
    """What a person has, for each of k frames: identity-major, and a view where there is one person or one frame."""
    return t[:, None].expand(-1, frames, *t.shape[1:]).flatten(0, 1)


def shaped(head: ParametricHead, shape: Tensor) -> Callable[[Tensor, Tensor], Skinned]:
    """The head with the people's own shape [B,S]: (expression, pose) of their frames, identity-major → `Skinned`.

    The driver's shape has no way in, so that the driver's identity does not leak. A head that can prepare for a shape
    (`FlameModel.shaped`) does so once; any other is called with the shape in every frame.
    """
    prepare = getattr(head, "shaped", None)
    if prepare is not None:
        return prepare(shape)

    def skinned(expression: Tensor, pose: Tensor) -> Skinned:
        rows = shape.repeat_interleave(len(pose) // len(shape), 0)
        unposed, transforms = head.unposed(rows, expression, pose), head.joint_transforms(rows, expression, pose)
        return Skinned(head(rows, expression, pose), unposed, transforms)

    return skinned
