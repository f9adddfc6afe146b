"""Tracked data of other tools becomes a data set; the user's FLAME file lies in it where it was drawn."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import tracked
from PIL import Image

from i4d_bench.camera import project
from i4d_bench.data import frames as store
from i4d_bench.data.splits import SPLITS, self_driven, split_of, triples
from i4d_bench.heads import flame
from i4d_bench.types import UserError

pytest.importorskip("cv2", reason="cutting heads out needs the `video` extra")
pytest.importorskip("lmdb", reason="GAGAvatar's images need the `video` extra")

from i4d_bench.data.imports import ingest as module
from i4d_bench.data.imports.ingest import ingest
from i4d_bench.data.imports.person import BEHIND, NO_MASK, OFF, OTHER_MASK, OTHER_SHAPE, UNREADABLE
from i4d_bench.data.imports.vhap import NO_CAMERA, NO_FLAME
from i4d_bench.data.video.tracking import BORDER, NO_FACE, SMALL


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A FLAME file, exports of three people (the second by two cameras) and tracked videos of five."""
    folder = tmp_path_factory.mktemp("tracked")
    tracked.flame_file(folder)
    drawn = {
        "anna": tracked.vhap(folder, "anna"),
        "bert": tracked.vhap(folder, "bert", 3, (-20.0, 25.0), person=1),
        "cleo": tracked.vhap(folder, "cleo", 3, person=2),
    }
    drawn["gaga"] = tracked.gagavatar(folder, "gaga", {f"clip_{p}": 3 for p in "abc"})
    return folder, drawn


@pytest.fixture
def without_mediapipe(monkeypatch):
    def nowhere(path=None):
        raise UserError("MediaPipe's model is nowhere")

    monkeypatch.setattr(module, "find_model", nowhere)


@pytest.fixture
def with_mediapipe(monkeypatch, made, tmp_path):
    """Puts the stand-in in place; the model is any file."""
    model = tmp_path / "model.task"
    model.write_bytes(b"a model")
    monkeypatch.setattr(tracked.Finder, "folder", str(made[0]))
    monkeypatch.setattr("i4d_bench.data.video.quiet.Landmarker", tracked.Finder)
    monkeypatch.setattr(module, "find_model", lambda path=None: path or model)
    monkeypatch.setattr(module, "version", lambda name: "1")


def imported(made, names, out, format="vhap", **kwargs):
    folder = made[0]
    kwargs = {"flame": folder / "flame.pkl", "progress": False} | kwargs
    report = ingest([folder / n for n in names], out, format=format, **kwargs)
    return store.open_frames(report.path), report


def posed(made, frames) -> np.ndarray:
    """The user's head by the data set's own coefficients, canonical."""
    code = frames.flame(np.arange(len(frames)))
    with torch.no_grad():
        return flame.load(made[0] / "flame.pkl")(code.shape, code.expression, code.pose).double().numpy()


def check_round_trip(made, frames, drawn: list[tracked.Drawn], K: np.ndarray, silhouette: float) -> None:
    """Vertices that hang on neck, jaw or eyes lie where they were drawn, and the silhouette is the mask's above the collar."""
    head = tracked.arrays(str(made[0]))["weights"][:, 0] < 1e-3
    for k, (vertices, picture) in enumerate(zip(posed(made, frames), drawn, strict=True)):
        got = project(vertices, frames.viewmats[k].astype(float), frames.Ks[k].astype(float))
        scale = frames.Ks[k][[0, 1], [0, 1]] / K[[0, 1], [0, 1]]
        crop = scale * picture.pixels + frames.Ks[k][:2, 2] - scale * K[:2, 2]
        assert np.abs(got - crop)[head].max() < 0.05
        size = frames.resolution
        again = tracked.draw(
            made[0], vertices, frames.viewmats[k].astype(float), frames.Ks[k].astype(float), (size, size)
        )
        above = np.arange(size)[:, None] < got[head, 1].max() - 0.15 * size
        a, b = ((m > 127) & above for m in (again.mask, frames.alpha[k]))
        assert (a & b).sum() / (a | b).sum() > silhouette
        seen = again.mask > 250
        seen &= above & (frames.alpha[k] > 250)
        assert np.abs(again.rgb[seen].astype(int) - frames.rgb[k][seen]).mean() < 12


