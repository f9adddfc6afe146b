"""Reads and writes video (PyAV) as uint8 RGB, upright and with square pixels.

A folder of images is a video too, in the order of the numbers in their names: so come the frames of a 2D animator (a teacher).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.sidedata.sidedata import Type
from av.stream import Disposition
from jaxtyping import UInt8

from i4d_bench.cache import atomic_file
from i4d_bench.data.video.colour import HDR, Rgb
from i4d_bench.data.video.photos import images, read_image
from i4d_bench.types import UserError

USUAL_FPS = 25.0
"""Frames per second of a folder of images, and of a stream that says nothing about time."""
FASTEST = 480
"""A header that announces more frames per second names its clock instead (1000, 90000)."""
JOIN = 1.0
"""Seconds by which times must jump back to say that another file begins: frames that are stored out of order jump less."""
WRITTEN = {
    ".mp4": ("mp4", "libx264", {"crf": "17", "bf": "0"}, {"movflags": "faststart"}),
    ".webm": ("webm", "libvpx-vp9", {"crf": "34", "b": "0", "cpu-used": "4", "auto-alt-ref": "0"}, {}),
}
"""By suffix: container, encoder, and the options of both. H.264 is visually lossless, and has no B-frames: the muxer adds up
decoding times, which would lag behind, to the duration that it announces. VP9 is small, for pages."""
CLOCK = Fraction(1, 90000)
"""Unit of the times that are written: the common one of video, which holds 24, 25, 29.97, 30, 50 and 60 per second."""


class Picture(NamedTuple):
    """A decoded frame. number: in order of presentation. time: seconds since the video's first frame."""

    number: int
    time: float
    rgb: UInt8[np.ndarray, "H W 3"]


@dataclass
class _Clock:
    """Seconds since the first frame, always ascending. Where a stream has no times or they start again (joined files), it goes
    on by the step before; where two are alike, by half of it."""

    step: float
    last: float | None = None
    start: float = 0.0

    def __call__(self, stamp: float | None) -> float:
        if self.last is None:
            self.start, self.last = stamp or 0.0, 0.0
            return 0.0
        time = self.last + self.step if stamp is None else stamp - self.start
        if time < self.last - JOIN:
            self.start += time - (self.last + self.step)
            time = self.last + self.step
        if time <= self.last:
            time = self.last + self.step / 2
        else:
            self.step = time - self.last
        self.last = time
        return time


