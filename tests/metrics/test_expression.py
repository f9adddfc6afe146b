"""Distances have known values, the reader learns faces it has not seen, MediaPipe reads real frames."""

import math

import numpy as np
import pytest
import torch
from helpers.cartoon import BLINK_LEFT, BLINK_RIGHT, OPEN, SMILE, cartoon_frames
from scipy.spatial.transform import Rotation

from i4d_bench.metrics import reader_training
from i4d_bench.metrics.expression import Aed, Apd, Reader, aed, akd, akd_iod, apd, train_reader
from i4d_bench.metrics.reader_training import mirrored, truth
from i4d_bench.types import UserError


def test_aed_is_the_rms_over_coefficients():
    a = torch.zeros(2, 52)
    b = a.clone()
    b[0, :13] = 0.4
    assert aed(a, b).tolist() == pytest.approx([0.2, 0.0])


@pytest.mark.parametrize("degrees", [0.01, 5.0, 90.0, 179.0])
def test_apd_is_the_geodesic_angle_over_root_three(degrees):
    base = Rotation.random(6, rng=0)
    turn = Rotation.from_rotvec(np.radians(degrees) * Rotation.random(6, rng=1).apply([1, 0, 0]))
    a, b = (torch.from_numpy(r.as_matrix()) for r in (base, base * turn))
    assert apd(a, b).tolist() == pytest.approx([degrees / math.sqrt(3)] * 6, rel=1e-4)


def test_apd_refuses_what_is_no_rotation():
    with pytest.raises(ValueError, match="rotation"):
        apd(2 * torch.eye(3)[None], torch.eye(3)[None])
    with pytest.raises(ValueError, match="rotation"):
        apd(torch.eye(3)[None], torch.diag(torch.tensor([1.0, 1, -1]))[None])


def test_akd_is_in_pixels_of_256():
    true = torch.rand(2, 68, 2) * 64
    pred = true + torch.tensor([3.0, 4.0])
    assert akd(pred, true, 64).tolist() == pytest.approx([20.0, 20.0], rel=1e-4)
    true[:, 36], true[:, 45] = torch.tensor([10.0, 20.0]), torch.tensor([30.0, 20.0])
    assert akd_iod(true + torch.tensor([3.0, 4.0]), true).tolist() == pytest.approx([0.25, 0.25], rel=1e-4)


def test_failures_score_the_declared_worst():
    metric = Aed("mp52")
    read = torch.full((2, 52), 0.5)
    read[1] = torch.nan
    metric.update(read, torch.full((2, 52), 0.25))
    assert metric.failures() == 1
    assert metric.successes().item() == pytest.approx(0.25) and metric.compute().item() == pytest.approx((0.25 + 1) / 2)
    pose = Apd()
    pose.update(torch.full((1, 3, 3), torch.nan), torch.eye(3)[None])
    assert pose.failures() == 1


@pytest.fixture(scope="module")
def drawings(tmp_path_factory):
    return cartoon_frames(tmp_path_factory.mktemp("cartoon") / "frames", people=60, each=10)


@pytest.fixture(scope="module")
def reader(drawings):
    return train_reader(drawings, np.arange(len(drawings)), steps=150, seed=3, progress=False)


def test_reader_learns_people_it_has_not_seen(reader, tmp_path):
    frames = cartoon_frames(tmp_path / "new", people=10, each=10, seed=9)
    rgb = torch.from_numpy(frames.rgb[:]).permute(0, 3, 1, 2) / 255
    seen, true = reader.read(rgb), truth(frames, np.arange(100))
    spread = aed(true.coefficients.mean(0).expand_as(true.coefficients), true.coefficients).mean()
    assert aed(seen.coefficients, true.coefficients).mean() < 0.5 * spread
    for name in (OPEN, SMILE, BLINK_LEFT):
        assert np.corrcoef(seen.coefficients[:, name], true.coefficients[:, name])[0, 1] > 0.8
    assert akd(seen.landmarks, true.landmarks, 32).mean() < 4
    assert apd(seen.rotation, true.rotation).mean() < 3


def test_reader_does_not_mind_the_background(reader, drawings):
    index = np.arange(40)
    rgb = torch.from_numpy(drawings.rgb[index]).permute(0, 3, 1, 2) / 255
    alpha = torch.from_numpy(drawings.alpha[index])[:, None] / 255
    true = truth(drawings, index)
    black, grey = (aed(reader.read(x).coefficients, true.coefficients).mean() for x in (rgb, rgb + (1 - alpha) * 0.5))
    assert grey < 1.3 * black


