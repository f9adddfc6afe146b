"""Real video and photos become data sets; whatever is wrong with a file is one clear sentence.

The always-run tests draw a talking head and replace MediaPipe by a stand-in that finds the drawing.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from helpers.disk import full_disk
from PIL import Image
from scipy import ndimage
from scipy.spatial.transform import Rotation

from i4d_bench.data import frames as store
from i4d_bench.data.video import files, headfit
from i4d_bench.data.video.landmarker import IBUG68, Face, Landmarker, find_model, to68
from i4d_bench.heads.base import REGIONS
from i4d_bench.types import UserError

pytest.importorskip("cv2", reason="cutting heads out needs the `video` extra")

from i4d_bench.data.video import clips, tracking

SKIN, HAIR, SHIRT, WALL = (220, 150, 110), (60, 35, 20), (30, 50, 140), (120, 160, 130)
WIDTH, HEIGHT = 320, 240


def face_shape() -> np.ndarray:
    """478 canonical points on the front of a head, the anchors where they belong."""
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-0.13, 0.13, 478), rng.uniform(-0.1, 0.28, 478)
    shape = np.stack([x, y, 0.25 * np.sqrt(1 - (x / 0.2) ** 2 - ((y - 0.09) / 0.4) ** 2)], 1)
    eyes = [(36, 6, (-0.082, 0.135), (0.03, 0.01)), (42, 6, (0.082, 0.135), (0.03, 0.01))]
    for first, count, place, radii in [*eyes, (48, 20, (0, -0.045), (0.06, 0.02))]:
        angle = np.arange(count) * np.pi / 3
        shape[IBUG68[first : first + count], :2] = np.c_[np.cos(angle), np.sin(angle)] * radii + place
        shape[IBUG68[first : first + count], 2] = 0.2
    for number, place in headfit.ANCHORS.items():
        shape[IBUG68[number]] = place
    return shape


SHAPE = face_shape()


def draw(heads, size=(HEIGHT, WIDTH)) -> np.ndarray:
    """Heads (centre x, centre y, pixels per canonical unit) in front of a wall."""
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    rgb = np.empty((*size, 3), np.uint8)
    rgb[:] = WALL
    rgb[:, : size[1] // 4] = (90, 120, 150)  # something to move against

    def disc(centre, radii, colour):
        inside = ((x - centre[0]) / radii[0]) ** 2 + ((y - centre[1]) / radii[1]) ** 2 < 1
        rgb[inside] = colour

    for cx, cy, s in heads:
        disc((cx, cy + 0.75 * s), (0.45 * s, 0.4 * s), SHIRT)
        disc((cx, cy - 0.17 * s), (0.23 * s, 0.24 * s), HAIR)
        disc((cx, cy + 0.22 * s), (0.1 * s, 0.2 * s), SKIN)
        disc((cx, cy - 0.07 * s), (0.19 * s, 0.24 * s), SKIN)
    return rgb


class Finder(Landmarker):
    """Finds drawn heads by the colour of their skin."""

    def __init__(self, model=None, most=1):
        self.model = find_model(model)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def faces(self, rgb):
        skin = (np.abs(rgb.astype(int) - SKIN).max(-1) < 40).astype(int)
        labels, count = ndimage.label(ndimage.binary_opening(skin))
        found = []
        for k in range(1, count + 1):
            rows, columns = np.nonzero(labels == k)
            s = np.ptp(columns) / 0.38
            cx, cy = columns.mean(), rows.min() + 0.31 * s
            points = SHAPE * [s, -s, -s] + [cx, cy, 0]
            found.append(Face(points.astype(np.float32), np.full(52, 0.25, np.float32), np.eye(4)))
        return found


@pytest.fixture
def finder(monkeypatch, tmp_path):
    """Puts the stand-in in place; the model is any file."""
    model = tmp_path / "model.task"
    model.write_bytes(b"a model")
    monkeypatch.setattr("i4d_bench.data.video.quiet.Landmarker", Finder)
    monkeypatch.setattr(clips, "find_model", lambda path=None: find_model(path or model))
    monkeypatch.setattr(clips, "version", lambda name: "1")
    return model


def moving(n=14):
    return [[(160 + 10 * np.sin(k / 4), 110 + 4 * np.cos(k / 3), 200)] for k in range(n)]


def write(path, plan, **kwargs) -> Path:
    return files.write_video(path, (draw(heads, **kwargs) for heads in plan), 25)


# --- files.py


def test_written_video_reads_back_with_its_rate_and_even_sides(tmp_path):
    plain = [np.full((45, 63, 3), 40 + 10 * k, np.uint8) for k in range(12)]
    path = files.write_video(tmp_path / "sub" / "a.mp4", iter(plain), 29.97)
    back = list(files.read_frames(path))
    assert [p.number for p in back] == list(range(12)) and files.frame_count(path) == 12
    assert back[0].rgb.shape == (46, 64, 3) and files.fps(path) == pytest.approx(29.97, abs=1e-3)
    assert all(abs(p.rgb.mean() - 40 - 10 * p.number) < 3 for p in back)
    assert os.listdir(path.parent) == ["a.mp4"]


def test_failed_writing_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="differ in size"):
        files.write_video(tmp_path / "a.mp4", [np.zeros((32, 32, 3), np.uint8), np.zeros((16, 16, 3), np.uint8)], 25)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        files.write_video(tmp_path / "file" / "a.mp4", [np.zeros((32, 32, 3), np.uint8)], 25)
    assert os.listdir(tmp_path) == ["file"]


def broken(tmp_path, kind: str) -> Path:
    path = tmp_path / f"{kind}.mp4"
    if kind == "missing":
        return path
    if kind == "folder":
        path.mkdir()
        return path
    whole = write(tmp_path / "whole.mp4", moving()).read_bytes()
    body = whole.find(b"mdat") + 4
    path.write_bytes({
        "zero": b"",
        "text": b"not a video " * 50,
        "headless": whole[:300],
        "blank": whole[:body] + bytes(len(whole) - body),
    }[kind])  # fmt: skip
    return path


BROKEN = {"missing": "there is no video", "folder": "holds no images", "zero": "is empty", "text": "not a readable video",
          "headless": "holds no pictures", "blank": "no frame of the video"}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_no_video_is_said_in_one_sentence(kind, tmp_path, finder):
    path = broken(tmp_path, kind)
    with pytest.raises(UserError, match=BROKEN[kind]) as e:
        list(files.read_frames(path, []))
    assert "\n" not in str(e.value)
    with pytest.raises(UserError, match=BROKEN[kind]):
        clips.ingest([path], tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*"))


def test_truncated_video_gives_its_frames_and_lists_the_rest(tmp_path):
    whole = write(tmp_path / "whole.mp4", [[(160 + k, 110, 200)] for k in range(60)]).read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole[: len(whole) * 7 // 10])
    lost = []
    kept = [p.number for p in files.read_frames(cut, lost)]
    assert kept and lost and sorted(kept + lost) == list(range(60))
    with pytest.raises(UserError, match=r"damaged|ends early"):
        list(files.read_frames(cut))


def test_photos_that_cannot_be_read(tmp_path):
    (tmp_path / "zero.png").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("hello")
    Image.fromarray(draw(moving()[0])).save(tmp_path / "good.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:400])
    for name, words in {"zero.png": "empty", "text.jpg": "cannot be read", "cut.png": "cannot be read",
                        "none.png": "there is no image"}.items():  # fmt: skip
        with pytest.raises(UserError, match=words):
            files.read_image(tmp_path / name)
    assert files.read_image(tmp_path / "good.png").shape == (HEIGHT, WIDTH, 3)


def test_photo_is_turned_upright(tmp_path):
    image = Image.fromarray(draw(moving()[0]))
    exif = image.getexif()
    exif[0x0112] = 6  # stored lying on its side
    image.save(tmp_path / "a.jpg", exif=exif)
    assert files.read_image(tmp_path / "a.jpg").shape == (WIDTH, HEIGHT, 3)


# --- headfit.py


def test_cameras_of_a_rigid_head_are_recovered():
    rng = np.random.default_rng(1)
    n, size = 60, 256
    rotation = Rotation.from_euler("yxz", rng.uniform(-20, 20, (n, 3)) * [1, 0.6, 0.4], degrees=True).as_matrix()
    true = np.tile(np.eye(4), (n, 1, 1))
    true[:, :3, :3] = headfit.FLIP @ rotation
    true[:, :3, 3] = rng.normal([0, 0, headfit.RADIUS], 0.02, (n, 3))
    K = headfit.intrinsics(size)
    depth = (SHAPE @ true[:, :3, :3].swapaxes(1, 2) + true[:, None, :3, 3])[..., 2]
    pixels = np.concatenate([headfit.project(SHAPE, true, K), ((depth - headfit.RADIUS) * size)[..., None]], -1)
    noisy = pixels + rng.normal(0, 0.3, pixels.shape)
    fit = headfit.fit_head(noisy, size)
    assert np.median(fit.error) < 0.6
    turned = Rotation.from_matrix(fit.viewmats[:, :3, :3] @ true[:, :3, :3].swapaxes(1, 2)).magnitude()
    assert np.degrees(turned).max() < 3
    np.testing.assert_allclose(fit.viewmats[:, :3, 3], true[:, :3, 3], atol=0.12)
    marks = to68(fit.shape)
    np.testing.assert_allclose(marks[36:48].reshape(2, 6, 3)[:, [0, 3]].mean(1)[:, 0], [-0.082, 0.082], atol=0.006)


def test_crops_follow_smoothly_but_jump_with_a_cut():
    shape = SHAPE * [200, -200, -200]
    rng = np.random.default_rng(2)
    centres = np.r_[np.linspace(100, 140, 30), np.full(20, 400)][:, None] * [1, 0, 0] + rng.normal(0, 1, (50, 1))
    boxes = headfit.crops(shape + centres[:, None])
    times = np.arange(50) / 25
    scene = headfit.scenes(boxes, times)
    assert scene.tolist() == [0] * 30 + [1] * 20
    calm = headfit.smooth(boxes, times, scene, 0.3)
    assert np.abs(np.diff(calm[:30, 0], 2)).mean() < 0.15 * np.abs(np.diff(boxes[:30, 0], 2)).mean()
    np.testing.assert_allclose(calm[:30, 0], np.linspace(100, 140, 30), atol=1.5)
    np.testing.assert_allclose(calm[30:, 0], 400, atol=1.5)
    np.testing.assert_allclose(boxes[:, 2], 2 * headfit.HALF * 200, rtol=0.15)


# --- clips.py


def test_ingest_writes_a_data_set_of_cut_out_heads(tmp_path, finder):
    path = write(tmp_path / "anna.mp4", moving(40))
    report = clips.ingest([path], tmp_path / "out", size=128, stride=3, max_frames=8, progress=False)
    frames = store.open_frames(tmp_path / "out")
    assert len(frames) == 8 and frames.expression.tolist() == list(range(0, 24, 3)) and not frames.identity.any()
    assert frames.meta["kind"] == "clips" and frames.meta["fps"] == [25.0] and frames.meta["sources"] == ["anna.mp4"]
    assert str(tmp_path) not in json.dumps(frames.meta)
    assert report.meta == frames.meta and frames.meta["reprojection_px"] < 1
    np.testing.assert_allclose(frames.coefficients, 0.25)
    assert (frames.rgb.max(-1).astype(int) <= frames.alpha.astype(int) + 1).all()  # premultiplied
    for k in range(8):
        alpha = frames.alpha[k] > 127
        viewmat, K = frames.viewmats[k].astype(float), frames.Ks[k].astype(float)
        at = lambda *p: tuple(headfit.project(np.array([p]), viewmat, K)[0].astype(int)[::-1])  # noqa: B023, E731
        assert alpha[at(0, 0.1, 0)] and alpha[at(0, 0.35, 0)] and alpha[at(0, -0.22, 0)]  # face, hair, neck
        assert not alpha[at(-0.35, 0.1, 0)] and not alpha[at(0, 0.45, 0)] and not alpha[at(0.3, -0.38, 0)]
        assert REGIONS[frames.region[k][at(0.084, 0.135, 0.19)]] == "eyes"
        assert REGIONS[frames.region[k][at(0, -0.045, 0.25)]] == "mouth"
        assert REGIONS[frames.region[k][at(0, 0.25, 0.15)]] == "head" and frames.region[k][0, 0] == 0
    assert np.linalg.norm(frames.viewmats[:, :3, 3], axis=1) == pytest.approx(headfit.RADIUS, rel=0.15)


def test_every_frame_is_kept_or_listed_with_its_reason(tmp_path, finder):
    plan = moving(14)
    plan[3] = []
    plan[4] = [(90, 110, 200), (240, 110, 200)]
    plan[5] = [(160, 110, 60)]
    plan[6] = [(160, 225, 200)]
    write(tmp_path / "anna.mp4", plan)
    write(tmp_path / "bert.mp4", moving(3))
    report = clips.ingest([tmp_path / "anna.mp4", tmp_path / "bert.mp4"], tmp_path / "out", size=128, progress=False)
    assert [(s["video"], s["frame"], s["reason"]) for s in report.meta["skipped"]] == [
        ("anna.mp4", 3, tracking.NO_FACE), ("anna.mp4", 4, tracking.SEVERAL),
        ("anna.mp4", 5, tracking.SMALL), ("anna.mp4", 6, tracking.BORDER),
    ]  # fmt: skip
    frames = store.open_frames(tmp_path / "out")
    assert frames.identity.tolist() == [0] * 10 + [1] * 3
    assert frames.expression.tolist() == [0, 1, 2, *range(7, 14), 0, 1, 2]
    text = "\n".join(report.lines())
    assert "10 of 14 frames kept" in text and f"1 × {tracking.BORDER}" in text


def test_every_frame_keeps_its_own_time(tmp_path, finder):
    """A phone's uneven frames, those without a face, and every second one alone."""
    times = np.cumsum([0, *[1 / 30] * 8, *[0.15] * 5])
    plan = moving(14)
    plan[4] = []
    files.write_video(tmp_path / "anna.mp4", (draw(heads) for heads in plan), 30, times)
    write(tmp_path / "bert.mp4", moving(4)[::-1])
    pair = [tmp_path / "anna.mp4", tmp_path / "bert.mp4"]
    clips.ingest(pair, tmp_path / "out", size=128, stride=2, progress=False)
    frames = store.open_frames(tmp_path / "out")
    assert frames.expression.tolist() == [0, 2, 6, 8, 10, 12, 0, 2]
    np.testing.assert_allclose(frames.times, [*times[[0, 2, 6, 8, 10, 12]], 0, 0.08], atol=1e-4)
    assert frames.meta["fps"] == pytest.approx([13 / times[-1], 25])


