"""What goes into the kernels and comes out of them, in the order it is stored: types and constants, for kernels and twins alike."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

MAX_SCALE = 0.05
NEAR, EPS_2D = 0.01, 0.3
"""Of splatting: nearer than this nothing is drawn (world units); added to the 2D covariance (pixels²)."""
ALPHA_MAX, ALPHA_MIN, STOP = 0.999, 1 / 255, 1e-4
"""What α is capped at; below which it is nothing; a pixel stops before less light comes through."""
COLOR_HEIGHT, COLOR_OFFSET = 1.002, -0.001
"""Colours are COLOR_OFFSET + COLOR_HEIGHT · sigmoid: 0 and 1 are within reach."""
LAYOUT = {"position": 3, "scale": 3, "quaternion": 4, "opacity": 1, "color": 3}
RAW = sum(LAYOUT.values())
JOINTS = 5
"""Of a FLAME-format head: root, neck, jaw, left eye, right eye."""


class Unsupported(RuntimeError):
    """A kernel cannot run on this GPU: one sentence that says why and what to do."""


class Phi(NamedTuple):
    """Weights of the Gaussian decoder Φ: 48 → H softplus → 14."""

    w1: Float[Tensor, "H D"]
    b1: Float[Tensor, " H"]
    w2: Float[Tensor, "14 H"]
    b2: Float[Tensor, "14"]


class Psi(NamedTuple):
    """Weights of a local fusion network Ψ: M → H softplus → D. The first layer's bias comes per frame."""

    w1: Float[Tensor, "H M"]
    w2: Float[Tensor, "D H"]
    b2: Float[Tensor, " D"]


class Attributes(NamedTuple):
    """Gaussians after their activations, as gsplat wants them."""

    means: Float[Tensor, "B N 3"]
    quats: Float[Tensor, "B N 4"]
    scales: Float[Tensor, "B N 3"]
    opacities: Float[Tensor, "B N"]
    colors: Float[Tensor, "B N 3"]


class Bound(NamedTuple):
    """Gaussians' geometry, in gsplat's layout: of frames in space, or of a person in the triangles' own frames."""

    means: Float[Tensor, "F N 3"]
    quats: Float[Tensor, "F N 4"]
    scales: Float[Tensor, "F N 3"]


Moved = TypeVar("Moved", Bound, Attributes)
"""Gaussians of which geometry changes alone, or every attribute."""


class Layers(NamedTuple):
    """Weights of L cross-attention layers that belong to nobody's tokens, and of the projection after the last."""

    o: Float[Tensor, "L D"]  # bias of the attention
    w1: Float[Tensor, "L H D"]
    b1: Float[Tensor, "L H"]
    w2: Float[Tensor, "L D H"]
    b2: Float[Tensor, "L D"]
    out: Float[Tensor, "D D"]
    c: Float[Tensor, " D"]


class Flame(NamedTuple):
    """A FLAME-format head (PAPER §5). Its template and joints may be one person's each: then nothing of shape is left to do."""

    template: Float[Tensor, "B V 3"]
    directions: Float[Tensor, "K 3 W"]  # shape, expression, 36 pose correctives; rows may be longer than V (aligned)
    weights: Float[Tensor, "V 5"]
    joints: Float[Tensor, "B 5 3"]  # rest positions
    joint_shapes: Float[Tensor, "S 5 3"]  # J_regressor · shape directions
    joint_expressions: Float[Tensor, "E 5 3"]  # J_regressor · expression directions
    parents: tuple[int, ...]

    @property
    def n_shape(self) -> int:
        return len(self.joint_shapes)

    def shaped(self, shape: Float[Tensor, "B S"]) -> Flame:
        """The people of that shape: template and joints with β in them, for `flame_skinning(…, shape=None)`."""
        step = torch.einsum("bk,kcv->bvc", shape, self.directions[: shape.shape[1], :, : self.template.shape[1]])
        moved = torch.einsum("bk,kjc->bjc", shape, self.joint_shapes[: shape.shape[1]])
        return self._replace(template=(self.template + step).contiguous(), joints=(self.joints + moved).contiguous())


class Skinned(NamedTuple):
    """A head's frames: after skinning, before it, and A_j: rest → posed position of what hangs on joint j."""

    vertices: Float[Tensor, "F V 3"]
    unposed: Float[Tensor, "F V 3"]
    transforms: Float[Tensor, "F 5 4 4"]


class Parts(NamedTuple):
    """Which parts of the head a Gaussian belongs to, and how much to each: constants, no gradient."""

    index: Int[Tensor, "B k N"]
    weights: Float[Tensor, "B k N"]


class Binding(NamedTuple):
    """Which of the head's vertices and joints a Gaussian follows: constants, no gradient."""

    vertices: Int[Tensor, "B k N"]
    weights: Float[Tensor, "B k N"]
    joints: Float[Tensor, "B 5 N"]  # skinning weights
