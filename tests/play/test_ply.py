"""The 3DGS .ply: what is written is read again, with the field's layout."""

import numpy as np
import pytest
import torch
from plyfile import PlyData

from i4d_bench.camera import RADIUS, look_at
from i4d_bench.play.ply import FIELDS, read_ply, write_ply
from i4d_bench.render import render
from i4d_bench.types import Camera, Gaussians, UserError


def gaussians(n=50):
    r = lambda *s: torch.rand(1, n, *s)  # noqa: E731
    quats = torch.nn.functional.normalize(r(4) - 0.5, dim=-1)
    return Gaussians(r(3) - 0.5, quats, 0.001 + 0.05 * r(3), 0.01 + 0.98 * r(), r(3))


def test_round_trip_and_layout(tmp_path):
    g = gaussians()
    write_ply(tmp_path / "avatar.ply", g)
    again = read_ply(tmp_path / "avatar.ply")
    for f in ("means", "quats", "scales", "opacities", "colors"):
        torch.testing.assert_close(getattr(again, f), getattr(g, f), rtol=1e-4, atol=1e-5)
    file = PlyData.read(str(tmp_path / "avatar.ply"))
    assert file.byte_order == "<" and [p.name for p in file["vertex"].properties] == list(FIELDS)


def test_viewers_of_3dgs_show_the_head_upright(tmp_path):
    """The file's own numbers, seen by a camera as COLMAP has it (x right, y down, z forward), are the head from the front."""
    g, front = gaussians(), Camera(*(torch.from_numpy(a[None]).float() for a in look_at(0, 0, 48)), 48, 48)
    write_ply(tmp_path / "avatar.ply", g)
    file = PlyData.read(str(tmp_path / "avatar.ply"))["vertex"]
    column = lambda *names: torch.tensor(np.stack([file[n] for n in names], -1))[None]  # noqa: E731
    means, quats = column("x", "y", "z"), column("rot_0", "rot_1", "rot_2", "rot_3")
    shown = Gaussians(means, quats, g.scales, g.opacities, g.colors)
    ahead = torch.eye(4)[None]
    ahead[0, 2, 3] = RADIUS
    pictures = [render(*of).rgb for of in ((g, front), (shown, Camera(ahead, front.Ks, 48, 48)))]
    torch.testing.assert_close(*pictures, rtol=1e-3, atol=1e-4)


def test_full_and_zero_opacity_stay_finite(tmp_path):
    g = gaussians(2)
    g.opacities = torch.tensor([[0.0, 1.0]])
    write_ply(tmp_path / "a.ply", g)
    assert torch.isfinite(torch.tensor(PlyData.read(str(tmp_path / "a.ply"))["vertex"]["opacity"].copy())).all()


def test_not_a_ply(tmp_path):
    (tmp_path / "x.ply").write_text("no")
    with pytest.raises(UserError, match=r"x\.ply"):
        read_ply(tmp_path / "x.ply")