@contextmanager
def _opened(path: Path) -> Iterator[tuple[InputContainer, av.VideoStream]]:
    """The file's first video stream. Raises UserError when there is none or the file cannot be opened."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"there is no video {path}")
    if path.stat().st_size == 0:
        raise UserError(f"the video {path} is empty (0 bytes): copy or download it again")
    try:
        # file: a name such as 12:30.mp4 would be taken for an address. Tags are in whatever encoding the writer had.
        container = av.open(f"file:{path}", metadata_errors="replace")
    except PermissionError as e:
        raise UserError(f"the video {path} may not be read: change its permissions") from e
    except FFmpegError as e:
        raise UserError(f"{path} is not a readable video ({e.strerror}): it may be cut short or of another kind") from e
    with container:
        if container.format.name == "image2" or container.format.name.endswith("_pipe"):
            raise UserError(f"{path} is a photo, no video: name a video, or a folder of images")
        # A cover picture in an audio file is a video stream with one attached frame.
        streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        if not streams:
            raise UserError(f"{path} holds no pictures: it is no video or was cut short")
        streams[0].thread_type = "AUTO"
        yield container, streams[0]


def check(path: str | Path) -> None:
    """Raises UserError when the path is neither a video nor a folder of images."""
    if Path(path).is_dir():
        images(path)
        return
    with _opened(Path(path)):
        pass


def fps(path: str | Path) -> float:
    """Mean frames per second, by the frames' own times: headers name a clock's rate or none (browsers, phones).

    Raises UserError when the file is not a video.
    """
    if Path(path).is_dir():
        images(path)
        return USUAL_FPS
    with _opened(Path(path)) as (container, stream):
        stamps = [
            _seconds(packet.dts if packet.pts is None else packet.pts, stream.time_base)
            for packet in _packets(container, stream)
            if packet.size and not packet.is_discard
        ]
        known = np.array([s for s in stamps if s is not None])
        files = np.split(known, np.flatnonzero(np.diff(known) < -JOIN) + 1) if len(known) else []
        seconds = sum(np.ptp(f) for f in files)
        return sum(len(f) - 1 for f in files) / seconds if seconds else _declared_fps(stream)


def hdr(path: str | Path) -> str | None:
    """HLG or PQ when the video is HDR, which `read_frames` tone-maps. Raises UserError when the file is not a video."""
    if Path(path).is_dir():
        return None
    with _opened(Path(path)) as (_, stream):
        return HDR.get(stream.codec_context.color_trc)


def _declared_fps(stream: av.VideoStream) -> float:
    """What the header says, where that can be."""
    rates = (float(r) for r in (stream.average_rate, stream.guessed_rate, stream.base_rate) if r)
    return next((r for r in rates if 0 < r <= FASTEST), USUAL_FPS)


def _seconds(stamp: int | None, unit: Fraction | None) -> float | None:
    return None if stamp is None or unit is None else float(stamp * unit)


def frame_count(path: str | Path) -> int:
    """How many frames the file announces or, when it does not, holds. Raises UserError when it is not a video."""
    if Path(path).is_dir():
        return len(images(path))
    with _opened(Path(path)) as (container, stream):
        return _announced(container, stream) or sum(
            packet.size > 0 and not packet.is_discard for packet in _packets(container, stream)
        )


def _announced(container: InputContainer, stream: av.VideoStream) -> int:
    """Frames that the file says it shows; 0 where it says nothing. An MP4's edit list hides what an editor cut off, in an AVI
    an empty entry shows the frame before once more."""
    if stream.frames and container.format.name.startswith(("mov", "avi")):
        return sum(entry.size > 0 and not entry.is_discard for entry in stream.index_entries)
    return stream.frames


def read_frames(path: str | Path, damaged: list[int] | None = None) -> Iterator[Picture]:
    """Yields the frames in order of presentation.

    damaged: takes the numbers of the frames that could not be decoded, the missing end of a truncated file included;
    without it the first such frame raises UserError. A file of which nothing can be decoded raises UserError.
    """
    path = Path(path)
    if path.is_dir():
        yield from _read_folder(path, damaged)
        return
    number = decoded = 0
    with _opened(path) as (container, stream):
        clock, rgb = _Clock(1 / _declared_fps(stream)), Rgb(path)
        for frame in _decode(container, stream):
            if frame is not None and not frame.is_corrupt:
                decoded += 1
                yield Picture(number, clock(_seconds(frame.pts, frame.time_base)), _upright(frame, stream, rgb))
            elif damaged is not None:
                damaged.append(number)
            else:
                raise UserError(f"the video {path} is damaged at frame {number}: copy or download it again")
            number += 1
        announced = _announced(container, stream)
    if not decoded:
        raise UserError(f"no frame of the video {path} can be decoded: copy or download it again")
    if number < announced and damaged is None:
        raise UserError(f"the video {path} ends early, after {number} of {announced} frames: copy or download it again")
    if damaged is not None:
        damaged.extend(range(number, announced))


def _read_folder(folder: Path, damaged: list[int] | None) -> Iterator[Picture]:
    shape = None
    for number, path in enumerate(images(folder)):
        try:
            rgb = read_image(path)
        except UserError:
            if damaged is None:
                raise
            damaged.append(number)
            continue
        if shape not in (None, rgb.shape):
            raise UserError(
                f"{path} is {rgb.shape[1]}×{rgb.shape[0]}, unlike the folder's first image: make them alike"
            )
        shape = rgb.shape
        yield Picture(number, number / USUAL_FPS, rgb)
    if shape is None:
        raise UserError(f"no image in {folder} can be read")


def _packets(container, stream) -> Iterator[av.Packet]:
    """Packets up to the end of the file, or to where its structure is broken (the caller counts what is missing)."""
    packets = container.demux(stream)
    while True:
        try:
            yield next(packets)
        except (StopIteration, FFmpegError):
            return


def _decode(container, stream) -> Iterator[av.VideoFrame | None]:
    """Frames, and None where decoding failed."""
    for packet in _packets(container, stream):
        try:
            yield from packet.decode()
        except FFmpegError:
            if not packet.is_discard:
                yield None


def _upright(frame: av.VideoFrame, stream: av.VideoStream, rgb: Rgb) -> np.ndarray:
    """RGB with non-square pixels stretched, and turned and mirrored as the phone's display matrix says."""
    ratio = stream.sample_aspect_ratio or Fraction(1)
    image = rgb(frame, round(frame.width * ratio) if 0 < ratio != 1 else frame.width)
    matrix = frame.side_data.get(Type.DISPLAYMATRIX)  # pyright: ignore[reportArgumentType, reportCallIssue]  (stub of a Mapping)
    if matrix is None:
        return image
    # Row-major 3×3 fixed point; x' = a x + c y, y' = b x + d y (ISO/IEC 14496-12 §8.2.2).
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5]
    if abs(b) > abs(a):  # rows become columns
        image, a, d = image.swapaxes(0, 1), c, b
    return np.ascontiguousarray(image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def write_video(
    path: str | Path,
    frames: Iterable[UInt8[np.ndarray, "H W 3"]],
    fps: float,
    times: Iterable[float] | None = None,
) -> Path:
    """Writes what WRITTEN has for the suffix (yuv420p, which wants even sides: an odd one gets a repeated last row or column).

    times: seconds at which the frames are shown, ascending; default: `fps` per second from 0 on. The last frame is shown for 1/fps.
    The file appears under its name only when it is complete. Raises UserError when it cannot be written, ValueError
    when there is no frame, the frames differ in size or the times do not ascend.
    """
    path = Path(path)
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise ValueError("no frames to write")
    with atomic_file(path) as partial:
        try:
            _encode(partial, itertools.chain([first], frames), first.shape, fps, times)
        except FFmpegError as e:
            raise OSError(e.errno, e.strerror) from e
    return path


def _encode(path: Path, frames: Iterable[np.ndarray], shape, fps: float, times: Iterable[float] | None) -> None:
    h, w = shape[:2]
    stamps = (k / fps for k in itertools.count()) if times is None else iter(times)
    last = None
    kind, encoder, encoding, muxing = WRITTEN[path.suffix]
    with av.open(f"file:{path}", "w", format=kind, options=muxing) as container:
        stream = container.add_stream(encoder, rate=Fraction(fps).limit_denominator(1001))
        stream.width, stream.height, stream.pix_fmt = w + w % 2, h + h % 2, "yuv420p"
        stream.options = encoding
        stream.codec_context.time_base = CLOCK
        for rgb in frames:
            if rgb.shape != shape:
                raise ValueError(f"frames differ in size: {shape} and {rgb.shape}")
            even = np.pad(rgb, ((0, h % 2), (0, w % 2), (0, 0)), mode="edge")
            frame = av.VideoFrame.from_ndarray(even, format="rgb24")
            frame.pts, frame.time_base, frame.duration = round(next(stamps) / CLOCK), CLOCK, round(1 / fps / CLOCK)
            if last is not None and frame.pts <= last:
                raise ValueError(f"the times do not ascend at {float(frame.pts * CLOCK)} s")
            last = frame.pts
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
