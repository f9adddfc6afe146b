"""One video (or photo) → the arrays of a data set: faces found, crops, cameras, masks (headfit.py, matting.py)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from i4d_bench.data.frames import create
from i4d_bench.data.video import headfit
from i4d_bench.data.video.files import Picture
from i4d_bench.data.video.landmarker import Face, Landmarker, to68
from i4d_bench.data.video.matting import MaskMaker, Shot

NO_FACE, SEVERAL, SMALL, BORDER = "no face", "several faces", "face too small", "cut off by the border"
DAMAGED, OTHER_SIZE = "decode error", "another size than the first frame"
SMALLEST = 96
"""Side of the smallest crop that is kept, in the video's pixels (the eyes are about 20 pixels apart)."""
INSIDE = 0.99
"""Share of the landmarks that must lie in the picture."""
RIVAL = 0.5
"""A second face of at least this share of the first one's height leaves it open whose video it is."""
BLACK = 24
"""Rows and columns at the border never brighter than this (0..255) are bars, not picture."""
CROP_SECONDS = 0.3
"""Standard deviation of the window over which crops are smoothed."""
REFERENCES = 12
"""Frames from which the colours of person and background are learnt."""

Progress = Callable[[Iterable, str, int], Iterable]
"""Passes items on and shows how far they are: (items, label, total)."""


@dataclass
class Track:
    """The face in every usable frame. numbers, times: which frames, and when (seconds). skipped: the others, with the reason."""

    numbers: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    faces: list[Face] = field(default_factory=list)
    skipped: list[tuple[int, str]] = field(default_factory=list)
    picture: tuple[int, int, int, int] = (0, 0, 0, 0)  # left, top, right, bottom, without black bars

    @property
    def landmarks(self) -> Float[np.ndarray, "F 478 3"]:
        return np.stack([f.landmarks for f in self.faces])


def find_faces(frames: Iterable[Picture], landmarker: Landmarker) -> Track:
    """Looks at every frame; `landmarker` must look for two faces, to notice the second."""
    track = Track()
    rows = columns = np.zeros(0, np.uint8)
    for number, time, rgb in frames:
        if not len(rows):
            rows, columns = np.zeros(rgb.shape[0], np.uint8), np.zeros(rgb.shape[1], np.uint8)
        if rgb.shape[:2] != (len(rows), len(columns)):
            track.skipped.append((number, OTHER_SIZE))
            continue
        rows, columns = np.maximum(rows, rgb.max((1, 2))), np.maximum(columns, rgb.max((0, 2)))
        faces = sorted(landmarker.faces(rgb), key=_height, reverse=True)
        if not faces:
            track.skipped.append((number, NO_FACE))
        elif any(_height(f) > RIVAL * _height(faces[0]) and _apart(f, faces[0]) for f in faces[1:]):
            track.skipped.append((number, SEVERAL))
        else:
            track.numbers.append(number)
            track.times.append(time)
            track.faces.append(faces[0])
    if len(rows):
        (top, bottom), (left, right) = _lit(rows), _lit(columns)
        track.picture = (left, top, right, bottom)
    if track.faces:
        _drop_unusable(track)
    return track


def _height(face: Face) -> float:
    return float(np.ptp(face.landmarks[:, 1]))


def _apart(a: Face, b: Face) -> bool:
    """False when two detections are the same face seen twice."""
    return bool(np.linalg.norm((a.landmarks - b.landmarks)[:, :2].mean(0)) > 0.3 * _height(b))


def _lit(brightest: UInt8[np.ndarray, " N"]) -> tuple[int, int]:
    """From where to where there is picture."""
    bright = np.flatnonzero(brightest > BLACK)
    return (int(bright[0]), int(bright[-1]) + 1) if len(bright) else (0, len(brightest))


def _drop_unusable(track: Track) -> None:
    left, top, right, bottom = track.picture
    points = track.landmarks[..., :2]
    inside = ((points >= [left, top]) & (points <= [right, bottom])).all(-1).mean(1)
    small = headfit.crops(track.landmarks)[:, 2] < SMALLEST
    keep = []
    for k, number in enumerate(track.numbers):
        if small[k]:
            track.skipped.append((number, SMALL))
        elif inside[k] < INSIDE:
            track.skipped.append((number, BORDER))
        else:
            keep.append(k)
    track.numbers, track.times, track.faces = (
        [values[k] for k in keep] for values in (track.numbers, track.times, track.faces)
    )
    track.skipped.sort()


@dataclass(frozen=True)
class Heads:
    """Crops and cameras of a track. boxes: centre x, centre y, side. landmarks: pixels of the crop."""

    size: int
    boxes: Float[np.ndarray, "F 3"]
    landmarks: Float[np.ndarray, "F 478 2"]
    viewmats: Float[np.ndarray, "F 4 4"]
    K: Float[np.ndarray, "3 3"]
    error: Float[np.ndarray, " F"]  # median reprojection error, pixels
    scene: np.ndarray


