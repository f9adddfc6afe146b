"""FLAME-format heads: loader for real FLAME files and for our own exports, and the model itself (PAPER §5).

V(β, ψ, θ) = LBS(T + B_s β + B_e ψ + B_p (R(θ) − I), J(T + B_s β + B_e ψ), θ, weights)

The FLAME paper writes J(T + B_s β); smplx and every tracker's code regress the joints from the shape with its expression, and
coefficients in the wild were fitted with that.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from i4d_bench.heads.flame_pickle import load_pickle
from i4d_bench.heads.placement import inside_out, recognise
from i4d_bench.progress import console
from i4d_bench.types import ParametricHead, UserError
from kernels import flame_skinning
from kernels.layout import JOINTS, Flame, Skinned
from kernels.reference import joint_transforms
from kernels.reference import rodrigues as rodrigues

CORRECTIVES = 9 * (JOINTS - 1)
ALIGNED = 32
"""Rows of the stored directions hold a multiple of so many vertices: 16-byte reads."""
N_SHAPE = 300
"""Shape components in a real FLAME file's `shapedirs`; expression components follow."""
KEYS = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table", "f")
OURS = ("n_shape", "arkit_expression", "arkit_pose")
"""What only our own exports hold; they are in canonical space already, which their `arkit_pose` says."""
METRES = 1 / 0.38
"""Canonical units per metre."""
BETWEEN_EYES = np.array([0.0, 0.135, 0.187])
"""Where a real model's mid-point between the eye joints is brought."""


class FlameModel(nn.Module, ParametricHead):
    """model(shape [B,S], expression [B,E], pose [B,15]) → vertices [B,V,3], canonical units.

    pose: axis-angle of root, neck, jaw, left eye and right eye, radians. Coefficients may be fewer than the model has.
    `shaped` is for many frames of the same people. On a GPU each call is one kernel (`kernels.flame_skinning`).
    """

    v_template: Float[Tensor, "V 3"]
    weights: Float[Tensor, "V 5"]
    faces: Int[Tensor, "F 3"]
    directions: Float[Tensor, "K 3 W"]
    J_regressor: Float[Tensor, "5 V"]
    joint_template: Float[Tensor, "1 5 3"]
    joint_shapes: Float[Tensor, "S 5 3"]
    joint_expressions: Float[Tensor, "E 5 3"]
    arkit_expression: Float[Tensor, "52 E"] | None
    arkit_pose: Float[Tensor, "52 15"] | None

    def __init__(self, v_template, shapedirs, posedirs, J_regressor, weights, parents, faces, n_shape: int):
        """v_template [V,3], shapedirs [V,3,S+E], posedirs [V,3,36], J_regressor [5,V], weights [V,5], faces [F,3]."""
        super().__init__()
        tensor = lambda a: torch.as_tensor(np.ascontiguousarray(a), dtype=torch.float32)  # noqa: E731
        directions = torch.cat([tensor(shapedirs), tensor(posedirs)], -1).permute(2, 1, 0)
        count = directions.shape[-1]
        aligned = nn.functional.pad(directions, (0, -count % ALIGNED)).contiguous()
        self.register_buffer("v_template", tensor(v_template))
        self.register_buffer("directions", aligned)  # [S+E+36,3,W]: as the kernel reads them
        self.register_buffer("J_regressor", tensor(J_regressor))
        self.register_buffer("weights", tensor(weights))
        self.register_buffer("faces", torch.as_tensor(np.asarray(faces, np.int64)))
        # The joints are linear in shape and expression: J_regressor times template and directions, once.
        exact = self.J_regressor.double()
        moved = torch.einsum("jv,kcv->kjc", exact, directions[: len(directions) - CORRECTIVES].double()).float()
        self.register_buffer("joint_template", (exact @ self.v_template.double()).float()[None])
        self.register_buffer("joint_shapes", moved[:n_shape].contiguous())
        self.register_buffer("joint_expressions", moved[n_shape:].contiguous())
        self.parents = tuple(int(p) for p in parents)
        self.n_shape = n_shape
        self.origin = torch.zeros(3, dtype=torch.float64)
        """Of canonical space in a real file's own head space, in metres (`load`): trackers' cameras are given in that."""
        # [52,E] and [52,15], our exports' map from ARKit coefficients to the model's
        self.register_buffer("arkit_expression", None, persistent=False)
        self.register_buffer("arkit_pose", None, persistent=False)

    @property
    def n_expression(self) -> int:
        return len(self.directions) - self.n_shape - CORRECTIVES

    @property
    def shapedirs(self) -> Float[Tensor, "V 3 S"]:
        return self._directions(0, self.n_shape)

    @property
    def expressiondirs(self) -> Float[Tensor, "V 3 E"]:
        return self._directions(self.n_shape, len(self.directions) - CORRECTIVES)

    @property
    def posedirs(self) -> Float[Tensor, "V 3 36"]:
        return self._directions(len(self.directions) - CORRECTIVES, len(self.directions))

    def _directions(self, start: int, stop: int) -> Tensor:
        return self.directions[start:stop, :, : len(self.v_template)].permute(2, 1, 0)

    def forward(self, shape: Float[Tensor, "B S"], expression: Float[Tensor, "B E"], pose: Float[Tensor, "B 15"]):
        return self.skinned(shape, expression, pose).vertices

    def unposed(self, shape, expression, pose) -> Float[Tensor, "B V 3"]:
        """T + B_s β + B_e ψ + B_p (R(θ) − I): before skinning."""
        return self.skinned(shape, expression, pose).unposed

    def joint_transforms(self, shape, expression, pose) -> Float[Tensor, "B 5 4 4"]:
        """A_j: rest position → posed position of what hangs on joint j."""
        return joint_transforms(pose, self.joints(shape, expression), self.parents)[0]

    def joints(self, shape, expression) -> Float[Tensor, "B 5 3"]:
        """Rest positions."""
        out = self.joint_template
        for coefficients, moves in ((shape, self.joint_shapes), (expression, self.joint_expressions)):
            self._check(len(moves), coefficients)
            out = out + torch.einsum("bk,kjc->bjc", coefficients, moves[: coefficients.shape[1]])
        return out

    def skinned(self, shape, expression, pose) -> Skinned:
        """Vertices, the same before skinning, and the joints' transforms."""
        self._check(self.n_shape, shape)
        self._check(self.n_expression, expression)
        return flame_skinning(expression, pose, self._flame(), shape)

    def shaped(self, shape: Float[Tensor, "B S"]) -> Callable[[Tensor, Tensor], Skinned]:
        """The same people frame after frame: (expression [B·k,E], pose [B·k,15]), identity-major → their `Skinned` frames.
        Their shape is blended in once, here, so that a frame reads expression and pose alone."""
        self._check(self.n_shape, shape)
        flame = self._flame().shaped(shape)

        def skinned(expression, pose) -> Skinned:
            self._check(self.n_expression, expression)
            return flame_skinning(expression, pose, flame)

        return skinned

    def arkit(self, coefficients: Float[Tensor, "B 52"]) -> tuple[Float[Tensor, "B E"], Float[Tensor, "B 15"]]:
        """Expression and pose that the 52 ARKit coefficients mean. Raises UserError where the file has no map of them."""
        if self.arkit_expression is None or self.arkit_pose is None:
            raise UserError("this FLAME file does not say what the 52 ARKit expressions are in its components")
        return coefficients @ self.arkit_expression, coefficients @ self.arkit_pose

    def _flame(self) -> Flame:
        template = self.v_template[None]
        moves = self.joint_shapes, self.joint_expressions
        return Flame(template, self.directions, self.weights, self.joint_template, *moves, self.parents)

    @staticmethod
    def _check(has: int, coefficients: Tensor) -> None:
        if coefficients.shape[-1] > has:
            raise UserError(f"{coefficients.shape[-1]} coefficients were given to a FLAME-format model that has {has}")


