"""A FLAME file without ARKit's expressions gets them from the embedded head, by shape."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from i4d_bench.heads.expressions import INDEX
from i4d_bench.heads.flame import FlameModel
from i4d_bench.heads.transfer import transfer_expressions
from i4d_bench.heads.worlds import exported_head
from i4d_bench.types import UserError


@pytest.fixture(scope="module")
def foreign():
    """The embedded head with other vertices, another size and place, rotated components; and which vertices it kept."""
    known, rng = exported_head("procedural"), np.random.default_rng(0)
    kept = np.sort(rng.permutation(len(known.v_template))[: len(known.v_template) * 2 // 3])
    affine = np.diag([1.08, 0.95, 1.05])
    dirs = torch.cat([known.shapedirs, known.expressiondirs], -1).numpy()[kept]
    turn = np.linalg.qr(rng.normal(size=(known.n_expression,) * 2))[0]
    dirs[..., known.n_shape :] = dirs[..., known.n_shape :] @ turn
    regressor = known.J_regressor.numpy()[:, kept]
    model = FlameModel(
        known.v_template.numpy()[kept] @ affine + [0.01, -0.02, 0.01], np.einsum("vck,cd->vdk", dirs, affine),
        known.posedirs.numpy()[kept], regressor / regressor.sum(1, keepdims=True), known.weights.numpy()[kept],
        known.parents, np.zeros((1, 3)), known.n_shape)  # fmt: skip
    return known, model, kept, affine


def test_expressions_move_the_same_way(foreign):
    known, model, kept, affine = foreign
    assert transfer_expressions(model, known) > 0.8
    assert torch.equal(model.arkit_pose, known.arkit_pose)
    still, zero = torch.zeros(1, 1), torch.zeros(1, 15)
    for name in ("mouthSmileLeft", "browInnerUp", "mouthPucker", "jawOpen"):
        e = slice(INDEX[name], INDEX[name] + 1)
        field = lambda m: m(still, m.arkit_expression[e], m.arkit_pose[e])[0] - m(still, still, zero)[0]  # noqa: B023, E731
        wanted = field(known).numpy()[kept] @ affine
        got = field(model).numpy()
        front = known.v_template.numpy()[kept][:, 2] > 0.1
        left = ((got - wanted)[front] ** 2).sum() / (wanted[front] ** 2).sum()
        assert left < 0.3, f"{name}: {left:.0%} of its motion is missing"


def components(model, expression):
    """The head with other expression components, and nothing that turns."""
    count = len(model.v_template)
    return FlameModel(
        model.v_template, np.concatenate([model.shapedirs, expression], -1), model.posedirs, model.J_regressor,
        torch.eye(5)[0].expand(count, -1), model.parents, model.faces, model.n_shape)  # fmt: skip


def test_components_that_do_not_move_as_faces_do_are_refused(foreign):
    known, model, *_ = foreign
    noise = np.random.default_rng(0).normal(0, 0.01, (len(model.v_template), 3, 20))
    with pytest.raises(UserError, match="hold 0% of the motion"):
        transfer_expressions(components(model, noise), known)


@pytest.mark.parametrize("factor", [1000, [1, -1, -1]], ids=["huge", "turned away"])
def test_a_head_that_is_not_laid_over_the_known_one_is_refused(foreign, factor):
    """`flame.load` would have brought it there."""
    known, model, *_ = foreign
    moved = FlameModel(
        model.v_template.numpy() * np.array(factor), torch.cat([model.shapedirs, model.expressiondirs], -1),
        model.posedirs, model.J_regressor, model.weights, model.parents, model.faces, model.n_shape)  # fmt: skip
    with pytest.raises(UserError, match=r"no face|of the motion"):
        transfer_expressions(moved, known)
