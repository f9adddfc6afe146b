"""Whose FLAME coefficients a data set is opened with: a tracker's on the file that it used, else mapped from the 52."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from helpers import tracked

from i4d_bench.config.presets import smoke
from i4d_bench.data.opening import open_data, open_head
from i4d_bench.drivers.driver import Driver
from i4d_bench.types import UserError

pytest.importorskip("cv2", reason="cutting heads out needs the `video` extra")

from i4d_bench.data.imports import ingest as module


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A tracked person as a data set with the 52 expression coefficients and as one without, and the FLAME file."""
    folder = tmp_path_factory.mktemp("tracked")
    flame = tracked.flame_file(folder)
    tracked.vhap(folder, "anna", 4)
    model = folder / "model.task"
    model.write_bytes(b"a model")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracked.Finder, "folder", str(folder))
        patch.setattr("i4d_bench.data.video.quiet.Landmarker", tracked.Finder)
        patch.setattr(module, "version", lambda name: "1")
        for out, found in (("measured", model), ("bare", None)):
            patch.setattr(module, "_optional_model", lambda path, found=found: found)
            module.ingest([folder / "anna"], folder / out, format="vhap", flame=flame, progress=False)
    return folder


def experiment(made, data, flame=None, driver="flame"):
    base = smoke()
    world = dataclasses.replace(base.world, kind="clips", path=str(made / data))
    return dataclasses.replace(base, world=world, flame=str(flame) if flame else None, driver=driver)


@pytest.mark.parametrize("data", ["measured", "bare"])
def test_with_its_flame_file_the_trackers_coefficients_are_used(made, data):
    frames, note = open_data(experiment(made, data, made / "flame.pkl"))
    assert note == "flame.pkl's components, tracked by VHAP"
    moments = tracked.moments(4)
    np.testing.assert_allclose(frames.flame_shape[0], moments[0].shape[:12], atol=1e-6)
    np.testing.assert_allclose(frames.flame_expression[:, :10], [m.expression[:10] for m in moments], atol=1e-6)


def test_without_the_file_coefficients_are_mapped_onto_the_embedded_head_and_that_is_said(made):
    frames, note = open_data(experiment(made, "measured"))
    head = open_head(experiment(made, "measured"), torch.device("cpu"))
    assert frames.flame_expression.shape[1] == head.n_expression and not frames.flame_shape.any()
    assert (
        "mapped from MediaPipe's 52 blendshapes" in note
        and "tracked by VHAP are not used" in note
        and "flame.pkl" in note
    )


def test_another_flame_file_is_not_taken_for_the_trackers(made, tmp_path):
    """The same head saved again: whether its components are the same nobody can tell from outside."""
    other = tmp_path / "other.pkl"
    other.write_bytes((made / "flame.pkl").read_bytes() + b" ")
    assert "mapped from" in open_data(experiment(made, "measured", other))[1]
    with pytest.raises(UserError, match=r"no 52 expression coefficients.*flame\.pkl"):
        open_data(experiment(made, "bare", other))


def test_without_the_52_the_file_must_be_named(made):
    with pytest.raises(UserError, match=r"flame\.pkl: name that with --flame"):
        open_data(experiment(made, "bare"))


def test_the_blendshapes_driver_needs_the_52(made):
    frames = open_data(experiment(made, "bare", made / "flame.pkl"))[0]
    with pytest.raises(UserError, match="--driver flame"):
        Driver("blendshapes", frames)
    code = Driver("flame", frames).encode(frames, np.arange(len(frames)))
    assert code.motion.isfinite().all() and torch.equal(code.flame.pose, torch.from_numpy(np.array(frames.flame_pose)))
