"""Photos as phones, cameras, scanners and browsers write them are read upright and in their colours, or refused in one sentence."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, features

from i4d_bench.data.video import photos
from i4d_bench.types import UserError

QUARTERS = np.kron(np.array([[40, 90], [140, 220]], np.uint8), np.ones((24, 32), np.uint8))
PICTURE = Image.fromarray(np.stack([QUARTERS, 255 - QUARTERS, QUARTERS], -1))


def quarters(rgb: np.ndarray) -> list[list[int]]:
    h, w = rgb.shape[:2]
    return [[int(rgb[y, x, 0]) for x in (w // 4, 3 * w // 4)] for y in (h // 4, 3 * h // 4)]


def exif(*entries: tuple[int, int, int, bytes]) -> bytes:
    """A little-endian EXIF block of (tag, type, count, value); values above four bytes follow the directory."""
    size = 2 + 12 * len(entries) + 4
    directory, rest = struct.pack("<H", len(entries)), b""
    for tag, kind, count, value in entries:
        if len(value) > 4:
            directory += struct.pack("<HHII", tag, kind, count, 8 + size + len(rest))
            rest += value
        else:
            directory += struct.pack("<HHI", tag, kind, count) + value.ljust(4, b"\0")
    return b"Exif\0\0II*\0\x08\0\0\0" + directory + bytes(4) + rest


STORED = {1: QUARTERS, 2: QUARTERS[:, ::-1], 3: QUARTERS[::-1, ::-1], 4: QUARTERS[::-1], 5: QUARTERS.T, 6: np.rot90(QUARTERS),
          7: QUARTERS[::-1, ::-1].T, 8: np.rot90(QUARTERS, -1)}  # fmt: skip
"""How a camera stores the picture under each EXIF orientation."""
TYPES = {"short": (3, struct.Struct("<H")), "long": (4, struct.Struct("<I")), "byte": (1, struct.Struct("<B")),
         "double": (12, struct.Struct("<d"))}  # fmt: skip


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("orientation", STORED)
def test_all_eight_orientations_are_undone(tmp_path, orientation, suffix):
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation])).convert("RGB")
    stored.save(tmp_path / f"a.{suffix}", exif=exif((0x0112, 3, 1, struct.pack("<H", orientation))))
    np.testing.assert_allclose(
        quarters(photos.read_image(tmp_path / f"a.{suffix}")), quarters(QUARTERS[..., None]), atol=5
    )


@pytest.mark.parametrize("kind", TYPES)
def test_an_orientation_of_another_type_counts(tmp_path, kind):
    code, value = TYPES[kind]
    stored = Image.fromarray(np.ascontiguousarray(STORED[6]))
    stored.save(tmp_path / "a.jpg", exif=exif((0x0112, code, 1, value.pack(6))))
    assert photos.read_image(tmp_path / "a.jpg").shape == (48, 64, 3)


ODD = {
    "a date that is a number": (0x0132, 12, 1, struct.pack("<d", 1.5)),
    "a date that is a fraction": (0x0132, 5, 1, struct.pack("<II", 1, 2)),
    "a date of bytes": (0x0132, 7, 8, b"\xff\xfe\0\x01 not"),
    "a fraction over zero": (0x011A, 5, 1, struct.pack("<II", 1, 0)),
    "a maker in Latin-1": (0x010F, 2, 8, b"Caf\xe9 Co\0"),
    "an unknown type": (0x0131, 77, 3, b"abcd"),
    "a directory that points to itself": (0x8769, 4, 1, struct.pack("<I", 8)),
    "a directory outside the file": (0x8769, 4, 1, struct.pack("<I", 1 << 30)),
}


@pytest.mark.parametrize("entry", ODD)
def test_odd_exif_beside_the_orientation_does_no_harm(tmp_path, entry):
    stored = Image.fromarray(np.ascontiguousarray(STORED[6]))
    tags = sorted([ODD[entry], (0x0112, 3, 1, struct.pack("<H", 6))])
    stored.save(tmp_path / "a.jpg", exif=exif(*tags))
    assert photos.read_image(tmp_path / "a.jpg").shape == (48, 64, 3)


@pytest.mark.parametrize(
    "block", [b"Exif\0\0", b"Exif\0\0MM\0*", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0" + b"x" * 40]
)
def test_a_photo_with_broken_exif_is_shown_as_it_lies(tmp_path, block):
    PICTURE.save(tmp_path / "a.jpg", exif=block)
    assert photos.read_image(tmp_path / "a.jpg").shape == (48, 64, 3)


FORMATS = ("jpg", "png", "webp", "gif", "tif", "bmp", "avif")


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_damaged_photo_is_one_sentence_or_a_picture(tmp_path, suffix):
    """Whatever is cut off or overwritten."""
    if suffix == "avif" and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (48, 64, 3), np.uint8))
    noise.save(tmp_path / f"whole.{suffix}")
    whole = (tmp_path / f"whole.{suffix}").read_bytes()
    refused = 0
    for trial in range(60):
        data = bytearray(whole)
        if trial < 20:
            data = data[: len(data) * (trial + 1) // 21]
        else:
            for at in rng.integers(0, min(len(data), 400), 8):
                data[at] = rng.integers(256)
        path = tmp_path / f"a.{suffix}"
        path.write_bytes(data)
        try:
            assert photos.read_image(path).ndim == 3
        except UserError as e:
            refused += 1
            assert str(path) in str(e) and "\n" not in str(e)
    assert refused > 5


def test_sixteen_bits_are_scaled(tmp_path):
    levels = np.array([[0, 2560, 25700, 65535]], np.uint16).repeat(4, 0)
    Image.fromarray(levels).save(tmp_path / "grey.png")
    Image.fromarray(levels).save(tmp_path / "grey.tif")
    rows = b"".join(b"\0" + row.astype(">u2").repeat(3).tobytes() for row in levels)
    parts = (b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    (tmp_path / "rgb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*p) for p in parts))
    for name in ("grey.png", "grey.tif", "rgb.png"):
        assert photos.read_image(tmp_path / name)[0, :, 0].tolist() == [0, 10, 100, 255], name


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def test_floating_point_pixels_are_refused(tmp_path):
    Image.new("F", (8, 8), 0.5).save(tmp_path / "a.tif")
    with pytest.raises(UserError, match="floating-point"):
        photos.read_image(tmp_path / "a.tif")


def test_transparency_lies_over_grey(tmp_path):
    clear = Image.new("RGBA", (16, 16), (255, 0, 0, 0))
    clear.paste((0, 200, 0, 255), (8, 0, 16, 16))
    clear.save(tmp_path / "rgba.png")
    clear.save(tmp_path / "rgba.webp", lossless=True)
    clear.convert("LA").save(tmp_path / "la.png")
    clear.quantize(16).save(tmp_path / "palette.png")
    clear.save(tmp_path / "palette.gif")
    named = Image.new("RGB", (16, 16), (255, 0, 0))
    named.paste((0, 200, 0), (8, 0, 16, 16))
    named.save(tmp_path / "named.png", transparency=(255, 0, 0))
    for path in tmp_path.iterdir():
        rgb = photos.read_image(path)
        assert rgb[8, 2].tolist() == [128, 128, 128], path.name
        assert rgb[8, 12, 1] > 100 or path.name == "la.png"


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "L", "1", "P", "LAB"])
def test_every_kind_of_pixel_is_read(tmp_path, mode):
    suffix = {"1": "png", "P": "png", "LAB": "tif"}.get(mode, "jpg")
    if mode == "LAB":
        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.profileToProfile(PICTURE, *profiles, outputMode="LAB")
    else:
        image = PICTURE.convert(mode)
    image.save(tmp_path / f"a.{suffix}")
    rgb = photos.read_image(tmp_path / f"a.{suffix}")
    assert rgb.shape == (48, 64, 3) and rgb.dtype == np.uint8
    if mode in ("CMYK", "YCbCr", "LAB"):
        assert abs(rgb[40, 60].astype(int) - [220, 35, 220]).max() < 30


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_of_an_animation_the_first_picture_is_taken(tmp_path, suffix):
    pictures = [Image.new("RGB", (32, 24), colour) for colour in ((200, 30, 30), (30, 200, 30), (30, 30, 200))]
    pictures[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=pictures[1:], duration=40)
    assert np.abs(photos.read_image(tmp_path / f"a.{suffix}")[12, 16].astype(int) - [200, 30, 30]).max() < 8


def test_huge_photos(tmp_path, recwarn, monkeypatch):
    """What phones write (108 megapixels; Pillow warns from 89 on) is read without a warning; a bomb is refused before it is
    unpacked."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 6000)
    Image.new("L", (100, 90), 90).save(tmp_path / "phone.png")
    assert photos.read_image(tmp_path / "phone.png").shape == (90, 100, 3) and not recwarn.list
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 100000, 100000, 8, 2, 0, 0, 0))
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")))
    with pytest.raises(UserError, match="pixels"):
        photos.read_image(tmp_path / "bomb.png")


