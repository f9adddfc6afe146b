"""FLAME's skinning in Triton against its twin in fp64."""

from __future__ import annotations

import functools

import pytest
import torch
from heads import Rand, check, flame, in_type, outputs_and_gradients

pytest.importorskip("triton")
import kernels
from kernels import reference
from kernels.fused import flame_skinning as module


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    """What a kernel leaves unwritten is NaN."""
    empty = torch.empty
    monkeypatch.setattr(module.torch, "empty", lambda *a, **k: empty(*a, **k).fill_(float("nan")))


def compare(vertices, n_shape, n_expression, frames, people, with_shape, aligned=True, given=None):
    head, rand = flame(vertices, n_shape, n_expression, people, aligned), Rand(1)
    leaves = {"expression": rand(frames, given or n_expression), "pose": rand(frames, 15, std=0.6)}
    leaves |= {"template": head.template, "joints": head.joints}
    leaves["pose"][0, :6] = torch.tensor([0, 0, 0, 4.0, -3, 5])  # no turn at all, and more than one
    if with_shape:
        leaves["shape"] = rand(frames, n_shape)

    def op(function, x):
        own = in_type(head, x["pose"].dtype)._replace(template=x["template"], joints=x["joints"])
        return function(x["expression"], x["pose"], own, x.get("shape"))

    run = lambda f, dtype: outputs_and_gradients(functools.partial(op, f), leaves, dtype)  # noqa: E731
    twin = reference.flame_skinning
    check(run(twin, torch.float64), run(twin, torch.float32), run(module.flame_skinning, torch.float32))


@pytest.mark.parametrize("vertices", [1, 63, 65])
@pytest.mark.parametrize("with_shape", [True, False])
def test_one_frame(vertices, with_shape):
    compare(vertices, 4, 35, 1, 1, with_shape)


@pytest.mark.parametrize(("frames", "people"), [(6, 2), (34, 1)])
def test_frames_of_people(frames, people):
    compare(65, 40, 33, frames, people, frames == 6)


def test_rows_that_are_not_aligned():
    compare(63, 3, 5, 2, 1, True, aligned=False)


def test_fewer_coefficients_than_the_head_has():
    compare(33, 6, 9, 1, 1, False, given=4)


def test_more_coefficients_than_the_head_has_are_refused():
    head = in_type(flame(33, 6, 9), torch.float32)
    for function in (reference.flame_skinning, module.flame_skinning):
        with pytest.raises(ValueError, match="10 expression coefficients"):
            function(torch.zeros(1, 10), torch.zeros(1, 15), head)


def test_directions_in_16_bits():
    """Read in 16 bits, computed in fp32: as exact as the twin on the same stored numbers."""
    head, rand = in_type(flame(65, 2, 9), torch.float32), Rand(1)
    stored = head._replace(directions=head.directions.half())
    args = [rand(3, 9).float(), rand(3, 15, std=0.6).float()]
    got, want = module.flame_skinning(*args, stored), reference.flame_skinning(*args, stored)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_a_shaped_head_needs_no_shape():
    """`Flame.shaped` once, or the shape in every frame: the same."""
    head, rand = in_type(flame(65, 4, 6), torch.float32), Rand(1)
    shape, expression, pose = rand(2, 4).float(), rand(6, 6).float(), rand(6, 15, std=0.5).float()
    once = module.flame_skinning(expression, pose, head.shaped(shape))
    always = module.flame_skinning(expression, pose, head, shape.repeat_interleave(3, 0))
    for a, b in zip(once, always, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_the_models_own_tensors_are_constants():
    head = in_type(flame(33, 2, 3), torch.float32)
    with pytest.raises(ValueError, match="constants"):
        module.flame_skinning(
            torch.zeros(1, 3), torch.zeros(1, 15), head._replace(weights=head.weights.clone().requires_grad_())
        )


def test_the_model_class_goes_through_the_kernel(tmp_path):
    from i4d_bench.heads.flame import FlameModel

    head, rand = flame(63, 4, 6), Rand(2)
    dirs = head.directions[..., :63].permute(2, 1, 0).cpu()
    model = FlameModel(
        head.template[0].cpu(), dirs[..., :10], dirs[..., 10:], rand(5, 63).softmax(-1).cpu(), head.weights.cpu(),
        head.parents, torch.zeros(1, 3), 4,
    ).to(head.template.device)  # fmt: skip
    args = [rand(2, 4).float(), rand(2, 6).float(), rand(2, 15, std=0.4).float()]
    with kernels.using("eager"):
        want, unposed, joints = model(*args), model.unposed(*args), model.joint_transforms(args[0], args[2])
    with kernels.using("triton"):
        torch.testing.assert_close(model(*args), want, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(model.unposed(*args), unposed, rtol=1e-5, atol=1e-6)
        frames = model.shaped(args[0])(*args[1:])
    torch.testing.assert_close(frames.vertices, want, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(frames.transforms, joints, rtol=1e-5, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("frames", [1, 8, 32, 100])
@pytest.mark.parametrize("with_shape", [True, False])
def test_flames_own_size(frames, with_shape):
    compare(5023, 300, 100, frames, 1, with_shape)