def test_a_vhap_export_lands_on_its_pictures(made, tmp_path, without_mediapipe):
    frames, _ = imported(made, ["anna"], tmp_path / "out")
    assert len(frames) == 6 and frames.resolution == 128
    check_round_trip(made, frames, list(made[1]["anna"].values()), tracked.K_VHAP, 0.97)


def test_cameras_of_one_moment_share_its_number(made, tmp_path, without_mediapipe):
    frames, _ = imported(made, ["bert"], tmp_path / "out")
    assert frames.expression.tolist() == [0, 0, 1, 1, 2, 2]
    check_round_trip(made, frames, list(made[1]["bert"].values()), tracked.K_VHAP, 0.96)


def test_gagavatars_data_land_on_their_pictures(made, tmp_path, with_mediapipe):
    frames, report = imported(made, ["gaga"], tmp_path / "out", "gagavatar")
    assert [v["file"] for v in report.meta["videos"]] == ["clip_a", "clip_b", "clip_c"]
    assert frames.identity.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2] and frames.expression.tolist() == [0, 1, 2] * 3
    check_round_trip(made, frames, list(made[1]["gaga"].values()), tracked.K_GAGA, 0.9)


def test_the_turn_of_the_head_is_the_cameras_and_the_rest_stays(made, tmp_path, without_mediapipe):
    frames, _ = imported(made, ["anna"], tmp_path / "out")
    moments = tracked.moments(6)
    assert not frames.flame_pose[:, :6].any()
    np.testing.assert_allclose(frames.flame_pose[:, 6:], [m.pose[6:] for m in moments], atol=1e-6)
    width = frames.flame_expression.shape[1]
    np.testing.assert_allclose(frames.flame_expression, [m.expression[:width] for m in moments], atol=1e-6)
    origin = frames.viewmats[:, :3, 3] / 2.7
    assert np.abs(np.linalg.norm(origin, axis=1) - 1).max() < 0.1, (
        "a metre away is about the canonical camera's distance"
    )


def test_without_mediapipe_landmarks_are_the_meshs_and_the_52_are_empty(made, tmp_path, without_mediapipe):
    frames, report = imported(made, ["anna"], tmp_path / "out")
    assert not frames.measured and np.isnan(frames.coefficients).all()
    assert any("--driver flame" in line for line in report.lines())
    marks = tracked.head_world("procedural").landmarks
    scale = frames.Ks[:, 0, 0] / tracked.K_VHAP[0, 0]
    for k, picture in enumerate(made[1]["anna"].values()):
        true = scale[k] * (picture.pixels[marks] - tracked.K_VHAP[:2, 2]) + frames.Ks[k][:2, 2]
        assert np.median(np.linalg.norm(frames.landmarks[k] - true, axis=1)) < 1


def test_with_mediapipe_landmarks_and_the_52_are_its(made, tmp_path, with_mediapipe):
    frames, report = imported(made, ["anna"], tmp_path / "out")
    assert frames.measured and (frames.coefficients == 0.25).all() and np.isfinite(frames.landmarks).all()
    assert report.meta["driver"] == "blendshapes" and report.meta["videos"][0]["landmark_px"] < 5


def test_several_people_are_kept_apart(made, tmp_path, without_mediapipe):
    frames, _ = imported(made, ["anna", "bert", "cleo"], tmp_path / "out")
    split = split_of(frames)
    assert [set(split[frames.identity == p]) for p in range(3)] == [{0, 1}, {0, 1}, {2}]
    for name in ("unseen_recon", "unseen_self"):
        rows = triples(frames, "test", name)
        assert set(frames.identity[[*rows.source, *rows.driving]]) == {2}
    cross = triples(frames, "test", "unseen_cross")
    assert set(frames.identity[cross.source]) == {2} and set(frames.identity[cross.driving]) == {0, 1}


def test_one_person_alone_is_split_in_time(made, tmp_path, without_mediapipe):
    frames, _ = imported(made, ["anna"], tmp_path / "out")
    assert split_of(frames).tolist() == [0, 0, 0, 1, 2, 2]
    rows = triples(frames, "test", "self")
    assert set(rows.driving) == {4, 5} and set(rows.source) <= {0, 1, 2}