def test_a_still_is_too_short(tmp_path, finder):
    write(tmp_path / "still.mp4", moving(1))
    with pytest.raises(UserError, match="holds 1 frame"):
        clips.ingest([tmp_path / "still.mp4"], tmp_path / "out", progress=False)


def test_bars_are_not_picture(tmp_path, finder):
    dark = [np.pad(draw(heads)[:180], ((30, 30), (0, 0), (0, 0))) for heads in moving(4)]
    pictures = [files.Picture(k, k / 25, rgb) for k, rgb in enumerate(dark)]
    track = tracking.find_faces(pictures, Finder(finder))
    assert track.picture == (0, 30, WIDTH, 210)


def test_damaged_frames_are_listed(tmp_path, finder):
    whole = write(tmp_path / "whole.mp4", moving(60)).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) * 7 // 10])
    report = clips.ingest([tmp_path / "cut.mp4"], tmp_path / "out", size=128, progress=False)
    lost = [s["frame"] for s in report.meta["skipped"]]
    assert lost and {s["reason"] for s in report.meta["skipped"]} == {tracking.DAMAGED}
    assert sorted(lost + store.open_frames(report.path).expression.tolist()) == list(range(60))


def test_a_folder_of_images_is_a_video(tmp_path, finder):
    folder = tmp_path / "teacher"
    folder.mkdir()
    for number, _, rgb in files.read_frames(write(tmp_path / "anna.mp4", moving(8)), []):
        Image.fromarray(rgb).save(folder / f"{number:03d}.png")
    (folder / "notes.txt").write_text("no image")
    (folder / "003.png").write_bytes(b"")
    report = clips.ingest([folder], tmp_path / "out", size=128, progress=False)
    assert store.open_frames(report.path).expression.tolist() == [0, 1, 2, 4, 5, 6, 7]
    assert [s["frame"] for s in report.meta["skipped"]] == [3]
    Image.new("RGB", (20, 10)).save(folder / "005.png")
    with pytest.raises(UserError, match="unlike the folder's first image"):
        clips.ingest([folder], tmp_path / "again", size=128, progress=False)


