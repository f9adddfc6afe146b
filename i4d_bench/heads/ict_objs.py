"""ICT-FaceKit's checkout (a folder of OBJ files) → the one .npz that the ict world reads.

The upstream folder FaceXModel holds `generic_neutral_mesh.obj`, `identity000.obj` … and one file per expression, all with the
vertices of the neutral mesh moved (github.com/ICT-VGL/ICT-FaceKit, MIT).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from i4d_bench.cache import atomic_file
from i4d_bench.heads.ict import check
from i4d_bench.progress import track
from i4d_bench.types import UserError

NEUTRAL = "generic_neutral_mesh.obj"


def convert(folder: Path, out: Path) -> Path:
    """Writes what `read` returns as `out`. Raises UserError when it is not what the ict world needs."""
    arrays = read(folder)
    try:
        check(arrays["template"])
    except ValueError as e:
        raise UserError(f"{folder} is not what the ict world needs: {e}") from e
    with atomic_file(Path(out)) as path:
        np.savez_compressed(path, allow_pickle=False, **arrays)
    return Path(out)


def read(folder: Path) -> dict[str, np.ndarray]:
    """template [V,3] f32, identity [I,V,3] and expression [E,V,3] f16 (offsets from it, centimetres), expression_names [E],
    faces_quad and faces_vt_quad [F,4] (a triangle repeats its last corner), vt [T,2].

    folder: the checkout, or its FaceXModel. Raises UserError when it is not one.
    """
    folder = next((f for f in (Path(folder), Path(folder) / "FaceXModel") if (f / NEUTRAL).is_file()), Path(folder))
    files = sorted(folder.glob("*.obj"), key=lambda path: path.name)
    identities = [f for f in files if f.name.startswith("identity")]
    expressions = [f for f in files if f not in identities and f.name != NEUTRAL]
    if not (folder / NEUTRAL).is_file() or not identities or not expressions:
        raise UserError(
            f"{folder} is no checkout of ICT-FaceKit: it needs {NEUTRAL}, identity*.obj and the expressions' .obj"
        )
    template, vt, faces, faces_vt = _mesh(folder / NEUTRAL)
    moved = np.zeros((len(identities) + len(expressions), *template.shape), np.float16)
    for k, file in enumerate(track([*identities, *expressions], "reading ICT-FaceKit", len(moved))):
        vertices = _rows(file, "v ", 3)
        if vertices.shape != template.shape:
            raise UserError(
                f"{file} has {len(vertices)} vertices and {NEUTRAL} has {len(template)}: check it out again"
            )
        moved[k] = vertices - template
    return {
        "template": template.astype(np.float32),
        "vt": vt.astype(np.float32),
        "faces_quad": faces,
        "faces_vt_quad": faces_vt,
        "identity": moved[: len(identities)],
        "expression": moved[len(identities) :],
        "expression_names": np.array([f.stem for f in expressions]),
    }


def _lines(file: Path, start: str) -> list[str]:
    try:
        return [
            line for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if line.startswith(start)
        ]
    except OSError as e:
        raise UserError(f"cannot read {file}: {e.strerror or e}") from e


def _rows(file: Path, start: str, width: int) -> Float[np.ndarray, "N W"]:
    try:
        return np.array([line.split()[1 : width + 1] for line in _lines(file, start)], float).reshape(-1, width)
    except ValueError as e:
        raise UserError(f"{file} is no OBJ file of ICT-FaceKit ({e})") from e


def _mesh(
    file: Path,
) -> tuple[Float[np.ndarray, "V 3"], Float[np.ndarray, "T 2"], Int[np.ndarray, "F 4"], Int[np.ndarray, "F 4"]]:
    """Vertices, texture coordinates and the quads' indices into both."""
    faces = []
    try:
        for line in _lines(file, "f "):
            corners = [[int(i) - 1 for i in corner.split("/")[:2]] for corner in line.split()[1:]]
            faces.append([*corners, corners[-1]] if len(corners) == 3 else corners)
        quads = np.array(faces, np.int32).reshape(-1, 4, 2)
    except ValueError as e:
        raise UserError(f"{file} is no OBJ file of ICT-FaceKit ({e})") from e
    return _rows(file, "v ", 3), _rows(file, "vt ", 2), quads[..., 0], quads[..., 1]