@pytest.mark.parametrize(("enough", "rounds"), [(10.0, 1), (0.0, reader_training.ROUNDS)])
def test_it_learns_until_the_truth_lies_well_below_the_mean_or_time_is_up(drawings, monkeypatch, enough, rounds):
    counted, round_ = [], reader_training._round
    monkeypatch.setattr(reader_training, "ENOUGH", enough)
    monkeypatch.setattr(reader_training, "_round", lambda *a: (counted.append(1), round_(*a)))
    reader = train_reader(drawings, np.arange(len(drawings)), steps=2, progress=False)
    assert len(counted) == rounds and not reader.training
    assert not any(p.requires_grad for p in reader.parameters()) and np.isfinite(reader.floor["aed"])


def test_floor_is_the_error_on_held_out_people(reader, drawings):
    held = np.flatnonzero(np.isin(drawings.identity, np.unique(drawings.identity)[::10]))
    seen = reader.read(torch.from_numpy(drawings.rgb[held]).permute(0, 3, 1, 2) / 255)
    true = truth(drawings, held)
    assert reader.floor["aed"] == pytest.approx(aed(seen.coefficients, true.coefficients).mean().item(), rel=1e-4)
    assert reader.floor["akd"] == pytest.approx(akd(seen.landmarks, true.landmarks, 32).mean().item(), rel=1e-4)


def test_reader_survives_the_disk(reader, tmp_path):
    reader.save(tmp_path / "reader.pt")
    again = Reader.load(tmp_path / "reader.pt")
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(reader.read(x).coefficients, again.read(x).coefficients) and again.floor == reader.floor
    again.save(tmp_path / "again.pt")
    assert (tmp_path / "again.pt").read_bytes() == (tmp_path / "reader.pt").read_bytes(), "whatever its name"
    (tmp_path / "reader.pt").write_bytes((tmp_path / "reader.pt").read_bytes()[:1000])
    with pytest.raises(UserError, match="delete it"):
        Reader.load(tmp_path / "reader.pt")


def test_a_mirrored_face_is_again_a_face(drawings):
    true = truth(drawings, np.arange(200))
    twice = mirrored(mirrored(true, 32), 32)
    for a, b in zip(vars(true).values(), vars(twice).values(), strict=True):
        torch.testing.assert_close(a, b)
    once = mirrored(true, 32)
    assert (once.landmarks[:, 36, 0] < once.landmarks[:, 45, 0]).all()  # the subject's right stays on the left
    torch.testing.assert_close(once.coefficients[:, BLINK_LEFT], true.coefficients[:, BLINK_RIGHT])
    assert torch.linalg.det(once.rotation).tolist() == pytest.approx([1.0] * 200)
    torch.testing.assert_close(once.rotation[:, 0, 2], -true.rotation[:, 0, 2])  # yaw changes sign


def test_training_is_deterministic_and_seeds_differ(drawings):
    index = np.arange(len(drawings))
    train = lambda seed: train_reader(drawings, index, steps=3, seed=seed, batch=8, progress=False)  # noqa: E731
    x = torch.rand(1, 3, 32, 32)
    torch.manual_seed(0)
    a = train(1).read(x).coefficients
    torch.manual_seed(1)
    assert torch.equal(a, train(1).read(x).coefficients) and not torch.equal(a, train(2).read(x).coefficients)


def test_reader_refuses_wrong_images_and_data(reader, drawings):
    with pytest.raises(ValueError, match=r"0\.\.1"):
        reader.read(255 * torch.rand(1, 3, 32, 32))
    with pytest.raises(ValueError, match="32²"):
        reader.read(torch.rand(1, 3, 64, 64))
    with pytest.raises(ValueError, match="16, 32"):
        Reader(48)
    with pytest.raises(UserError, match="two people"):
        train_reader(drawings, np.arange(10), steps=1)


@pytest.mark.assets
def test_mediapipe_reads_real_frames_small_ones_too():
    pytest.importorskip("mediapipe")
    from helpers.real_faces import SIDE, clip_frames

    from i4d_bench.metrics.expression import VideoReader

    images = torch.from_numpy(np.stack(clip_frames("d3", 4))) / 255
    images = torch.cat([images, torch.zeros(1, SIDE, SIDE, 3)])
    small = torch.nn.functional.interpolate(images.movedim(-1, 1), (64, 64), mode="area").movedim(1, -1)
    with VideoReader() as video:
        large, little = video.read(images), video.read(small)
        viewmats = np.tile(np.eye(4, dtype=np.float32), (5, 1, 1))
        viewmats[:, :3, :3] = np.where(large.rotation.isnan(), np.eye(3), large.rotation)
        scores = video.score(small, large.coefficients.numpy(), large.landmarks.numpy() / 4, viewmats)
    assert large.found.tolist() == little.found.tolist() == [True] * 4 + [False]
    np.testing.assert_array_equal(scores["landmarks"], little.landmarks.numpy())
    assert np.isnan(scores["aed_mp52"][4]) and (scores["aed_mp52"][:4] < 0.12).all()
    assert (scores["akd"][:4] < 4).all() and (scores["apd"][:4] < 4).all()
