"""Reads and writes video (PyAV) and photos (Pillow) as uint8 RGB, upright and with square pixels.

A folder of images is a video too, in the order of their names: so come the frames of a 2D animator (a teacher).
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from i4d_bench.types import UserError

IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
FOLDER_FPS = 25.0
"""Frames per second of a folder of images."""
CRF = 17
"""H.264 quality of what is written: visually lossless."""


@contextmanager
def _opened(path: Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """The file's first video stream. Raises UserError when there is none or the file cannot be opened."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"there is no video {path}")
    if path.stat().st_size == 0:
        raise UserError(f"the video {path} is empty (0 bytes): copy or download it again")
    try:
        container = av.open(str(path))
    except PermissionError as e:
        raise UserError(f"the video {path} may not be read: change its permissions") from e
    except av.FFmpegError as e:
        raise UserError(f"{path} is not a readable video ({e.strerror}): it may be cut short or of another kind") from e
    with container:
        # A cover picture in an audio file is a video stream with one attached frame.
        streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
        if not streams:
            raise UserError(f"{path} holds no pictures: it is no video or was cut short")
        streams[0].thread_type = "AUTO"
        yield container, streams[0]


def fps(path: str | Path) -> float:
    """Frames per second. Raises UserError when the file is not a video."""
    if Path(path).is_dir():
        images(path)
        return FOLDER_FPS
    with _opened(Path(path)) as (_, stream):
        return float(stream.average_rate or stream.base_rate or 25)


def frame_count(path: str | Path) -> int:
    """How many frames the file announces or, when it does not, holds. Raises UserError when it is not a video."""
    if Path(path).is_dir():
        return len(images(path))
    with _opened(Path(path)) as (container, stream):
        return stream.frames or sum(packet.size > 0 for packet in _packets(container, stream))


def read_frames(path: str | Path, damaged: list[int] | None = None) -> Iterator[tuple[int, UInt8[np.ndarray, "H W 3"]]]:
    """Yields (frame number, RGB) in order of presentation.

    damaged: takes the numbers of the frames that could not be decoded, the missing end of a truncated file included;
    without it the first such frame raises UserError. A file of which nothing can be decoded raises UserError.
    """
    path = Path(path)
    if path.is_dir():
        yield from _read_folder(path, damaged)
        return
    number = decoded = 0
    with _opened(path) as (container, stream):
        for frame in _decode(container, stream):
            if frame is not None and not frame.is_corrupt:
                decoded += 1
                yield number, _upright(frame, stream)
            elif damaged is not None:
                damaged.append(number)
            else:
                raise UserError(f"the video {path} is damaged at frame {number}: copy or download it again")
            number += 1
        announced = stream.frames
    if not decoded:
        raise UserError(f"no frame of the video {path} can be decoded: copy or download it again")
    if number < announced and damaged is None:
        raise UserError(f"the video {path} ends early, after {number} of {announced} frames: copy or download it again")
    if damaged is not None:
        damaged.extend(range(number, announced))


def images(folder: str | Path) -> list[Path]:
    """The folder's images, sorted by name. Raises UserError when it has none."""
    found = sorted(p for p in Path(folder).iterdir() if p.suffix.lower() in IMAGES)
    if not found:
        raise UserError(f"the folder {folder} holds no images ({', '.join(IMAGES)})")
    return found


def _read_folder(folder: Path, damaged: list[int] | None) -> Iterator[tuple[int, np.ndarray]]:
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
        yield number, rgb
    if shape is None:
        raise UserError(f"no image in {folder} can be read")


def _packets(container, stream) -> Iterator[av.Packet]:
    """Packets up to the end of the file, or to where its structure is broken (the caller counts what is missing)."""
    packets = container.demux(stream)
    while True:
        try:
            yield next(packets)
        except (StopIteration, av.FFmpegError):
            return


def _decode(container, stream) -> Iterator[av.VideoFrame | None]:
    """Frames, and None where decoding failed."""
    for packet in _packets(container, stream):
        try:
            yield from packet.decode()
        except av.FFmpegError:
            yield None


def _upright(frame: av.VideoFrame, stream: av.VideoStream) -> np.ndarray:
    """RGB with the phone's rotation applied and non-square pixels stretched."""
    ratio = stream.sample_aspect_ratio or Fraction(1)
    width = round(frame.width * ratio) if 0 < ratio != 1 else frame.width
    rgb = frame.reformat(width=width, height=frame.height, format="rgb24", interpolation="BICUBIC").to_ndarray()
    return np.ascontiguousarray(np.rot90(rgb, frame.rotation // 90))


def read_image(path: str | Path) -> UInt8[np.ndarray, "H W 3"]:
    """A photo as RGB, upright by its EXIF tag, transparency over grey. Raises UserError when it cannot be read."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no image {path}")
    if path.stat().st_size == 0:
        raise UserError(f"the image {path} is empty (0 bytes): copy or download it again")
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGBA")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as e:
        raise UserError(f"{path} is not a readable image ({e})") from e
    grey = Image.new("RGBA", image.size, (128, 128, 128, 255))
    return np.asarray(Image.alpha_composite(grey, image).convert("RGB"))


def write_video(path: str | Path, frames: Iterable[UInt8[np.ndarray, "H W 3"]], fps: float) -> Path:
    """Writes H.264 (yuv420p, which wants even sides: an odd one gets a repeated last row or column).

    The file appears under its name only when it is complete. Raises UserError when it cannot be written, ValueError
    when there is no frame or the frames differ in size.
    """
    path = Path(path)
    partial = path.with_name(f".{os.getpid()}.{path.stem}.mp4")
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise ValueError("no frames to write")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(partial), "w", options={"movflags": "faststart"}) as container:
            stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
            h, w = first.shape[:2]
            stream.width, stream.height, stream.pix_fmt = w + w % 2, h + h % 2, "yuv420p"
            stream.options = {"crf": str(CRF)}
            for rgb in itertools.chain([first], frames):
                if rgb.shape != first.shape:
                    raise ValueError(f"frames differ in size: {first.shape} and {rgb.shape}")
                even = np.pad(rgb, ((0, h % 2), (0, w % 2), (0, 0)), mode="edge")
                container.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
            container.mux(stream.encode(None))
        partial.replace(path)
    except (OSError, av.FFmpegError) as e:
        raise UserError(f"cannot write the video {path}: {e.strerror or e}") from e
    finally:
        if partial.exists():
            partial.unlink()
    return path
