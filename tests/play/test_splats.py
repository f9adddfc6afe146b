"""What a page's viewer mixes: at a slider's end it is the design's own, to the rounding of 8 bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from i4d_bench.play import splats
from i4d_bench.types import Gaussians, UserError


def cloud(seed: int, quats: torch.Tensor | None = None) -> Gaussians:
    r = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.rand(1, 40, *shape, generator=r)  # noqa: E731
    quats = draw(4) - 0.5 if quats is None else quats
    return Gaussians(draw(3) - 0.5, quats, 0.01 + 0.05 * draw(3), draw(), draw(3))


def test_rest_and_change_are_the_expression():
    a = cloud(0)
    b = cloud(1, -a.quats + 0.1 * torch.rand(a.quats.shape))  # -q turns as q does
    start, end = splats.parts(a), splats.parts(b)
    change, step = splats.change(a, b)
    columns = np.split(change.astype(float), np.cumsum([n for n, _ in splats.PARTS.values()])[:-1])
    mixed = [x + s * c for x, s, c in zip(start, step, columns, strict=True)]
    for k, (got, wanted) in enumerate(zip(mixed, end, strict=True)):
        wanted = -wanted if k == 3 else wanted
        assert np.abs(got - wanted).max() <= 0.51 * step[k]
    assert np.abs(columns[3] * step[3]).max() < 1, "the near one of the two quaternions"


def test_what_does_not_move_has_no_change():
    change, _ = splats.change(cloud(0), cloud(0))
    assert not change.any()


def test_a_file_holds_what_was_saved(tmp_path):
    splats.save(tmp_path / "a.splats", splats.rest(cloud(0)))
    back = splats.load(tmp_path / "a.splats")
    for (name, (numbers, _)), unit, part in zip(
        splats.PARTS.items(), back["unit"], splats.parts(cloud(0)), strict=True
    ):
        assert back[name].shape == (numbers, 40) and np.abs(back[name] * unit - part).max() <= 0.51 * unit


def test_a_file_is_read_as_the_avatar_that_it_was(tmp_path):
    path = tmp_path / "a.splats"
    splats.save(path, splats.rest(cloud(0)))
    unit, back, quats = splats.load(path)["unit"], splats.read(path), cloud(0).quats
    for name, finest in (("means", unit[0]), ("scales", unit[1]), ("colors", unit[2]), ("opacities", unit[2])):
        assert (getattr(back, name) - getattr(cloud(0), name)).abs().max() <= 0.51 * finest
    assert (back.quats - torch.nn.functional.normalize(quats, dim=-1)).abs().max() <= 0.51 * unit[3]


@pytest.mark.parametrize("content", [b"", b"ply", None])
def test_another_file_is_refused(tmp_path, content):
    path = tmp_path / "a.splats"
    if content is None:
        with path.open("wb") as file:
            np.savez(file, means=np.zeros(3))
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.splats holds no avatar"):
        splats.read(path)
    with pytest.raises(UserError, match=r"a\.splats is damaged"):
        splats.load(path)


def test_a_file_that_was_cut_is_damaged(tmp_path):
    path = tmp_path / "a.splats"
    splats.save(path, splats.rest(cloud(0)))
    whole = path.read_bytes()
    for end in (10, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:end])
        with pytest.raises(UserError, match=r"a\.splats is damaged .* move it away"):
            splats.load(path)
