"""What local_part_blendshapes promises beyond the contract and the other local designs: parts of the head, everybody's the same."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from helpers.designs import awake, close, make

from i4d_bench.types import UserError
from variants.local_part_blendshapes import Networks, centres, parts_of

NAME = "local_part_blendshapes"


def change(fusion, identity, source, driving) -> torch.Tensor:
    """δf [F,N,48], as training records it."""
    delta = fusion.animate(fusion.prepare(identity, source), driving).delta
    assert delta is not None
    return delta


def points(count: int = 500) -> torch.Tensor:
    return 0.25 * torch.randn(1, count, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("source", [True, False])
def test_it_is_its_equations(source, tiny):
    """The docstring's, written out with a blendshape for every coefficient and Gaussian; 107,604 parameters."""
    fusion, identity, codes = (
        awake(NAME, source=source, parts=12),
        tiny.identity(2),
        (tiny.code(2), tiny.code(2, seed=2)),
    )
    assert sum(p.numel() for p in make(NAME).parameters()) == 107_604
    z = fusion.V(torch.cat([c.motion for c in codes[not source :]], -1))
    net = fusion.networks
    e = torch.stack([F.silu(z @ net.U1[p] + net.a1[p]) @ net.U2[p] + net.a2[p] for p in range(12)], 1)  # [F,P,K]
    distance, near = torch.cdist(identity.anchors, centres(12)).topk(4, largest=False)
    weights = 1 / distance[..., :3] - 1 / distance[..., 3:]
    weights = weights / weights.sum(-1, keepdim=True)
    e = (weights[..., None] * e[torch.arange(2)[:, None, None], near[..., :3]]).sum(2)  # [F,N,K]
    h = F.softplus(fusion.W1(F.layer_norm(identity.m, (48,))))
    blendshapes = torch.stack([fusion.W(a * h) for a in fusion.a.weight.mT], 2)  # [F,N,K,48]
    delta = (e[..., None] * blendshapes).sum(2)
    close(fusion.animate(fusion.prepare(identity, codes[0]), codes[1]), identity.decode(identity.f + delta), 1e-4)


@pytest.mark.parametrize("neighbours", [1, 3])
def test_a_part_changes_its_own_gaussians_and_blended_neighbours_alone(neighbours, tiny):
    fusion, identity, source, driving = (
        make(NAME, neighbours=neighbours),
        tiny.identity(1),
        tiny.code(1),
        tiny.code(1, seed=2),
    )
    before = change(fusion, identity, source, driving)
    near = torch.cdist(identity.anchors, centres(256)).topk(neighbours, largest=False)[1][0]
    part = int(near[near.shape[0] // 2, 0])
    with torch.no_grad():
        fusion.networks.a2[part, 0, 3] += 1
    changed = (change(fusion, identity, source, driving) != before).any(-1)[0]
    belongs = (near == part).any(-1)
    assert torch.equal(changed, belongs) and 0 < belongs.sum() < len(belongs)


def test_a_place_belongs_to_the_same_parts_for_everybody_in_any_sampling(tiny):
    """Whoever it is, wherever it stands in the order and whatever the seed."""
    identity, source = tiny.identity(2), tiny.code(2)
    order = torch.randperm(identity.anchors.shape[1], generator=torch.Generator().manual_seed(0))
    anchors = torch.stack([identity.anchors[0], identity.anchors[0, order]])
    prepared = [make(NAME, seed=s).prepare(dataclasses.replace(identity, anchors=anchors), source) for s in (0, 1)]
    for parts in (p.parts for p in prepared):
        assert torch.equal(parts.index[0][:, order], parts.index[1])
        torch.testing.assert_close(parts.weights[0][:, order], parts.weights[1])
    assert torch.equal(prepared[0].parts.index, prepared[1].parts.index)
    assert "centres" not in make(NAME).state_dict(), "they are the code's, no checkpoint's"


@pytest.mark.parametrize(("neighbours", "jumps"), [(3, False), (1, True)])
def test_coefficients_do_not_jump_at_the_borders_of_parts(neighbours, jumps):
    """Along a line over the face: with steps a tenth as long the blend of any values of the parts changes a tenth as much."""
    values, largest = torch.randn(256, generator=torch.Generator().manual_seed(0)), []
    for steps in (8_000, 80_000):
        x = torch.linspace(-0.2, 0.2, steps + 1)
        line = torch.stack([x, torch.full_like(x, 0.03), torch.full_like(x, 0.23)], -1)[None]
        parts = parts_of(line, centres(256), neighbours)
        largest.append((parts.weights * values[parts.index.long()]).sum(1).diff().abs().max())
    assert largest[1] > 0.5 if jumps else largest[1] < 0.15 * largest[0]


@pytest.mark.parametrize(("count", "neighbours"), [(256, 3), (4, 4), (1, 1)])
def test_weights_are_shares(count, neighbours):
    parts = parts_of(points(), centres(count), neighbours)
    assert parts.index.shape == parts.weights.shape == (1, neighbours, 500)
    torch.testing.assert_close(parts.weights.sum(1), torch.ones(1, 500))
    assert (parts.weights >= 0).all() and torch.equal(
        parts.index[:, 0].long(), torch.cdist(points(), centres(count)).argmin(-1)
    )


def test_half_of_the_parts_are_on_the_front_quarter():
    at = centres(256)
    front = at[:, 2] > 0.26 / 2
    assert len(at.unique(dim=0)) == 256 and abs(int(front.sum()) - 128) <= 1
    assert at[0, 2] == at[:, 2].max() and at.abs().max() < 0.5


def test_every_part_has_a_network_of_its_own():
    torch.manual_seed(0)
    nets, z = Networks(5, 4, 3, 2), torch.randn(6, 4)
    before = nets(z)
    with torch.no_grad():
        nets.U1[2] += 1
    assert (nets(z) != before).any(-1).any(0).tolist() == [False, False, True, False, False]


@pytest.mark.parametrize("neighbours", [0, 9])
def test_more_neighbours_than_parts_are_refused(neighbours):
    with pytest.raises(UserError, match=f"neighbours must be 1 to 8.*{neighbours}"):
        make(NAME, parts=8, neighbours=neighbours)