def test_gagavatars_own_split_is_kept(made, tmp_path, with_mediapipe):
    folder = tmp_path / "gaga"
    shutil.copytree(made[0] / "gaga", folder)
    names = {s: [f"clip_{p}_{k}" for k in range(3)] for s, p in zip(SPLITS, "bca", strict=True)}
    (folder / "dataset.json").write_text(json.dumps(names))
    report = ingest([folder], tmp_path / "out", format="gagavatar", flame=made[0] / "flame.pkl", progress=False)
    frames = store.open_frames(report.path)
    assert split_of(frames).tolist() == [2] * 3 + [0] * 3 + [1] * 3
    assert set(frames.identity[self_driven(frames, "val").source]) == {2}


def edit(root: Path, change) -> None:
    """Changes every picture's row in the index: change(number, row) → row."""
    index = json.loads((root / "transforms.json").read_text())
    index["frames"] = [change(k, row) for k, row in enumerate(index["frames"])]
    (root / "transforms.json").write_text(json.dumps(index))


def moved(row, by):
    camera = np.array(row["transform_matrix"])
    camera[:3, 3] += by
    return row | {"transform_matrix": camera.tolist()}


def resave(path: Path, **arrays) -> None:
    with np.load(path) as file:
        np.savez(path, **{**{k: file[k] for k in file.files}, **arrays})


BROKEN = {
    UNREADABLE: lambda root: (root / "images/00001_00.png").unlink(),
    f"{UNREADABLE} ": lambda root: (root / "images/00001_00.png").write_bytes(b"\x89PNG cut off"),
    NO_MASK: lambda root: (root / "fg_masks/00001_00.png").unlink(),
    f"{NO_MASK} ": lambda root: edit(root, lambda k, r: {n: v for n, v in r.items() if k != 1 or n != "fg_mask_path"}),
    OTHER_MASK: lambda root: Image.new("L", (10, 10)).save(root / "fg_masks/00001_00.png"),
    OTHER_SHAPE: lambda root: Image.new("RGB", (300, 100)).save(root / "images/00001_00.png"),
    NO_FLAME: lambda root: (root / "flame_param/00001.npz").write_bytes(b"PK\x03\x04 cut off"),
    f"{NO_FLAME} ": lambda root: resave(root / "flame_param/00001.npz", expr=np.full((1, 100), np.nan)),
    f"{NO_FLAME}  ": lambda root: resave(root / "flame_param/00001.npz", eyes_pose=np.zeros((1, 3))),
    NO_CAMERA: lambda root: edit(root, lambda k, r: r | ({"transform_matrix": [[1, 2], [3]]} if k == 1 else {})),
    f"{NO_CAMERA} ": lambda root: edit(
        root, lambda k, r: r | ({"transform_matrix": (2 * np.eye(4)).tolist()} if k == 1 else {})
    ),
    BEHIND: lambda root: edit(root, lambda k, r: moved(r, [0, 0, -3]) if k == 1 else r),
    SMALL: lambda root: edit(root, lambda k, r: moved(r, [0, 0, 5]) if k == 1 else r),
    BORDER: lambda root: edit(root, lambda k, r: moved(r, [0.15, 0, 0]) if k == 1 else r),
    NO_FACE: lambda root: Image.new("RGB", (300, 340)).save(root / "images/00001_00.png"),
    OFF: lambda root: edit(root, lambda k, r: moved(r, [0.045, 0.01, 0]) if k == 1 else r),
}


@pytest.mark.parametrize("reason", BROKEN)
def test_pictures_that_cannot_be_used_are_listed_with_the_reason(made, tmp_path, reason, with_mediapipe):
    root = tmp_path / "cleo"
    shutil.copytree(made[0] / "cleo", root)
    BROKEN[reason](root)
    report = ingest([root], tmp_path / "out", format="vhap", flame=made[0] / "flame.pkl", progress=False)
    assert report.meta["frames"] == 2
    assert report.meta["skipped"] == [{"video": "cleo", "frame": "images/00001_00.png", "reason": reason.strip()}]
    assert f"left out: 1 × {reason.strip()}" in report.lines()


