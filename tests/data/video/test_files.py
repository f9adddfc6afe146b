"""Video as cameras, phones, browsers and editors write it: rates, times, tags, edit lists, mirrored and turned pictures."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from i4d_bench.data.video import files
from i4d_bench.types import UserError

LEVELS = np.arange(20, 240, 10)
"""Grey of frame k: what is read says which frame it was."""


def encode(path: Path, stamps: list[int], base: Fraction, codec="libx264", rate: int | None = 25, **options) -> Path:
    """Frames shown at `stamps` (in units of `base`), each of its own grey."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.options = 64, 48, options
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.time_base = base
        for stamp, level in zip(stamps, LEVELS, strict=False):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), level, np.uint8), format="rgb24")
            frame.pts, frame.time_base = stamp, base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def replace(path: Path, *changes: tuple[bytes, bytes]) -> Path:
    data = path.read_bytes()
    for old, new in changes:
        assert old in data and len(old) == len(new)
        data = data.replace(old, new)
    path.write_bytes(data)
    return path


def read(path: Path) -> list[files.Picture]:
    """Of a file that is whole: no frame may be missing, none may be called damaged."""
    lost: list[int] = []
    pictures = list(files.read_frames(path, lost))
    assert not lost and [p.number for p in pictures] == list(range(len(pictures)))
    assert files.frame_count(path) == len(pictures)
    return pictures


def shown(pictures: list[files.Picture]) -> list[int]:
    """Which frames they are."""
    return [int(np.abs(LEVELS - p.rgb.mean()).argmin()) for p in pictures]


# --- rates and times

BROWSER = [0, 3, 6, 64, 112, 156, 192, 229, 258, 300, 316, 349, 403, 451, 508, 552]
"""Milliseconds, as a browser's recorder stamps frames of a camera of 25 per second."""
DEFAULT_DURATION = bytes.fromhex("23e383")


def browser(path: Path, duration: str) -> Path:
    encode(path, BROWSER, Fraction(1, 1000), "libvpx", 1000, deadline="realtime", **{"lag-in-frames": "0"})
    if duration == "none":  # the element becomes a void of the same length
        data = path.read_bytes()
        at = data.index(DEFAULT_DURATION)
        length = 4 + (data[at + 3] & 0x7F)
        path.write_bytes(data[:at] + bytes([0xEC, 0x80 | (length - 2)]) + data[at + 2 :])
    return path


@pytest.mark.parametrize("duration", ["1 ms", "none"])
def test_a_browsers_webm_has_the_rate_of_its_frames(tmp_path, duration):
    path = browser(tmp_path / "a.webm", duration)
    pictures = read(path)
    assert files.fps(path) == pytest.approx(15 / 0.552)
    assert [p.time for p in pictures] == pytest.approx([t / 1000 for t in BROWSER]) and shown(pictures) == list(
        range(16)
    )


def test_the_rate_is_the_frames_own_not_the_containers_clock(tmp_path):
    clock = encode(tmp_path / "clock.mp4", list(range(0, 12 * 3000, 3000)), Fraction(1, 90000), rate=90000)
    bare = encode(tmp_path / "bare.h264", list(range(12)), Fraction(1, 25))
    late = encode(tmp_path / "late.ts", list(range(100, 112)), Fraction(1, 50), rate=50)
    phone = encode(tmp_path / "phone.mp4", [0, 1, 2, 3, 4, 8, 12, 16], Fraction(1, 30), rate=30)
    assert [files.fps(p) for p in (clock, bare, late, phone)] == pytest.approx([30, 25, 50, 7 / 16 * 30])
    assert [p.time for p in read(phone)] == pytest.approx(np.array([0, 1, 2, 3, 4, 8, 12, 16]) / 30)
    assert [p.time for p in read(bare)] == pytest.approx(np.arange(12) / 25)
    assert [p.time for p in read(late)] == pytest.approx(np.arange(12) / 50), "times count from the first frame"


