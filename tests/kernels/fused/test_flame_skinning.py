"""FLAME's skinning in Triton against its twin in fp64."""

from __future__ import annotations

import dataclasses
import functools

import pytest
import torch
from helpers.agreement import DEVICE, agree

pytest.importorskip("triton")
import kernels
from kernels import reference
from kernels.cases import case, flame
from kernels.contract import Draw
from kernels.fused import flame_skinning as module

SHAPED, WITH_SHAPE = case("flame_skinning"), case("flame_skinning_shape")
BOTH = pytest.mark.parametrize("of", [WITH_SHAPE, SHAPED], ids=["with shape", "shaped"])


def inputs(of, vertices, n_shape, n_expression, people=1, frames=1, **sizes):
    sizes |= {"vertices": vertices, "n_shape": n_shape, "n_expression": n_expression}
    return of.inputs(0, people, frames, device=DEVICE, **sizes)


small = functools.partial(inputs, SHAPED)


@pytest.mark.parametrize("vertices", [1, 63, 65])
@BOTH
def test_one_frame(vertices, of):
    agree(of, inputs(of, vertices, 4, 35))


@pytest.mark.parametrize(
    ("of", "vertices", "people", "frames"), [(WITH_SHAPE, 65, 2, 3), (SHAPED, 20, 1, 34)], ids=["2 by 3", "1 by 34"]
)
def test_frames_of_people(of, vertices, people, frames):
    agree(of, inputs(of, vertices, 40, 33, people, frames))


@pytest.mark.parametrize("angle", [0, 1e-4, 0.5, 1.99, 2.01, torch.pi - 1e-3, 2 * torch.pi])
def test_turns_of_any_size(angle):
    x = inputs(WITH_SHAPE, 33, 3, 5, frames=2)
    axes = torch.nn.functional.normalize(Draw.seeded(3, DEVICE)(2, 5, 3), dim=-1)
    agree(WITH_SHAPE, x | {"pose": (angle * axes).flatten(1)})


@pytest.mark.parametrize("output", ["vertices", "unposed", "transforms"])
def test_gradients_of_one_output_alone(output):
    x = inputs(WITH_SHAPE, 33, 3, 5, frames=2)
    one = dataclasses.replace(WITH_SHAPE, call=lambda x: (getattr(as_skinned(x), output),))
    leaves = (
        ("expression", "pose", "joints", "shape")
        if output == "transforms"
        else ("expression", "pose", "template", "shape")
    )
    agree(dataclasses.replace(one, leaves=leaves), x)


def as_skinned(x):
    return reference.Skinned(*WITH_SHAPE.call(x))


def test_the_joints_may_be_chained_otherwise():
    """Each on the one before, and two roots."""
    x = inputs(WITH_SHAPE, 33, 3, 5, frames=2)
    for parents in ((-1, 0, 1, 2, 3), (-1, 0, -1, 2, 2)):
        head = lambda x, parents=parents: flame(x)._replace(parents=parents)  # noqa: E731
        call = lambda x, head=head: kernels.flame_skinning(x["expression"], x["pose"], head(x), x["shape"])  # noqa: E731
        agree(dataclasses.replace(WITH_SHAPE, call=call), x)


def test_rows_that_are_not_aligned():
    agree(WITH_SHAPE, inputs(WITH_SHAPE, 63, 3, 5, frames=2, aligned=False))


def test_fewer_coefficients_than_the_head_has():
    agree(SHAPED, small(33, 6, 9, given=4))


def test_more_coefficients_than_the_head_has_are_refused():
    x = small(33, 6, 9, given=10)
    for function in (reference.flame_skinning, module.flame_skinning):
        with pytest.raises(ValueError, match="10 expression coefficients"):
            function(x["expression"], x["pose"], flame(x))


def test_directions_in_16_bits():
    """Read in 16 bits, computed in fp32: as exact as the twin on the same stored numbers."""
    x = small(65, 2, 9, frames=3)
    x["directions"] = x["directions"].half()
    got, want = SHAPED.run(x, "triton"), SHAPED.run(x, "eager")
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


def test_a_shaped_head_needs_no_shape():
    """`Flame.shaped` once, or the shape in every frame: the same."""
    x = inputs(SHAPED, 65, 4, 6, frames=6)
    head, shape = flame(x), Draw.seeded(1, DEVICE)(2, 4)
    once = module.flame_skinning(x["expression"], x["pose"], head.shaped(shape))
    always = module.flame_skinning(x["expression"], x["pose"], head, shape.repeat_interleave(3, 0))
    for a, b in zip(once, always, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_the_models_own_tensors_are_constants():
    x = small(33, 2, 3)
    x["weights"].requires_grad_()
    with pytest.raises(ValueError, match="constants"):
        module.flame_skinning(x["expression"], x["pose"], flame(x))


def test_the_model_class_goes_through_the_kernel():
    from i4d_bench.heads.flame import FlameModel

    x = inputs(WITH_SHAPE, 63, 4, 6, frames=2)
    dirs = x["directions"][..., :63].permute(2, 1, 0).double().cpu()
    model = FlameModel(
        x["template"][0].double().cpu(), dirs[..., :10], dirs[..., 10:],
        Draw.seeded(2)(5, 63).softmax(-1).double(), x["weights"].double().cpu(), flame(x).parents, torch.zeros(1, 3), 4,
    ).to(DEVICE)  # fmt: skip
    args = [x["shape"], x["expression"], x["pose"]]
    with kernels.using("eager"):
        want, unposed, joints = model(*args), model.unposed(*args), model.joint_transforms(*args)
    with kernels.using("triton"):
        torch.testing.assert_close(model(*args), want, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(model.unposed(*args), unposed, rtol=1e-5, atol=1e-6)
        frames = model.shaped(args[0])(*args[1:])
    torch.testing.assert_close(frames.vertices, want, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(frames.transforms, joints, rtol=1e-5, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("frames", [1, 8, 32, 100])
@BOTH
def test_flames_own_size(frames, of):
    agree(of, of.inputs(0, frames=frames, device=DEVICE))


@pytest.mark.gpu
@BOTH
def test_gradients_are_the_same_in_every_run(of):
    x = of.inputs(0, frames=3, device=DEVICE)
    first, *others = (of.run(x, "triton", backward=True) for _ in range(5))
    assert all(torch.equal(first[k], other[k]) for other in others for k in first)