def test_finished_videos_are_not_processed_again(tmp_path, finder, monkeypatch):
    good = write(tmp_path / "anna.mp4", moving(6))
    empty = write(tmp_path / "empty.mp4", [[]] * 4)
    with pytest.raises(UserError, match=r"empty.mp4 shows no usable face \(0 frames kept; 4 × no face\)"):
        clips.ingest([good, empty], tmp_path / "out", size=128, progress=False)
    assert not (tmp_path / "out").exists()
    bert = write(tmp_path / "bert.mp4", moving(5)[::-1])
    seen, find = [], tracking.find_faces
    monkeypatch.setattr(tracking, "find_faces", lambda frames, lm: seen.append(find(frames, lm)) or seen[-1])
    first = clips.ingest([good, bert], tmp_path / "out", size=128, progress=False)
    assert [len(t.numbers) for t in seen] == [5]  # Bert's alone: Anna's part was there
    again = clips.ingest([good, bert], tmp_path / "out", size=128, progress=False)
    assert len(seen) == 1 and again.meta == first.meta
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []
    clips.ingest([good, bert], tmp_path / "out", size=160, progress=False)
    assert len(seen) == 3 and store.open_frames(tmp_path / "out").resolution == 160


def test_a_full_disk_keeps_what_is_finished(tmp_path, finder, monkeypatch):
    anna = write(tmp_path / "anna.mp4", moving(3))
    bert = write(tmp_path / "bert.mp4", moving(12)[::-1])
    seen, find = [], tracking.find_faces
    monkeypatch.setattr(tracking, "find_faces", lambda frames, lm: seen.append(find(frames, lm)) or seen[-1])
    with full_disk(300_000), pytest.raises(UserError, match=r"cannot write .*out"):  # Anna's largest array has 147 kB
        clips.ingest([anna, bert], tmp_path / "out", size=128, progress=False)
    (parts,) = [p for p in tmp_path.iterdir() if p.name not in ("anna.mp4", "bert.mp4", "model.task")]
    (part,) = parts.iterdir()
    assert (part / "part.json").exists(), "no half file"
    clips.ingest([anna, bert], tmp_path / "out", size=128, progress=False)
    assert [len(t.numbers) for t in seen] == [3, 12, 12], "Anna's part was there"


