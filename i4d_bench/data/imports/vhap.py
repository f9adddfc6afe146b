"""VHAP's export folders (PAPER §9; GaussianAvatars, LAM and UIKA read them): one person each, one camera or several.

transforms.json (or transforms_train, _val, _test)   cameras: camera → world, OpenGL axes; pixels; which files
images/, fg_masks/, flame_param/*.npz                one of each per picture or moment
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from i4d_bench.data.imports.person import NO_MASK
from i4d_bench.data.imports.tracked import Shot, Take, rigid
from i4d_bench.data.video.photos import by_number, opened, read_image
from i4d_bench.types import UserError

INDEX, PARTS = "transforms.json", ("transforms_train.json", "transforms_val.json", "transforms_test.json")
POSE = {"rotation": 3, "neck_pose": 3, "jaw_pose": 3, "eyes_pose": 6}
"""Names of a pose's fifteen numbers, in FLAME's order."""
OFFSETS = ("static_offset", "dynamic_offset")
NO_FLAME, NO_CAMERA = "FLAME parameters missing or damaged", "camera missing or damaged"
OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])


def read(folder: Path) -> Iterator[Take]:
    """The folder's one person. Raises UserError when it is no such folder."""
    frames = _frames(folder)
    take = Take(folder.resolve().name, _content(folder, frames))
    masked = any("fg_mask_path" in frame for frame in frames)
    codes: dict[str, dict[str, Any]] = {}  # all cameras' pictures of a moment share its parameters
    for frame in frames:
        label, parameters = str(frame["file_path"]), str(frame.get("flame_param_path", ""))
        try:
            if masked and "fg_mask_path" not in frame:
                raise _Lacking(NO_MASK)
            if parameters not in codes:
                codes[parameters] = _code(_file(folder, parameters))
            take.shots.append(_shot(folder, frame, label, codes[parameters]))
        except _Lacking as e:
            take.skipped.append((label, str(e)))
    if any(code["offsets"] for code in codes.values()):
        take.notes.append("its offsets per vertex are not used, as a FLAME-format head has none")
    yield take


class _Lacking(Exception):
    """A picture without something that it needs; the text is the reason."""


def _frames(folder: Path) -> list[dict[str, Any]]:
    """The index's pictures, those of its parts where there is no whole, each with what the index says of all."""
    found = [folder / INDEX] if (folder / INDEX).is_file() else [p for n in PARTS if (p := folder / n).is_file()]
    if not found:
        raise UserError(f"{folder} is no VHAP export: there is no {INDEX} in it")
    frames: dict[str, dict[str, Any]] = {}
    for path in found:
        try:
            index = json.loads(path.read_text(encoding="utf-8"))
            shared = {k: v for k, v in index.items() if k != "frames"}
            frames |= {str(frame["file_path"]): shared | frame for frame in index["frames"]}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as e:
            raise UserError(f"{path} is not a readable index of a VHAP export ({type(e).__name__}: {e})") from e
    if not frames:
        raise UserError(f"{found[0]} lists no pictures")
    if not any("flame_param_path" in frame for frame in frames.values()):
        raise UserError(f"{found[0]} names no FLAME parameters, so meshes were exported: export again with parameters")
    moments = {
        path: k
        for k, path in enumerate(sorted({str(f.get("flame_param_path")) for f in frames.values()}, key=by_number))
    }
    numbered = [{"timestep_index": moments[str(f.get("flame_param_path"))], **f} for f in frames.values()]
    return sorted(
        numbered,
        key=lambda f: (_number(f, "timestep_index"), _number(f, "camera_index"), by_number(str(f["file_path"]))),
    )


def _number(frame: dict[str, Any], key: str) -> int:
    value = frame.get(key)
    return int(value) if isinstance(value, int | float) and np.isfinite(value) else 0


def _file(folder: Path, name: str) -> Path:
    """Paths are relative to the folder, in combined exports beside it; a writer on Windows turns the strokes."""
    return folder / str(name).replace("\\", "/")


def _content(folder: Path, frames: list[dict[str, Any]]) -> str:
    """Of the index and, since pictures may be many, of the files' sizes and times of change."""
    digest = hashlib.sha256(json.dumps(frames, sort_keys=True, default=str).encode())
    for frame in frames:
        for key in ("file_path", "fg_mask_path", "flame_param_path"):
            path = _file(folder, frame.get(key, ""))
            stat = path.stat() if path.is_file() else None
            digest.update(repr(stat and (stat.st_size, stat.st_mtime_ns)).encode())
    return digest.hexdigest()


def _shot(folder: Path, frame: dict[str, Any], label: str, code: dict[str, Any]) -> Shot:
    try:
        w, h = float(frame["w"]), float(frame["h"])
        fx = float(frame["fl_x"]) if "fl_x" in frame else w / 2 / np.tan(float(frame["camera_angle_x"]) / 2)
        fy = float(frame.get("fl_y", fx))
        K = np.array([[fx, 0, float(frame.get("cx", w / 2))], [0, fy, float(frame.get("cy", h / 2))], [0, 0, 1]])
        view = np.linalg.inv(np.array(frame["transform_matrix"], float).reshape(4, 4) @ OPENGL)
    except (KeyError, TypeError, ValueError, np.linalg.LinAlgError) as e:
        raise _Lacking(NO_CAMERA) from e
    if not (np.isfinite(K).all() and min(fx, fy, w, h) > 0 and np.isfinite(view).all() and rigid(view)):
        raise _Lacking(NO_CAMERA)
    view[:3, 3] += view[:3, :3] @ code["translation"]
    image = partial(read_image, _file(folder, frame["file_path"]))
    mask = partial(_mask, _file(folder, frame["fg_mask_path"])) if "fg_mask_path" in frame else None
    return Shot(
        label, _number(frame, "timestep_index"), image, mask, code["shape"], code["expr"], code["pose"], view, K, (w, h)
    )


def _code(path: Path) -> dict[str, Any]:
    """A moment's parameters. Raises _Lacking."""
    try:
        with np.load(path, allow_pickle=False) as file:
            pose = np.concatenate([_row(file, name, count) for name, count in POSE.items()])
            code = {
                "shape": _row(file, "shape"),
                "expr": _row(file, "expr"),
                "translation": _row(file, "translation", 3),
            }
            offsets = any(name in file.files and np.any(file[name]) for name in OFFSETS)
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as e:
        raise _Lacking(NO_FLAME) from e
    return {**code, "pose": pose, "offsets": offsets}


def _row(file, name: str, count: int | None = None) -> Float[np.ndarray, " K"]:
    """ValueError where it is not one row of so many finite numbers."""
    row = np.asarray(file[name], np.float64).reshape(-1)
    if not len(row) or (count is not None and len(row) != count) or not np.isfinite(row).all():
        raise ValueError(f"{name} has {len(row)} numbers")
    return row


def _mask(path: Path) -> UInt8[np.ndarray, "H W"]:
    with opened(Path(path), f"the mask {path}") as image:
        return np.asarray(image.convert("L"))
