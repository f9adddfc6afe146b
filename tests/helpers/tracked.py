"""Heads as trackers leave them: a FLAME file, pictures drawn of it, and folders in VHAP's and GAGAvatar's formats."""

from __future__ import annotations

import functools
import io
import json
import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

from i4d_bench.camera import project
from i4d_bench.data.video.landmarker import IBUG68, Face, Landmarker
from i4d_bench.heads.base import Surface
from i4d_bench.heads.export import export_flame
from i4d_bench.heads.flame import FlameModel
from i4d_bench.heads.worlds import head_world
from i4d_bench.render import mesh

UNIT = 0.38
"""Metres per canonical unit."""
MOVED = np.array([0.004, -0.02, 0.01])
"""Where canonical space's origin lies in the FLAME file."""
SKIN, GREEN, BLUE = (0.8, 0.45, 0.35), (0.02, 0.9, 0.02), (0.02, 0.02, 0.9)
"""Of the head, of its left and of its right eye."""
LIGHT = mesh.Light(
    np.array([0.0, 0, 1]), np.full(3, 0.5), np.array([0.0, 1, 0]), np.zeros(3), np.full(3, 0.6), np.full(3, 0.5)
)


@functools.cache
def arrays(folder: str) -> dict[str, np.ndarray]:
    """The embedded world's linear part as a FLAME file: in metres, elsewhere, without ARKit's expressions."""
    path = Path(folder) / "embedded.npz"
    export_flame(head_world("procedural"), path, n_shape=12, n_expression=10, samples=16)
    with np.load(path) as file:
        a = {k: file[k] for k in file.files if not k.startswith("arkit")}
    a |= {k: a[k] * UNIT for k in ("v_template", "shapedirs", "posedirs")}
    return a | {"v_template": a["v_template"] + MOVED}


def flame_file(folder: Path) -> Path:
    path = folder / "flame.pkl"
    path.write_bytes(pickle.dumps(arrays(str(folder))))
    return path


@dataclass(frozen=True)
class Moment:
    """What the tracker found: FLAME's coefficients and pose, and where the head stands, metres."""

    shape: np.ndarray
    expression: np.ndarray
    pose: np.ndarray
    translation: np.ndarray


def moments(count: int, person: int = 0) -> list[Moment]:
    """A head that turns by root and neck, talks and looks about."""
    r = np.random.default_rng(person)
    shape, out = r.normal(0, 0.7, 300) * (np.arange(300) < 12), []
    for k in range(count):
        pose = np.concatenate(
            [r.normal(0, 0.12, 3), r.normal(0, 0.12, 3), [0.15 + 0.1 * np.sin(k), 0, 0], r.normal(0, 0.1, 6)]
        )
        expression = r.normal(0, 0.4, 100) * (np.arange(100) < 10)
        out.append(Moment(shape, expression, pose, r.normal(0, 0.01, 3) - MOVED))
    return out


def mesh_of(folder: Path, moment: Moment) -> np.ndarray:
    """Vertices as the tracker sees them [V,3], metres."""
    a = arrays(str(folder))
    model = FlameModel(
        a["v_template"],
        a["shapedirs"],
        a["posedirs"],
        a["J_regressor"],
        a["weights"],
        [-1, 0, 1, 1, 1],
        a["f"],
        int(a["n_shape"]),
    )
    row = lambda x: torch.tensor(x[None], dtype=torch.float32)  # noqa: E731
    with torch.no_grad():
        vertices = model(
            row(moment.shape[: model.n_shape]), row(moment.expression[: model.n_expression]), row(moment.pose)
        )
    return vertices[0].double().numpy() + moment.translation


@dataclass(frozen=True)
class Drawn:
    """A picture on white with its mask, uint8, and where the mesh's vertices are in it."""

    rgb: np.ndarray
    mask: np.ndarray
    pixels: np.ndarray


def draw(folder: Path, vertices: np.ndarray, viewmat: np.ndarray, K: np.ndarray, size: tuple[int, int]) -> Drawn:
    a = arrays(str(folder))
    normals = np.tile([0.0, 0, 1], (len(vertices), 1)) @ viewmat[:3, :3] * [1, 1, -1]
    albedo = np.tile(SKIN, (len(vertices), 1))
    albedo[a["weights"][:, 3] > 0.5], albedo[a["weights"][:, 4] > 0.5] = GREEN, BLUE
    regions = np.ones(len(a["f"]), np.uint8)
    surface = Surface(normals, albedo, np.zeros(len(vertices)))
    image = mesh.render_mesh(vertices, a["f"], surface, regions, viewmat, K, *size, LIGHT, supersample=2)
    rgb = image.rgb + 1 - image.alpha[..., None]
    to_bytes = lambda x: np.rint(x.clip(0, 1) * 255).astype(np.uint8)  # noqa: E731
    return Drawn(to_bytes(rgb), to_bytes(image.alpha), project(vertices, viewmat, K))


def view(yaw: float, distance: float) -> np.ndarray:
    """World → camera (OpenCV axes) of a camera around the origin, degrees and metres."""
    out = np.eye(4)
    out[:3, :3] = np.diag([1, -1, -1]) @ Rotation.from_euler("y", -yaw, degrees=True).as_matrix()
    out[:3, 3] = [0, 0, distance]
    return out


WIDTH, HEIGHT = 300, 340
K_VHAP = np.array([[880.0, 0, 146], [0, 880, 171], [0, 0, 1]])