def test_video_without_a_face_leaves_nothing(tmp_path, finder):
    empty = write(tmp_path / "empty.mp4", [[]] * 3)
    with pytest.raises(UserError, match="shows no usable face"):
        clips.ingest([empty], tmp_path / "out", progress=False)
    assert not list(tmp_path.glob("out*")) and not list(tmp_path.glob(".*"))


def test_a_folder_that_is_no_data_set_is_not_touched(tmp_path, finder):
    good = write(tmp_path / "anna.mp4", moving(3))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "diary.txt").write_text("dear diary")
    with pytest.raises(UserError, match="is not a data set"):
        clips.ingest([good], tmp_path / "out", progress=False)
    assert (tmp_path / "out" / "diary.txt").read_text() == "dear diary"


def test_mistakes_in_the_call(tmp_path, finder):
    good = write(tmp_path / "anna.mp4", moving(3))
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(good.read_bytes())
    (tmp_path / "file").write_text("")
    wrong = [
        ([], tmp_path / "out", {}, "at least one video"),
        ([good, copy], tmp_path / "out", {}, "the same video"),
        ([good], tmp_path / "file" / "out", {}, "cannot write"),
        ([good], tmp_path / "out", {"size": 64}, "size must lie between"),
        ([good], tmp_path / "out", {"stride": 0}, "stride"),
        ([good], tmp_path / "out", {"model": tmp_path / "none.task"}, "download it"),
    ]
    for videos, out, settings, words in wrong:
        with pytest.raises(UserError, match=words):
            clips.ingest(videos, out, progress=False, **settings)
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*"))


