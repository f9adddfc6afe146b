"""The backbone: factored planes, where Gaussians sit, and that it starts as the source's own head."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from i4d_bench.camera import RADIUS, look_at
from i4d_bench.config.presets import PRESETS, smoke
from i4d_bench.heads.base import Surface
from i4d_bench.heads.worlds import exported_head
from i4d_bench.model.avatar import Backbone
from i4d_bench.model.sampling import EXTENT, sheet
from i4d_bench.model.surface import HALF, HeadSurface
from i4d_bench.render import mesh, render
from i4d_bench.types import FEATURE_DIM, Camera
from kernels.layout import MAX_SCALE
from kernels.reference import activate


def lifted(sampling: str, grid: int = 8):
    torch.manual_seed(0)
    backbone = Backbone(dataclasses.replace(smoke().model, sampling=sampling))
    return backbone.lift(torch.rand(2, 3, 32, 32), grid)


@pytest.mark.parametrize("sampling", ["plane", "ray"])
def test_features_are_what_reading_the_full_planes_gives(sampling):
    identity = lifted(sampling)
    read = identity.sample(identity.planes.full())
    torch.testing.assert_close(torch.cat([identity.f, identity.m], -1), read, rtol=0, atol=1e-5)
    pooled = F.adaptive_avg_pool2d(identity.planes.full().flatten(1, 2), 4).unflatten(1, (3, -1))
    torch.testing.assert_close(identity.planes.pooled(4), pooled, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("sampling", "count"), [("plane", 8 * 8), ("ray", 8 * 8 * 48)])
def test_one_gaussian_per_place(sampling, count):
    identity = lifted(sampling)
    n = identity.f.shape[1]
    assert count <= n <= 1.25 * count and identity.f.shape == (2, n, FEATURE_DIM)
    assert identity.anchors.abs().max() <= EXTENT and identity.canonical.means.shape == (2, n, 3)


@pytest.mark.parametrize("focus", [1.0, 0.5, 0.35])
def test_a_sheet_covers_the_square_and_is_denser_in_the_face(focus):
    x, y, spacing = sheet(64, focus, "cpu")
    for axis, c in enumerate((x.view(64, 64)[0], y.view(64, 64)[:, 0])):
        steps = c.diff().abs()
        assert (c.diff() * (1 if axis == 0 else -1) > 0).all(), "from the top left, without folds"
        assert 0.9 < c.abs().max() <= 1
        said = spacing.view(64, 64, 3)[0, :, 0] if axis == 0 else spacing.view(64, 64, 3)[:, 0, 1]
        torch.testing.assert_close((said[1:] + said[:-1]) / 2, steps, rtol=0.05, atol=1e-4)
    even = 2 / 64
    assert spacing.min() == pytest.approx(focus * even, rel=0.1)


def test_activations_are_the_papers():
    raw = torch.randn(1, 5, 14, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    g = activate(raw)
    softplus = torch.log1p(torch.exp(raw[..., 10] - 1))
    torch.testing.assert_close(g.opacities, 1 - torch.exp(-softplus))
    torch.testing.assert_close(g.scales, MAX_SCALE * torch.sigmoid(raw[..., 3:6]))
    torch.testing.assert_close(g.means, torch.tanh(raw[..., :3]))
    torch.testing.assert_close(g.colors, torch.sigmoid(raw[..., 11:]) * 1.002 - 0.001)


@pytest.mark.parametrize("preset", ["cpu", "gpu"])
def test_untrained_it_shows_the_source(preset):
    """A frontal photo comes back blurred, in its own colours, cut out like a head."""
    torch.manual_seed(0)
    config = PRESETS[preset]().model
    size = config.size
    axis = torch.linspace(-1, 1, size)
    photo = torch.stack(
        [
            0.5 + 0.3 * axis[:, None] * torch.ones(size),
            0.5 - 0.3 * axis.expand(size, -1),
            torch.full((size, size), 0.35),
        ]
    )
    view, K = look_at(0, 0, 32)
    camera = Camera(torch.tensor(view[None]).float(), torch.tensor(K[None]).float(), 32, 32)
    with torch.no_grad():
        drawn = render(Backbone(config).lift(photo[None]).canonical, camera, torch.zeros(1, 3), backend="cpu")
    small = F.interpolate(photo[None], (32, 32), mode="area")[0].movedim(0, -1)
    face = slice(10, 20), slice(11, 21)
    assert drawn.alpha[0][face].min() > 0.9 and drawn.alpha[0, :4, :4].max() < 0.5
    assert (drawn.rgb[0] / drawn.alpha[0].clamp_min(1e-3) - small)[face].abs().mean() < 0.08


def mean_head_from(yaw: float, pitch: float, size: int = 96):
    """The mean head, coloured by height and side: image [1,3,S,S], alpha [S,S] and camera."""
    head = exported_head("procedural")
    vertices, faces = head.v_template.double().numpy(), head.faces.numpy()
    stripes = 0.5 + 0.45 * np.sin(40 * vertices)  # of a few pixels
    surface = Surface(np.tile([0, 0, 1.0], (len(vertices), 1)), stripes, np.zeros(len(vertices)))
    one, none = np.ones(3), np.zeros(3)
    light = mesh.Light(np.array([0, 0, 1.0]), none, np.array([0, 0, 1.0]), none, one, one)
    view, K = look_at(yaw, pitch, size)
    image = mesh.render_mesh(vertices, faces, surface, np.zeros(len(faces), np.uint8), view, K, size, size, light)
    camera = Camera(torch.tensor(view[None]).float(), torch.tensor(K[None]).float(), size, size)
    return torch.tensor(image.rgb).movedim(-1, 0)[None], torch.tensor(image.alpha), camera


@pytest.mark.parametrize(("yaw", "pitch"), [(12, 0), (-12, 8), (0, -10)])
def test_a_photo_is_turned_to_the_front(yaw, pitch):
    photo, _, camera = mean_head_from(yaw, pitch)
    front, alpha, frontal = mean_head_from(0, 0)
    face = alpha > 0.99
    face[:24] = face[70:] = face[:, :34] = face[:, 62:] = False
    rectify = HeadSurface().rectify
    assert face.sum() > 800
    error = lambda image: (image - front)[0, :, face].abs().mean()  # noqa: E731
    assert error(rectify(photo, camera)) < 0.3 * error(photo)
    assert error(rectify(front, frontal)) < 0.02


def test_rays_meet_the_mean_head_where_it_is():
    """The nose is in front of the cheeks, all of it between front and back, and nothing outside the silhouette."""
    surface = HeadSurface()
    vertices = exported_head("procedural").v_template
    nose = vertices[vertices[:, 2].argmax()]
    z = surface(nose[:1], nose[1:2])[0]
    assert abs(z - nose[2]) < 0.02
    pinhole = nose[:2] / (1 - nose[2] / RADIUS) / HALF
    torch.testing.assert_close(surface.unproject(pinhole[:1], pinhole[1:])[0][0], nose, rtol=0, atol=0.02)
    assert not surface(torch.tensor([0.45]), torch.tensor([0.4]))[2]