def test_an_avi_without_a_rate_is_read(tmp_path):
    path = encode(tmp_path / "a.avi", list(range(8)), Fraction(1, 25), "mjpeg")
    data = bytearray(path.read_bytes())
    at = data.index(b"strh") + 8 + 20  # scale and rate
    data[at : at + 8] = bytes(8)
    path.write_bytes(data)
    assert files.fps(path) == pytest.approx(25) and len(read(path)) == 8


def test_joined_files_go_on_where_the_first_ends(tmp_path):
    one = encode(tmp_path / "one.ts", list(range(0, 40, 2)), Fraction(1, 20), rate=10)
    two = tmp_path / "two.ts"
    two.write_bytes(one.read_bytes() * 2)
    pictures = read(two)
    assert [p.time for p in pictures] == pytest.approx(np.arange(40) / 10) and files.fps(two) == pytest.approx(10)


def test_frames_that_a_camera_dropped_are_no_damage(tmp_path):
    """A webcam's AVI has an empty chunk where the frame before is shown once more."""
    data = encode(tmp_path / "whole.avi", list(range(8)), Fraction(1, 25), "mjpeg").read_bytes()
    movi = data.index(b"movi")
    at, chunks = movi + 4, []
    while data[at : at + 4] == b"00dc":
        (length,) = struct.unpack("<I", data[at + 4 : at + 8])
        chunks.append(data[at + 8 : at + 8 + length])
        at += 8 + length + length % 2
    body = index = b""
    for k, chunk in enumerate(chunks):
        chunk = b"" if k in (3, 4) else chunk
        index += struct.pack("<4sIII", b"00dc", 16, 4 + len(body), len(chunk))
        body += struct.pack("<4sI", b"00dc", len(chunk)) + chunk + bytes(len(chunk) % 2)
    made = bytearray(data[: movi - 4] + struct.pack("<I", 4 + len(body)) + b"movi" + body)
    made += struct.pack("<4sI", b"idx1", len(index)) + index
    made[4:8] = struct.pack("<I", len(made) - 8)
    (tmp_path / "dropped.avi").write_bytes(made)
    pictures = read(tmp_path / "dropped.avi")
    assert shown(pictures) == [0, 1, 2, 5, 6, 7]
    assert [p.time for p in pictures] == pytest.approx([0, 0.04, 0.08, 0.2, 0.24, 0.28])


def test_given_times_are_written_and_read_back(tmp_path):
    times = [0.4, 0.44, 0.48, 0.64, 0.81, 2.5]
    pictures = [np.full((45, 63, 3), level, np.uint8) for level in LEVELS[:6]]
    path = files.write_video(tmp_path / "a.mp4", pictures, 25, times)
    with av.open(str(path)) as container:
        stamps = [frame.time for frame in container.decode(video=0)]
        assert stamps == pytest.approx(times, abs=1e-4)
        assert container.duration / 1e6 + stamps[0] > 2.5, "players stop where the header says"
    assert shown(read(path)) == list(range(6))
    with pytest.raises(ValueError, match="ascend"):
        files.write_video(tmp_path / "b.mp4", pictures, 25, [0.0, 0.1, 0.1])
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


# --- what an editor writes


def edited(path: Path, start: int, frames: int) -> Path:
    """An MP4 of 20 frames (a key frame every ten) whose edit list shows `frames` of them from frame `start` on."""
    encode(path, list(range(20)), Fraction(1, 25), g="10", bf="0")
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 4  # version and flags, count, then duration (of the movie's clock) and media time
    assert struct.unpack(">II", data[at : at + 8]) == (0, 1)
    scale = struct.unpack(">I", data[data.index(b"mvhd") + 16 :][:4])[0]
    media = struct.unpack(">I", data[data.index(b"mdhd") + 16 :][:4])[0]
    data[at + 8 : at + 16] = struct.pack(">II", frames * scale // 25, start * media // 25)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(("start", "frames"), [(6, 14), (0, 12), (13, 4)])
def test_what_an_editor_hid_is_neither_shown_nor_damaged(tmp_path, start, frames):
    path = edited(tmp_path / "trimmed.mp4", start, frames)
    pictures = read(path)
    assert shown(pictures) == list(range(start, start + frames))
    assert [p.time for p in pictures] == pytest.approx(np.arange(frames) / 25)
    assert files.fps(path) == pytest.approx(25)


def test_a_trimmed_file_that_is_cut_short_says_what_is_missing(tmp_path):
    data = edited(tmp_path / "trimmed.mp4", 6, 14).read_bytes()
    head = data.index(b"moov") - 4
    size = struct.unpack(">I", data[head : head + 4])[0]
    body = data.index(b"mdat") - 4
    assert body < head, "the index comes last"
    cut = tmp_path / "cut.mp4"  # the last frames' bytes are zeros
    lost_from = head - (head - body) // 4
    cut.write_bytes(data[:lost_from] + bytes(head - lost_from) + data[head : head + size])
    lost: list[int] = []
    kept = [p.number for p in files.read_frames(cut, lost)]
    assert lost and sorted(kept + lost) == list(range(14))


# --- tags and names


@pytest.mark.parametrize("suffix", ["avi", "mkv", "mp4"])
def test_tags_in_another_encoding_are_no_obstacle(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "Caf#"
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 90, np.uint8), format="rgb24")))
        container.mux(stream.encode(None))
    replace(path, (b"Caf#", b"Caf\xe9"))
    assert len(read(path)) == 1 and files.fps(path) == pytest.approx(25)