def fit_track(track: Track, fps: float, size: int) -> Heads:
    """Smooth crops and cameras."""
    times = np.array(track.times)
    boxes = headfit.crops(track.landmarks)
    scene = headfit.scenes(boxes, times)
    boxes[:, 2] = np.log(boxes[:, 2])
    boxes = headfit.smooth(boxes, times, scene, CROP_SECONDS)
    boxes[:, 2] = np.exp(boxes[:, 2])
    corner = np.c_[boxes[:, :2] - boxes[:, 2:] / 2, np.zeros(len(boxes))]
    pixels = (track.landmarks - corner[:, None]) * (size / boxes[:, 2])[:, None, None]
    fit = headfit.fit_head(pixels, size)
    viewmats = headfit.steady(fit.viewmats, times, scene, 1 / fps)
    error = headfit.errors(fit.shape, pixels, viewmats, fit.K)
    return Heads(size, boxes, pixels[..., :2].astype(np.float32), viewmats, fit.K, error, scene)


def crop(rgb: UInt8[np.ndarray, "H W 3"], box: Float[np.ndarray, " 3"], size: int) -> UInt8[np.ndarray, "S S 3"]:
    """The square `box`, antialiased; beyond the frame its border is repeated."""
    low, high = box[:2] - box[2] / 2, box[:2] + box[2] / 2
    h, w = rgb.shape[:2]
    before = np.maximum(0, np.ceil(-low)).astype(int) + 1
    after = np.maximum(0, np.ceil(high - [w, h])).astype(int) + 1
    padded = np.pad(rgb, ((before[1], after[1]), (before[0], after[0]), (0, 0)), mode="edge")
    edges = (*(low + before), *(high + before))
    return np.asarray(Image.fromarray(padded).resize((size, size), Image.Resampling.LANCZOS, box=edges))


def valid(picture: tuple[int, int, int, int], box: Float[np.ndarray, " 3"], size: int) -> UInt8[np.ndarray, "S S"]:
    """1 where a crop shows picture."""
    at = (np.arange(size) + 0.5) / size * box[2] - box[2] / 2
    x, y = box[0] + at, box[1] + at
    left, top, right, bottom = picture
    return (((y > top) & (y < bottom))[:, None] & ((x > left) & (x < right))).astype(np.uint8)


def write_arrays(folder: Path, track: Track, heads: Heads, frames: Iterable[Picture], progress: Progress) -> None:
    """Writes one .npy per array of a data set (identity is 0) into `folder`. `frames` holds at least the track's."""
    n, size = len(track.numbers), heads.size
    rgb, alpha, region = (
        create(folder / f"{name}.npy", np.uint8, (n, size, size, *tail))
        for name, tail in (("rgb", (3,)), ("alpha", ()), ("region", ()))
    )
    row = {number: k for k, number in enumerate(track.numbers)}
    wanted = ((row[number], image) for number, _, image in frames if number in row)
    for k, image in progress(wanted, "crops", n):
        rgb[k] = crop(image, heads.boxes[k], size)

    def shot(k: int) -> Shot:
        inside = valid(track.picture, heads.boxes[k], size)
        return Shot(rgb[k].copy(), inside, heads.boxes[k], heads.landmarks[k], heads.viewmats[k], heads.K)

    cut_out(rgb, alpha, region, shot, heads.scene, progress)
    for array in (rgb, alpha, region):
        array.flush()
    rest = {
        "viewmats": heads.viewmats.astype(np.float32),
        "Ks": np.tile(heads.K.astype(np.float32), (n, 1, 1)),
        "identity": np.zeros(n, np.int32),
        "expression": np.array(track.numbers, np.int32),
        "times": np.array(track.times),
        "coefficients": np.stack([f.blendshapes for f in track.faces]).astype(np.float32),
        "landmarks": to68(heads.landmarks).astype(np.float32),
    }
    for name, array in rest.items():
        np.save(folder / f"{name}.npy", array)


def cut_out(
    rgb: UInt8[np.ndarray, "F S S 3"],
    alpha: UInt8[np.ndarray, "F S S"],
    region: UInt8[np.ndarray, "F S S"],
    shot: Callable[[int], Shot],
    scene: Int[np.ndarray, " F"],
    progress: Progress,
) -> None:
    """Cuts the heads out of crops: fills alpha and region, and makes rgb premultiplied, in place. shot: of a frame's number."""
    n = len(rgb)
    maker = MaskMaker([shot(k) for k in np.unique(np.linspace(0, n - 1, REFERENCES).astype(int)).tolist()])
    people = _calm(progress((maker.cut(shot(k)) for k in range(n)), "masks", n), scene)
    for k, person in enumerate(people):
        # The raw crop of frame k is read for the last time here: cuts run at most one frame ahead.
        mask = maker.finish(shot(k), person)
        rgb[k], alpha[k], region[k] = mask.rgb, mask.alpha, mask.region


def _calm(cuts: Iterable[np.ndarray], scene: np.ndarray) -> Iterator[np.ndarray]:
    """Each cut averaged with its neighbours of the same scene, weights 1 2 1."""
    before, now = None, None
    for k, after in enumerate(cuts):
        if now is not None:
            yield _weighted(before, now, after if scene[k] == scene[k - 1] else None)
            before = now if scene[k] == scene[k - 1] else None
        now = after
    if now is not None:
        yield _weighted(before, now, None)


def _weighted(before: np.ndarray | None, now: np.ndarray, after: np.ndarray | None) -> np.ndarray:
    return (2 * now + (now if before is None else before) + (now if after is None else after)) / 4
