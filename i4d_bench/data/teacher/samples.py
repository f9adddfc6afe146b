"""A sample of a teacher store: source, driver and target picture, as files of one key in a tar (WebDataset's layout).

`KEY.source.jpg`, `KEY.source.alpha.png`, `KEY.source.region.png`, likewise driver and target, and `KEY.json` with cameras,
coefficients and landmarks. A picture is what a data set (`data.frames`) holds of one frame.
"""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
from PIL import Image

ROLES = ("source", "driver", "target")
IMAGES = {"rgb": "jpg", "alpha": "alpha.png", "region": "region.png"}
NUMBERS = {"viewmats": (4, 4), "Ks": (3, 3), "coefficients": (52,), "landmarks": (68, 2)}
QUALITY = 95
"""JPEG's, with full colour resolution: about 45 dB."""

Picture = dict[str, np.ndarray]
"""`frames.ARRAYS` of one frame: rgb uint8 [H,W,3] premultiplied by alpha, alpha and region uint8 [H,W], NUMBERS in float32."""
Sample = dict[str, Picture]
"""A picture for each of ROLES, all of one size."""


class Damaged(ValueError):
    """Bytes that are no whole sample. Says in a few words what is wrong."""


def pack(key: str, sample: Sample) -> bytes:
    """The sample as a piece of a tar file. Raises ValueError for a key with a dot or a slash, and for wrong pictures."""
    if not key or set(key) & set("./\\") or len(key) > 80:
        raise ValueError(f"{key!r} cannot be a sample's key: up to 80 characters without dots and slashes")
    fault = _fault(sample)
    if fault:
        raise ValueError(f"sample {key}: {fault}")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for role in ROLES:
            for name, ending in IMAGES.items():
                _add(tar, f"{key}.{role}.{ending}", _encoded(sample[role][name], ending))
        numbers = {role: {k: sample[role][k].astype(float).tolist() for k in NUMBERS} for role in ROLES}
        _add(tar, f"{key}.json", json.dumps(numbers).encode())
        end = tar.offset
    return out.getvalue()[:end]  # without the blocks that end a tar: pieces follow each other


def unpack(piece: bytes, key: str | None = None, roles: tuple[str, ...] = ROLES) -> Sample:
    """The sample in a piece of a tar file, of it these pictures. key: what it must be called. Raises Damaged."""
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(piece + bytes(2 * tarfile.BLOCKSIZE))) as tar:
            for member in tar:
                own, _, name = member.name.partition(".")
                if key not in (None, own):
                    raise Damaged(f"the sample there is {own}'s")
                content = tar.extractfile(member)
                files[name] = content.read() if content else b""
        numbers = json.loads(files["json"])
        sample = {
            role: {name: _decoded(files[f"{role}.{ending}"]) for name, ending in IMAGES.items()}
            | {k: np.asarray(numbers[role][k], np.float32) for k in NUMBERS}
            for role in roles
        }
    except Damaged:
        raise
    except KeyError as e:
        raise Damaged(f"{e.args[0]} is missing") from e
    except (tarfile.TarError, OSError, ValueError, TypeError) as e:
        raise Damaged(f"cannot be decoded ({e})") from e
    if fault := _fault(sample, roles):
        raise Damaged(fault)
    return sample


def _fault(sample: Sample, roles: tuple[str, ...] = ROLES) -> str | None:
    sizes = set()
    for role in roles:
        if role not in sample:
            return f"there is no {role}"
        picture = sample[role]
        for name, shape in NUMBERS.items():
            if name not in picture or picture[name].shape != shape:
                return f"{role}'s {name} are not {list(shape)}"
        if not all(np.isfinite(picture[name]).all() for name in ("viewmats", "Ks")):
            return f"{role}'s camera is not finite"
        for name in IMAGES:
            got = picture.get(name)
            if got is None or got.dtype != np.uint8 or got.ndim != (3 if name == "rgb" else 2):
                return f"{role}'s {name} is no 8-bit picture"
            sizes.add(got.shape[:2])
    return None if len(sizes) == 1 else f"pictures of {len(sizes)} sizes"


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # no owner, no time: the same sample is the same bytes
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _encoded(image: np.ndarray, ending: str) -> bytes:
    out = io.BytesIO()
    picture = Image.fromarray(np.ascontiguousarray(image))
    if ending == "jpg":
        picture.save(out, "JPEG", quality=QUALITY, subsampling=0)
    else:
        picture.save(out, "PNG", compress_level=1)
    return out.getvalue()


def _decoded(content: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(content)))