@pytest.mark.parametrize("name", ["12:30 talk.mp4", "My talk [x] %03d.mp4", "concat:a|b.mp4", "-i.mp4"])
def test_any_file_name_will_do(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    files.write_video(Path(name), [np.full((48, 64, 3), 90, np.uint8)] * 3, 25)
    assert len(read(Path(name))) == 3


# --- turned and mirrored

CORNERS = np.kron(np.array([[40, 90], [140, 220]], np.uint8), np.ones((32, 48), np.uint8))


def corners(rgb: np.ndarray) -> list[list[int]]:
    h, w = rgb.shape[:2]
    return [[int(rgb[y, x, 0]) for x in (w // 4, 3 * w // 4)] for y in (h // 4, 3 * h // 4)]


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turns", range(4))
def test_a_phones_turn_and_mirror_are_undone(tmp_path, turns, mirrored):
    upright = CORNERS[:, ::-1] if mirrored else CORNERS
    upright = np.rot90(upright, turns)
    # (x, y) stored → (x', y') shown, y down: mirrored first, then turned counterclockwise by quarters.
    matrix = np.linalg.matrix_power(np.array([[0, 1], [-1, 0]]), turns) @ np.diag([-1 if mirrored else 1, 1])
    (a, c), (b, d) = (matrix * 65536).tolist()
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.stack([CORNERS] * 3, -1), format="rgb24")))
        container.mux(stream.encode(None))
    (picture,) = read(tmp_path / "a.mp4")
    assert picture.rgb.shape[:2] == upright.shape
    np.testing.assert_allclose(corners(picture.rgb), corners(np.stack([upright] * 3, -1)), atol=4)


# --- folders


@pytest.mark.parametrize("pattern", ["f{}.png", "take2_{}_x.png", "F {}.PNG"])
def test_images_of_a_folder_come_in_the_order_of_their_numbers(tmp_path, pattern):
    for k in range(1, 13):
        Image.new("RGB", (16, 16), (20 * k, 0, 0)).save(tmp_path / pattern.format(k))
    (tmp_path / "._f3.png").write_bytes(b"a note of macOS")
    (tmp_path / ".DS_Store").write_bytes(b"")
    assert [p.rgb[0, 0, 0] // 20 for p in read(tmp_path)] == list(range(1, 13))
    assert [p.time for p in read(tmp_path)] == pytest.approx(np.arange(12) / 25)


def test_padded_and_unpadded_numbers_mix(tmp_path):
    for name in ("f010.png", "f9.png", "f11.png", "f08.png"):
        Image.new("RGB", (16, 16)).save(tmp_path / name)
    assert [p.name for p in files.images(tmp_path)] == ["f08.png", "f9.png", "f010.png", "f11.png"]


def test_a_single_photo_is_no_video(tmp_path):
    Image.new("RGB", (16, 16)).save(tmp_path / "photo.jpg")
    with pytest.raises(UserError, match="no video"):
        files.check(tmp_path / "photo.jpg")