NO_EXPORTS = {
    "no index": (lambda root: (root / "transforms.json").unlink(), "no VHAP export"),
    "damaged index": (lambda root: (root / "transforms.json").write_text('{"frames": ['), "not a readable index"),
    "another index": (lambda root: (root / "transforms.json").write_text("[1, 2]"), "not a readable index"),
    "no pictures": (lambda root: (root / "transforms.json").write_text('{"frames": []}'), "lists no pictures"),
    "meshes": (lambda root: edit(root, lambda k, r: {n: v for n, v in r.items() if "flame" not in n}), "meshes were exported"),
    "no images": (lambda root: shutil.rmtree(root / "images"), r"nobody who can be used.*3 × image missing"),
    "other coefficients": (lambda root: [resave(p, expr=np.ones((1, 100))) for p in root.glob("*/*.npz")], "expression coeff"),
}  # fmt: skip


@pytest.mark.parametrize("kind", NO_EXPORTS)
def test_a_broken_folder_is_one_sentence_and_leaves_nothing(made, tmp_path, kind, without_mediapipe):
    root = tmp_path / "cleo"
    shutil.copytree(made[0] / "cleo", root)
    change, why = NO_EXPORTS[kind]
    change(root)
    with pytest.raises(UserError, match=why):
        ingest([root], tmp_path / "out", format="vhap", flame=made[0] / "flame.pkl", progress=False)
    assert not (tmp_path / "out").exists()


class Foreign:
    def __reduce__(self):
        import os

        return os.system, ("touch should-not-exist",)


NO_DATA = {
    "no pickle": (lambda root: (root / "optim.pkl").unlink(), "not GAGAvatar's"),
    "no images": (lambda root: shutil.rmtree(root / "img_lmdb"), "not GAGAvatar's"),
    "damaged images": (lambda root: (root / "img_lmdb/data.mdb").write_bytes(b"no database"), "not a readable LMDB"),
    "foreign pickle": (lambda root: (root / "optim.pkl").write_bytes(pickle.dumps({"a_0": Foreign()})), "system"),
    "damaged pickle": (lambda root: (root / "optim.pkl").write_bytes(b"\x80\x04]"), "not a readable pickle"),
    "another pickle": (lambda root: (root / "optim.pkl").write_bytes(pickle.dumps([1, 2])), "not a dictionary"),
    "damaged list": (lambda root: (root / "dataset.json").write_text("{"), "not a readable list"),
    "empty list": (lambda root: (root / "dataset.json").write_text("{}"), "lists no pictures"),
    "strangers": (lambda root: (root / "dataset.json").write_text('{"train": ["x_0"]}'), "tracked parameters missing"),
}