def load(path: str | Path) -> FlameModel:
    """A FLAME model from FLAME's own .pkl (brought into canonical space) or from our .npz (`heads.export`).

    A file in other units or axes than FLAME's own is converted, and that is printed (`heads.placement`).
    Raises UserError when the file is missing, is not such a model, its arrays do not fit together or are no head's.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no FLAME file {path}; FLAME is distributed by its authors behind a licence form")
    a = _arrays(path)
    origin = _placed(path, a)
    parents = [-1, *a["kintree_table"][0, 1:]]  # the root's own is 2³² − 1 in FLAME's files
    model = FlameModel(
        a["v_template"],
        a["shapedirs"],
        a["posedirs"],
        a["J_regressor"],
        a["weights"],
        parents,
        a["f"],
        int(a["n_shape"]),
    )
    model.origin = torch.as_tensor(origin)
    for key in ("arkit_expression", "arkit_pose"):
        if key in a:
            setattr(model, key, torch.as_tensor(a[key], dtype=torch.float32))
    return model


def _placed(path: Path, a: dict[str, np.ndarray]) -> Float[np.ndarray, "3"]:
    """Brings a file's head into canonical space, in place. Returns that space's origin in FLAME's own metres."""
    ours = "arkit_pose" in a
    positions = {k: a[k] / (METRES if ours else 1) for k in ("v_template", "shapedirs", "posedirs")}
    try:
        placement = recognise(
            positions["v_template"], positions["shapedirs"], a["J_regressor"] @ positions["v_template"]
        )
    except UserError as e:
        raise UserError(f"{path} is no FLAME-format head: {e}") from e
    if ours:
        if placement.note:
            raise UserError(f"{path} is an export of i4d-bench that somebody changed ({placement.note}): make it again")
        return np.zeros(3)
    if placement.note:
        console.print(f"{path}: {placement.note}; converted to FLAME's own metres, y up and z out of the face")
    # Pose correctives are functions of FLAME's own angles, whatever the axes of what they move.
    positions = {k: placement(x) for k, x in positions.items()}
    if inside_out(positions["v_template"], a["f"].astype(int)):
        console.print(f"{path}: its triangles face inwards; turned over")
        a["f"] = a["f"][:, ::-1].copy()
    origin = (a["J_regressor"] @ positions["v_template"])[3:5].mean(0) - BETWEEN_EYES / METRES
    positions["v_template"] -= origin
    a |= {k: x * METRES for k, x in positions.items()}
    return origin


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """The file's arrays, checked against each other."""
    data = (_load_npz if path.suffix == ".npz" else load_pickle)(path, KEYS + OURS)
    missing = [k for k in KEYS if k not in data]
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}: it is not a FLAME-format model")
    a = {"n_shape": np.array(N_SHAPE)} | {k: _numbers(path, k, data[k]) for k in data}
    V, F = a["v_template"].shape[:1], a["f"].shape[:1]
    if a["posedirs"].ndim == 2 and a["posedirs"].size == 3 * V[0] * CORRECTIVES:  # some exports store [36, V·3]
        rows = a["posedirs"].T if len(a["posedirs"]) == CORRECTIVES else a["posedirs"]
        a["posedirs"] = rows.reshape(*V, 3, CORRECTIVES)
    shapes = {"v_template": (*V, 3), "f": (*F, 3), "posedirs": (*V, 3, CORRECTIVES), "J_regressor": (JOINTS, *V),
              "weights": (*V, JOINTS), "kintree_table": (2, JOINTS), "n_shape": ()}  # fmt: skip
    components = a["shapedirs"].shape[-1:]
    for name, expected in {**shapes, "shapedirs": (*V, 3, *components)}.items():
        if a[name].shape != expected or not a[name].size:
            raise UserError(f"{path}: {name} has shape {a[name].shape}, in a FLAME-format model it would be {expected}")
    parents = a["kintree_table"][0]
    if any(not 0 <= parents[j] < j for j in range(1, JOINTS)) or a["f"].min() < 0 or a["f"].max() >= V[0]:
        raise UserError(f"{path}: kintree_table or f points outside the model, so the file is damaged")
    if not 0 < a["n_shape"] < components[0]:
        raise UserError(f"{path}: shapedirs has {components[0]} components; expression's would follow {a['n_shape']:g}")
    return a