def test_photo_becomes_one_frame(tmp_path, finder):
    Image.fromarray(draw(moving()[0])).save(tmp_path / "a.png")
    arrays = clips.prepare_image(tmp_path / "a.png", 128, finder)
    assert arrays.keys() == store.ARRAYS.keys() and arrays["rgb"].shape == (1, 128, 128, 3)
    assert arrays["alpha"][0, 64, 64] == 255 and arrays["alpha"][0, 64, 2] == 0
    Image.fromarray(draw([])).save(tmp_path / "b.png")
    with pytest.raises(UserError, match=r"cannot be used \(no face\)"):
        clips.prepare_image(tmp_path / "b.png", 128, finder)


# --- real people


def assets() -> Path:
    return Path(os.environ["I4D_ASSETS"])


@pytest.mark.assets
def test_real_clips(tmp_path):
    videos = [assets() / "clips" / f"{name}.mp4" for name in ("d3", "d9")]
    report = clips.ingest(videos, tmp_path / "out", stride=20, max_frames=6, progress=False)
    frames = store.open_frames(tmp_path / "out")
    assert len(frames) == 12 - len(report.meta["skipped"]) >= 9
    assert report.meta["reprojection_px"] < 1.0
    inside = np.take_along_axis(frames.alpha.reshape(len(frames), -1), _index(frames.landmarks[:, 17:], 256), 1)
    assert (inside > 200).mean() > 0.99  # brows, eyes, nose, mouth
    share = (frames.alpha > 127).mean((1, 2))
    assert (share > 0.2).all() and (share < 0.55).all()
    eyes = np.array([[-0.084, 0.135, 0.19], [0.084, 0.135, 0.19]])
    seen = headfit.project(np.tile(eyes, (len(frames), 1, 1)), frames.viewmats.astype(float), headfit.intrinsics(256))
    marks = frames.landmarks[:, 36:48].reshape(-1, 2, 6, 2).mean(2)
    assert np.abs(seen - marks).max() < 8
    apart = np.linalg.norm(frames.viewmats[:, :3, 3], axis=1)
    assert apart == pytest.approx(headfit.RADIUS, rel=0.08)


def _index(points: np.ndarray, size: int) -> np.ndarray:
    x, y = np.moveaxis(points.astype(int).clip(0, size - 1), -1, 0)
    return y * size + x


@pytest.mark.assets
def test_square_pixels_and_real_photo(tmp_path):
    rgb = next(files.read_frames(assets() / "clips" / "d9.mp4")).rgb
    assert rgb.shape == (480, 480, 3)  # stored as 512 × 480 with pixels of 15:16
    Image.fromarray(rgb).save(tmp_path / "photo.png")
    arrays = clips.prepare_image(tmp_path / "photo.png")
    assert arrays["alpha"][0, 128, 128] == 255 and arrays["coefficients"].max() <= 1
    two = np.concatenate([rgb, rgb], 1)
    Image.fromarray(two).save(tmp_path / "two.png")
    with pytest.raises(UserError, match="several faces"):
        clips.prepare_image(tmp_path / "two.png")
