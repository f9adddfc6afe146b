"""What all tests share: a cache of their own, checked annotations, skips with a reason, and a tiny lifted identity."""

from __future__ import annotations

import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")

import jaxtyping
import pytest
import torch
from helpers.annotations import check_annotations
from helpers.caches import close_cache, open_cache

if "--benchmark-only" not in sys.argv:  # checks take time, and would be timed
    check_annotations()
if not torch.cuda.is_available():  # kernels then run in Triton's interpreter (fp32 and fp16: its bf16 is wrong)
    os.environ["TRITON_INTERPRET"] = "1"


def pytest_configure(config):
    if not hasattr(config, "workerinput"):  # xdist's workers have their parent's
        open_cache()


def pytest_unconfigure(config):
    if not hasattr(config, "workerinput"):
        close_cache()


@pytest.fixture(autouse=True)
def _unchecked(request, monkeypatch):
    if request.node.get_closest_marker("unchecked"):
        monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def pytest_collection_modifyitems(items):
    """GPU and asset tests skip with their reason where they cannot run."""
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA GPU"))
        if item.get_closest_marker("assets") and not os.environ.get("I4D_ASSETS"):
            item.add_marker(pytest.mark.skip(reason="needs the real assets (set I4D_ASSETS)"))


class TinyHead:
    """A FLAME-format head of 60 random vertices with two free joints: jaw and one eye."""

    def __init__(self, device="cpu", dtype=torch.float32, n_shape=4, n_expression=6):
        g = torch.Generator().manual_seed(0)
        rand = lambda *s: torch.randn(*s, generator=g).to(device, dtype)  # noqa: E731
        self.template = rand(60, 3) * 0.15
        self.shapes, self.expressions = rand(n_shape, 60, 3) * 0.01, rand(n_expression, 60, 3) * 0.02
        self.weights = torch.softmax(3 * rand(60, 5), -1)
        self.regressor = torch.softmax(3 * rand(5, 60), -1)
        self.faces = torch.arange(60, device=device).view(20, 3)

    def unposed(self, shape, expression, pose):
        return (
            self.template
            + torch.einsum("bs,svk->bvk", shape, self.shapes)
            + torch.einsum("be,evk->bvk", expression, self.expressions)
        )

    def joints(self, shape, expression):
        return self.regressor @ self.unposed(shape, expression, None)

    def joint_transforms(self, shape, expression, pose):
        from i4d_bench.heads.flame import rodrigues

        rotation, joints = rodrigues(pose.unflatten(-1, (5, 3))), self.joints(shape, expression)
        out = torch.zeros(len(pose), 5, 4, 4, dtype=pose.dtype, device=pose.device)
        out[..., :3, :3] = rotation
        out[..., :3, 3] = joints - (rotation @ joints[..., None])[..., 0]
        out[..., 3, 3] = 1
        return out

    def __call__(self, shape, expression, pose):
        v = self.unposed(shape, expression, pose)
        A = torch.einsum("vj,bjkl->bvkl", self.weights, self.joint_transforms(shape, expression, pose))
        return (A[..., :3, :3] @ v[..., None])[..., 0] + A[..., :3, 3]


@pytest.fixture(scope="session")
def tiny():
    """identity(batch), code(batch, frames=1): a small lifted identity (planes differ per person) and random driving codes."""
    from i4d_bench.config.presets import smoke
    from i4d_bench.model.avatar import Backbone
    from i4d_bench.types import FlameCode, Identity, MotionCode

    class Tiny:
        grid = 8

        def identity(self, batch=2, device="cpu", seed=0) -> Identity:
            torch.manual_seed(seed)
            backbone = Backbone(smoke().model).to(device)
            images = torch.rand(batch, 3, 32, 32).to(device)
            return backbone.lift(images, self.grid, TinyHead(device))

        def code(self, rows=2, device="cpu", seed=1) -> MotionCode:
            g = torch.Generator().manual_seed(seed)
            rand = lambda *s: torch.randn(*s, generator=g).to(device)  # noqa: E731
            return MotionCode(
                rand(rows, 512), FlameCode(rand(1, 4).expand(rows, -1), rand(rows, 6), 0.2 * rand(rows, 15))
            )

    return Tiny()