def test_a_colour_profile_is_applied(tmp_path):
    """Red and green in the profile are swapped: a picture under it shows the other colour."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = profile.replace(b"rXYZ", b"?XYZ").replace(b"gXYZ", b"rXYZ").replace(b"?XYZ", b"gXYZ")
    image = Image.new("RGB", (16, 16), (200, 30, 30))
    for name, icc in {"plain": profile, "swapped": swapped, "broken": b"no profile"}.items():
        image.save(tmp_path / f"{name}.png", icc_profile=icc)
    read = {
        name: photos.read_image(tmp_path / f"{name}.png")[8, 8].astype(int) for name in ("plain", "swapped", "broken")
    }
    assert np.abs(read["plain"] - [200, 30, 30]).max() < 3 and np.abs(read["broken"] - [200, 30, 30]).max() < 3
    assert read["swapped"][1] > 150 > 80 > read["swapped"][0]


def test_an_hdr_photo_is_tone_mapped(tmp_path):
    """PNG's cICP chunk: BT.2020 and PQ. Coded 0.58 is 203 cd/m², HDR's white."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (round(0.58 * 255),) * 3).save(buffer, "PNG")
    data = buffer.getvalue()
    for name, transfer in (("pq", 16), ("sdr", 1)):
        (tmp_path / f"{name}.png").write_bytes(data[:33] + chunk(b"cICP", bytes([9, transfer, 0, 1])) + data[33:])
    assert photos.read_image(tmp_path / "pq.png")[4, 4].min() > 235
    assert photos.read_image(tmp_path / "sdr.png")[4, 4].tolist() == [148] * 3


def test_heic_says_what_to_do(tmp_path):
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0heicmif1" + bytes(100))
    with pytest.raises(UserError, match="save it as JPEG"):
        photos.read_image(tmp_path / "a.heic")