def _numbers(path: Path, key: str, value) -> Float[np.ndarray, "..."]:
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError) as e:
        raise UserError(f"{path}: {key} is not an array of numbers") from e
    if not np.isfinite(array).all():
        raise UserError(f"{path}: {key} has values that are not finite, so the file is damaged")
    return array


def _load_npz(path: Path, keys: tuple[str, ...]) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {k: file[k] for k in keys if k in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as e:
        raise UserError(f"{path} is not a readable .npz ({e})") from e


def fit(
    model: FlameModel, vertices: Float[Tensor, "B V 3"], pose: Float[Tensor, "B 15"], ridge: float = 1e-6
) -> tuple[Float[Tensor, "B S"], Float[Tensor, "B E"]]:
    """Least-squares (shape, expression) of posed meshes whose pose is known.

    Exact, because a posed mesh is affine in both: the joints' rotations turn the blendshapes, and the joints' rest
    positions, which follow them, shift what hangs on them. ridge: relative to each coefficient's own weight.
    """
    dirs = torch.cat([model.shapedirs, model.expressiondirs], -1).double()
    weights = model.weights.double()
    joints = torch.einsum("jv,vck->jck", model.J_regressor.double(), dirs)
    zero = vertices.new_zeros(len(vertices), 1)
    rest = model.unposed(zero, zero, pose).double()  # template and pose correctives
    transforms = model.joint_transforms(zero, zero, pose).double()
    solutions = []
    for target, x, A in zip(vertices.double(), rest, transforms, strict=True):
        R = A[:, :3, :3]
        shifts: list[Tensor] = []  # ∂A_j/∂coefficients: only its translation moves
        for j, parent in enumerate(model.parents):
            before, carried = (torch.eye(3).to(R), 0) if parent < 0 else (R[parent], shifts[parent])
            shifts.append((before - R[j]) @ joints[j] + carried)
        T = torch.einsum("vj,jkl->vkl", weights, A)[:, :3]
        design = (T[..., :3] @ dirs + torch.einsum("vj,jck->vck", weights, torch.stack(shifts))).flatten(0, 1)
        residual = (target - (T[..., :3] @ x[..., None])[..., 0] - T[..., 3]).flatten()
        normal = design.T @ design
        normal.diagonal().add_(ridge * normal.diagonal() + 1e-12 * normal.diagonal().mean())
        solutions.append(torch.linalg.solve(normal, design.T @ residual))
    shape, expression = torch.stack(solutions).to(vertices).split([model.n_shape, model.n_expression], -1)
    return shape, expression