@pytest.mark.parametrize("kind", NO_DATA)
def test_broken_gagavatar_data_are_one_sentence(made, tmp_path, kind, with_mediapipe, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "gaga"
    shutil.copytree(made[0] / "gaga", root)
    change, why = NO_DATA[kind]
    change(root)
    with pytest.raises(UserError, match=why):
        ingest([root], tmp_path / "out", format="gagavatar", flame=made[0] / "flame.pkl", progress=False)
    assert not (tmp_path / "out").exists() and not (tmp_path / "should-not-exist").exists()


def test_a_video_without_enough_pictures_is_left_out_and_named(made, tmp_path, with_mediapipe):
    import lmdb

    root = tmp_path / "gaga"
    shutil.copytree(made[0] / "gaga", root)
    with lmdb.open(str(root / "img_lmdb"), map_size=1 << 26) as database, database.begin(write=True) as transaction:
        for k in range(2):
            transaction.delete(f"clip_b_{k}".encode())
    report = ingest([root], tmp_path / "out", format="gagavatar", flame=made[0] / "flame.pkl", progress=False)
    assert [v["file"] for v in report.meta["videos"]] == ["clip_a", "clip_c"]
    assert f"left out: clip_b, 1 picture kept, 2 × {UNREADABLE}" in report.lines()


def test_pictures_without_masks_want_mediapipe(made, tmp_path, without_mediapipe):
    with pytest.raises(UserError, match="no masks"):
        imported(made, ["gaga"], tmp_path / "out", "gagavatar")


def test_mistakes_in_the_call(made, tmp_path, without_mediapipe):
    for kwargs, why in (
        ({"flame": None}, "--flame"),
        ({"flame": tmp_path / "none.pkl"}, "none.pkl"),
        ({"size": 40}, "between 128 and 1024"),
        ({"stride": 0}, "stride"),
        ({"model": tmp_path / "none.task"}, "model is nowhere"),
    ):
        with pytest.raises(UserError, match=why):
            imported(made, ["anna"], tmp_path / "out", **kwargs)
    for names, why in (
        (["nobody"], "no folder"),
        (["anna", "../" + made[0].name + "/anna"], "twice"),
        ([], "at least one"),
    ):
        with pytest.raises(UserError, match=why):
            imported(made, names, tmp_path / "out")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("")
    with pytest.raises(UserError, match="not a data set"):
        imported(made, ["anna"], tmp_path / "notes")


def test_fewer_moments_and_fewer_pictures(made, tmp_path, without_mediapipe):
    assert imported(made, ["bert"], tmp_path / "a", stride=2)[0].expression.tolist() == [0, 0, 2, 2]
    assert imported(made, ["bert"], tmp_path / "b", max_frames=3)[0].expression.tolist() == [0, 0, 1]


def test_people_who_are_finished_are_not_processed_again(made, tmp_path, without_mediapipe, monkeypatch):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no VHAP export"):
        imported(made, ["anna", tmp_path / "empty"], tmp_path / "out")
    looked = []
    look = module.Recorder.__call__
    monkeypatch.setattr(
        module.Recorder, "__call__", lambda self, take, *a: looked.append(take.name) or look(self, take, *a)
    )
    imported(made, ["anna", "cleo"], tmp_path / "out")
    imported(made, ["anna", "cleo"], tmp_path / "out")
    assert looked == ["cleo"] and sorted(p.name for p in tmp_path.iterdir() if "out" in p.name) == ["out"]


def test_the_offsets_of_vertices_are_named_as_not_used(made, tmp_path, without_mediapipe):
    root = tmp_path / "cleo"
    shutil.copytree(made[0] / "cleo", root)
    for path in root.glob("flame_param/*.npz"):
        resave(path, static_offset=np.full((1, 20, 3), 1e-3))
    report = ingest([root], tmp_path / "out", format="vhap", flame=made[0] / "flame.pkl", progress=False)
    assert any("offsets" in line for line in report.lines())


def test_an_export_that_was_split_is_read_whole(made, tmp_path, without_mediapipe):
    root = tmp_path / "anna"
    shutil.copytree(made[0] / "anna", root)
    index = json.loads((root / "transforms.json").read_text())
    (root / "transforms.json").unlink()
    for name, part in (("train", slice(0, 4)), ("test", slice(4, 6))):
        shared = {k: v for k, v in index["frames"][0].items() if k in ("fl_x", "fl_y", "cx", "cy", "w", "h")}
        rows = [{k: v for k, v in f.items() if k not in shared} for f in index["frames"][part]]
        (root / f"transforms_{name}.json").write_text(json.dumps({"frames": rows, **shared}))
    report = ingest([root], tmp_path / "out", format="vhap", flame=made[0] / "flame.pkl", progress=False)
    check_round_trip(made, store.open_frames(report.path), list(made[1]["anna"].values()), tracked.K_VHAP, 0.97)


def test_unpadded_numbers_are_numbers(tmp_path, without_mediapipe):
    """An export whose index does not count its moments: they follow the numbers in the names."""
    tracked.flame_file(tmp_path)
    tracked.vhap(tmp_path, "anna", 12)
    folder = tmp_path / "anna"
    index = json.loads((folder / "transforms.json").read_text())
    for k, frame in enumerate(index["frames"]):
        (folder / frame["flame_param_path"]).rename(folder / f"flame_param/{k}.npz")
        frame["flame_param_path"] = f"flame_param/{k}.npz"
        frame.pop("timestep_index", None)
    (folder / "transforms.json").write_text(json.dumps(index))
    report = ingest([folder], tmp_path / "out", format="vhap", flame=tmp_path / "flame.pkl", progress=False)
    assert store.open_frames(report.path).expression.tolist() == list(range(12))
    with np.load(folder / "flame_param/10.npz") as file:
        jaw = file["jaw_pose"].reshape(-1)
    np.testing.assert_allclose(store.open_frames(report.path).flame_pose[10, 6:9], jaw, atol=1e-5)