def vhap(
    folder: Path, name: str, count: int = 6, cameras: tuple[float, ...] = (0.0,), person: int = 0
) -> dict[str, Drawn]:
    """Writes an export of one person, cameras at these degrees of yaw; what was drawn, by file."""
    root, drawn, frames = folder / name, {}, []
    for kind in ("images", "fg_masks", "flame_param"):
        (root / kind).mkdir(parents=True)
    for t, m in enumerate(moments(count, person)):
        parameters = {
            "translation": m.translation, "rotation": m.pose[:3], "neck_pose": m.pose[3:6], "jaw_pose": m.pose[6:9],
            "eyes_pose": m.pose[9:], "expr": m.expression,
        }  # fmt: skip
        np.savez(root / "flame_param" / f"{t:05d}.npz", shape=m.shape, **{k: v[None] for k, v in parameters.items()})
        for c, yaw in enumerate(cameras):
            viewmat, file = view(yaw, 1.0), f"images/{t:05d}_{c:02d}.png"
            picture = draw(folder, mesh_of(folder, m), viewmat, K_VHAP, (WIDTH, HEIGHT))
            Image.fromarray(picture.rgb).save(root / file)
            Image.fromarray(picture.mask).save(root / file.replace("images", "fg_masks"))
            drawn[file] = picture
            frames.append({
                "timestep_index": t, "camera_index": c, "file_path": file, "fg_mask_path": file.replace("images", "fg_masks"),
                "flame_param_path": f"flame_param/{t:05d}.npz", "w": WIDTH, "h": HEIGHT, "fl_x": K_VHAP[0, 0],
                "fl_y": K_VHAP[1, 1], "cx": K_VHAP[0, 2], "cy": K_VHAP[1, 2],
                "transform_matrix": (np.linalg.inv(viewmat) @ np.diag([1, -1, -1, 1])).tolist(),
            })  # fmt: skip
    (root / "transforms.json").write_text(json.dumps({"frames": frames, "w": WIDTH, "h": HEIGHT}))
    return drawn


K_GAGA = np.array([[12 * 256.0, 0, 256], [0, 12 * 256, 256], [0, 0, 1]])


def gagavatar(
    folder: Path, name: str, people: dict[str, int], splits: dict[str, str] | None = None
) -> dict[str, Drawn]:
    """Writes tracked data: so many pictures of each video. splits: video → split, for dataset.json."""
    import lmdb

    root, drawn, records = folder / name, {}, {}
    root.mkdir()
    with lmdb.open(str(root / "img_lmdb"), map_size=1 << 26) as database, database.begin(write=True) as transaction:
        for person, (video, count) in enumerate(people.items()):
            for k, m in enumerate(moments(count, person)):
                key, jaw_only = (
                    f"{video}_{k}",
                    Moment(m.shape, m.expression, np.r_[np.zeros(6), m.pose[6:]], m.translation),
                )
                viewmat = view(25 * np.sin(k), 2.2)
                viewmat[:3, :3] = viewmat[:3, :3] @ Rotation.from_rotvec(m.pose[:3]).as_matrix()
                standing = viewmat.copy()  # GAGAvatar's heads have no translation of their own: the camera's has it
                standing[:3, 3] += viewmat[:3, :3] @ m.translation
                picture = draw(folder, mesh_of(folder, jaw_only), viewmat, K_GAGA, (512, 512))
                encoded = io.BytesIO()
                Image.fromarray(picture.rgb).save(encoded, "PNG")
                transaction.put(key.encode(), encoded.getvalue())
                flip = np.diag([-1.0, -1, 1])
                records[key] = {
                    "bbox": np.zeros(4, np.float32), "shapecode": m.shape.astype(np.float32),
                    "expcode": m.expression.astype(np.float32), "posecode": np.r_[np.zeros(3), m.pose[6:9]].astype(np.float32),
                    "eyecode": m.pose[9:].astype(np.float32),
                    "transform_matrix": np.c_[(flip @ standing[:3, :3]).T, 5 * flip @ standing[:3, 3]].astype(np.float32),
                }  # fmt: skip
                drawn[key] = picture
    (root / "optim.pkl").write_bytes(pickle.dumps(records))
    if splits:
        names = {s: [k for k in records if splits[k.rpartition("_")[0]] == s] for s in ("train", "val", "test")}
        (root / "dataset.json").write_text(json.dumps(names))
    return drawn


@functools.cache
def _face(folder: str) -> np.ndarray:
    """478 canonical points, the 68 where the embedded head's landmarks are."""
    r = np.random.default_rng(0)
    points = np.stack([r.uniform(-0.13, 0.13, 478), r.uniform(-0.1, 0.28, 478), np.zeros(478)], 1)
    points[IBUG68] = (arrays(folder)["v_template"][head_world("procedural").landmarks] - MOVED) / UNIT
    return points


class Finder(Landmarker):
    """Stands in for MediaPipe: finds a drawn head by the colours of its eyes."""

    folder = ""

    def __init__(self, model=None, most=1):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def __call__(self, rgb):
        red, green, blue = rgb.astype(int).transpose(2, 0, 1)
        eyes = [
            np.argwhere(where)[:, ::-1]
            for where in ((green - np.maximum(red, blue)) > 60, (blue - np.maximum(red, green)) > 60)
        ]
        if min(map(len, eyes)) < 3:
            return None
        left, right = (e.mean(0) + 0.5 for e in eyes)
        along = (left - right) / 0.17
        turn = np.array([along, [along[1], -along[0]]])  # x to the subject's left, y up
        points = (_face(self.folder)[:, :2] - [0, 0.135]) @ turn + (left + right) / 2
        return Face(np.c_[points, np.zeros(478)].astype(np.float32), np.full(52, 0.25, np.float32), np.eye(4))
