"""The twins, where something else than they says what is right."""

from __future__ import annotations

import torch

from kernels import reference
from kernels.cases import case
from kernels.contract import Draw, cast
from kernels.layout import Bound


def bound_on_a_mesh():
    """In fp64: vertices, faces, owners, and 65 Gaussians in space and in their triangles."""
    x = cast(case("bind_gaussians").inputs(65, vertices=16, triangles=10), torch.float64)
    there = Bound(x["means"], x["quats"], x["scales"])
    local = reference.to_triangles(x["vertices"][0][x["faces"][x["triangles"]]], there)
    return x["vertices"], x["faces"], x["triangles"], there, local


def test_binding_undoes_what_made_it_local():
    """On the mesh it was bound on, a Gaussian is where it was, whatever the triangle."""
    vertices, faces, owners, there, local = bound_on_a_mesh()
    for a, b in zip(reference.bind_gaussians(vertices, faces, owners, local), there, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_bound_gaussians_follow_a_rigid_motion_and_a_growth_of_the_mesh():
    vertices, faces, owners, there, local = bound_on_a_mesh()
    R = reference.rodrigues(Draw.seeded(4)(3).double())
    got = reference.bind_gaussians(1.5 * vertices @ R.T + 0.3, faces, owners, local)
    torch.testing.assert_close(got.means, 1.5 * there.means @ R.T + 0.3, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(got.scales, 1.5 * there.scales, rtol=1e-9, atol=1e-9)
    turned = reference.multiply(reference.quaternion(R), there.quats)
    torch.testing.assert_close(
        got.quats * (got.quats * turned).sum(-1, keepdim=True).sign(), turned, rtol=1e-9, atol=1e-9
    )
