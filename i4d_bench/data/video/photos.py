"""Reads photos (Pillow) as uint8 RGB, upright; and which files of a folder are images, in which order."""

from __future__ import annotations

import io
import re
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageCms

from i4d_bench.data.video import colour
from i4d_bench.types import UserError

IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".avif")
ORIENTATION = 0x0112
T = Image.Transpose
UPRIGHT = {2: T.FLIP_LEFT_RIGHT, 3: T.ROTATE_180, 4: T.FLIP_TOP_BOTTOM, 5: T.TRANSPOSE, 6: T.ROTATE_270, 7: T.TRANSVERSE,
           8: T.ROTATE_90}  # fmt: skip
"""What turns a photo upright, by its EXIF orientation."""
GREY = (128, 128, 128, 255)


def images(folder: str | Path) -> list[Path]:
    """The folder's images in the order of the numbers in their names: f2 before f10. Raises UserError when it has none."""
    found = [p for p in Path(folder).iterdir() if p.suffix.lower() in IMAGES and not p.name.startswith(".")]
    if not found:
        raise UserError(f"the folder {folder} holds no images ({', '.join(IMAGES)})")
    return sorted(found, key=lambda path: by_number(path.name))


def by_number(name: str) -> tuple[list[str | int], str]:
    """Sorts names by the numbers in them; the name itself decides between 1.png and 01.png."""
    parts = re.split(r"(\d+)", name.casefold())
    return [int(part) if k % 2 else part for k, part in enumerate(parts)], name


def read_image(path: str | Path) -> UInt8[np.ndarray, "H W 3"]:
    """A photo as sRGB, upright by its EXIF tag, transparency over grey, the first picture of an animation.

    A colour profile (Display P3, Adobe RGB, CMYK) is applied, HDR is tone-mapped. Raises UserError when it cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no image {path}")
    if path.stat().st_size == 0:
        raise UserError(f"the image {path} is empty (0 bytes): copy or download it again")
    image = opened(path, f"the image {path}")
    if image.mode == "F":
        raise UserError(f"the image {path} has floating-point pixels: save it with 8 bits")
    with image:
        return _rgb(image, _coding(path))


def opened(source: Path | io.BytesIO, name: str) -> Image.Image:
    """A decoded picture. Raises UserError, which begins with `name`, for whatever is wrong with it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow's: tags that nobody reads, or 108 megapixels, as phones write
            image = Image.open(source)
            image.load()
            return image
    except Exception as e:  # Pillow's readers raise many kinds for a damaged file
        why = " ".join(str(e).split()) or type(e).__name__
        if isinstance(source, Path) and source.is_file() and _is_heic(source):
            why = "HEIC: save it as JPEG"
        raise UserError(f"{name} cannot be read ({why})") from e


def _rgb(image: Image.Image, coding: tuple[int, int] | None) -> np.ndarray:
    turn = UPRIGHT.get(_orientation(image))
    if image.mode.startswith("I"):  # 16 bits; Pillow's own conversion clips at 255
        image = Image.fromarray((np.asarray(image).clip(0, 65535) / 257).round().astype(np.uint8))
    rgba = _in_srgb(image) if coding is None else image.convert("RGBA")
    if coding is not None:
        narrowed = colour.to_sdr(np.asarray(rgba)[..., :3] / 255, *coding)
        rgba = Image.merge(
            "RGBA", (*Image.fromarray((narrowed * 255).round().astype(np.uint8)).split(), rgba.getchannel("A"))
        )
    if turn is not None:
        rgba = rgba.transpose(turn)
    return np.asarray(Image.alpha_composite(Image.new("RGBA", rgba.size, GREY), rgba).convert("RGB"))


def _orientation(image: Image.Image) -> int:
    """1 to 8. Writers give it any of EXIF's types; photos whose EXIF is beyond reading are shown as they lie, as viewers do."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value: Any = image.getexif().get(ORIENTATION, 1)
        value = value[0] if isinstance(value, (tuple, bytes)) and len(value) else value
        return int(value)
    except (ValueError, TypeError, SyntaxError, OSError, struct.error, OverflowError, ZeroDivisionError):
        return 1


def _in_srgb(image: Image.Image) -> Image.Image:
    """RGBA, with the embedded colour profile applied; a profile that does not fit the picture is ignored, as viewers do."""
    rgba = image.convert("RGBA")
    profile = image.info.get("icc_profile")
    if not profile:
        return rgba
    plain = image if image.mode in ("CMYK", "L") else rgba.convert("RGB")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(plain, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        return rgba
    assert converted is not None  # it was not asked to work in place
    return Image.merge("RGBA", (*converted.split(), rgba.getchannel("A")))


def _coding(path: Path) -> tuple[int, int] | None:
    """Transfer and primaries (ITU-T H.273) of an HDR picture: PNG's cICP chunk, AVIF's nclx colour box. None: not HDR."""
    with path.open("rb") as file:
        head = file.read(1 << 16)
    found = None
    if head.startswith(b"\x89PNG"):
        found = re.search(rb"\0\0\0\x04cICP(.)(.)", head, re.DOTALL)
    elif head[4:8] == b"ftyp":
        found = re.search(rb"colrnclx(..)(..)", head, re.DOTALL)
    if not found:
        return None
    primaries, transfer = (int.from_bytes(v) for v in found.groups())
    return (transfer, primaries) if transfer in colour.HDR else None


def _is_heic(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(12)
    return head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
