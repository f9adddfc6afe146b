"""A tiny FLAME-format head."""

from __future__ import annotations

import torch


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
