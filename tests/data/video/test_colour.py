"""Colours of video: matrices and ranges of SDR, tone-mapped HDR, narrowed gamuts."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import ColorPrimaries, ColorTrc

from i4d_bench.data.video import colour, files
from i4d_bench.types import UserError

BARS = np.array([[191, 191, 191], [191, 191, 0], [0, 191, 191], [0, 191, 0], [191, 0, 191], [191, 0, 0], [0, 0, 191],
                 [255, 255, 255], [128, 128, 128], [64, 64, 64], [200, 150, 120], [20, 20, 20]]) / 255  # fmt: skip
"""Colour bars of 75 %, greys and skin: R'G'B' of BT.709."""
PALE = [0, 7, 8, 9, 10, 11]
"""Greys and skin; the others lie on the border of the gamut, where the curve is steep."""
WEIGHTS = {"601": (0.299, 0.114), "709": (0.2126, 0.0722), "2020": (0.2627, 0.0593)}
MATRIX_CODE = {"601": 6, "709": 1, "2020": 9}


def encode(
    path: Path, rgb, matrix: str, full=False, tag=True, transfer=2, primaries=2, size=(64, 192), deep=False
) -> Path:
    """Bars of R'G'B' `rgb`, converted by this matrix into lossless H.264 of 8 or 10 bits, tagged or not."""
    kr, kb = WEIGHTS[matrix]
    r, g, b = rgb.T
    y = kr * r + (1 - kr - kb) * g + kb * b
    planes = [y, (b - y) / (2 - 2 * kb), (r - y) / (2 - 2 * kr)]
    bits = 10 if deep else 8
    top, unit = 2**bits - 1, 2 ** (bits - 8)
    scaled = [planes[0] * (top if full else 219 * unit) + (0 if full else 16 * unit)]
    scaled += [p * (top if full else 224 * unit) + 2 ** (bits - 1) for p in planes[1:]]
    rows = [np.rint(p).repeat(size[1] // len(rgb))[None].repeat(size[0], 0) for p in scaled]
    image = np.stack(rows).astype(np.uint16 if deep else np.uint8)
    name = "yuv444p10le" if deep else "yuv444p"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width = size
        stream.pix_fmt, stream.options = name, {"qp": "0"}
        context = stream.codec_context
        context.color_range = 2 if full else 1
        if tag:
            context.colorspace, context.color_trc, context.color_primaries = MATRIX_CODE[matrix], transfer, primaries
        frame = av.VideoFrame(size[1], size[0], name)
        for plane, values in zip(frame.planes, image, strict=True):
            padded = np.zeros((size[0], plane.line_size // values.itemsize), values.dtype)
            padded[:, : size[1]] = values
            plane.update(padded)
        frame.color_range = context.color_range
        frame.colorspace, frame.color_trc, frame.color_primaries = context.colorspace, transfer, primaries
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def read(path: Path, bars: int = len(BARS)) -> np.ndarray:
    """The middle of every bar, 0..1."""
    (picture,) = files.read_frames(path)
    h, w = picture.rgb.shape[:2]
    return picture.rgb[h // 2, (np.arange(bars) * w + w // 2) // bars] / 255


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", ["601", "709", "2020"])
def test_tagged_matrix_and_range_are_obeyed(tmp_path, matrix, full):
    np.testing.assert_allclose(read(encode(tmp_path / "a.mp4", BARS, matrix, full)), BARS, atol=0.016)


@pytest.mark.parametrize(
    ("matrix", "size"), [("601", (64, 192)), ("601", (576, 720)), ("709", (720, 1280)), ("709", (720, 406 // 2 * 2))]
)
def test_an_untagged_video_has_the_matrix_of_its_size(tmp_path, matrix, size):
    bars = BARS[:2] if size[1] == 406 else BARS[:8]
    np.testing.assert_allclose(
        read(encode(tmp_path / "a.mp4", bars, matrix, tag=False, size=size), len(bars)), bars, atol=0.016
    )


def hdr(rgb: np.ndarray, transfer: int, white: float) -> np.ndarray:
    """SDR R'G'B' of BT.709 as a recorder codes it in HDR with SDR's white at `white` cd/m²."""
    light = white * rgb**colour.GAMMA @ np.linalg.inv(colour.to_bt709(ColorPrimaries.BT2020)).T
    light = light.clip(0)
    if transfer == ColorTrc.SMPTE2084:
        return colour.pq_inverse(light)
    luminance = (light / 1000) @ np.array([0.2627, 0.6780, 0.0593])
    scene = light / 1000 * np.maximum(luminance, 1e-9)[:, None] ** (1 / 1.2 - 1)
    return np.where(
        scene <= 1 / 12, np.sqrt(3 * scene), 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    )


@pytest.mark.parametrize("transfer", colour.HDR)
@pytest.mark.parametrize("white", [100, 203])
def test_hdr_comes_out_near_its_sdr_twin(tmp_path, transfer, white):
    coded = hdr(BARS, transfer, white)
    path = encode(tmp_path / "a.mp4", coded, "2020", transfer=int(transfer), primaries=9, deep=True)
    got = read(path)
    if white == 100:
        np.testing.assert_allclose(got, BARS, atol=0.2)
        np.testing.assert_allclose(got[PALE], BARS[PALE], atol=0.15)
    else:
        assert 0.9 < got[7].min() <= 1, "HDR's reference white is white"
        assert (np.diff(got[[11, 9, 8, 0, 7], 0]) > 0).all()
    np.testing.assert_allclose(got[[0, 7, 8, 9, 11]].std(1), 0, atol=0.02)


def test_the_table_is_the_formula(tmp_path):
    grid = np.linspace(0.15, 0.7, 24)[:, None] + [0.04, 0, -0.03]
    path = encode(tmp_path / "a.mp4", grid, "2020", transfer=16, primaries=9, deep=True)
    np.testing.assert_allclose(read(path, 24), colour.to_sdr(grid, 16, 9), atol=0.012)


@pytest.mark.parametrize("primaries", [ColorPrimaries.BT2020, ColorPrimaries.SMPTE432])
def test_wide_gamuts_are_narrowed(tmp_path, primaries):
    light = (BARS**colour.GAMMA) @ np.linalg.inv(colour.to_bt709(primaries)).T
    path = encode(
        tmp_path / "a.mp4", light.clip(0) ** (1 / colour.GAMMA), "709", transfer=1, primaries=int(primaries), deep=True
    )
    got = read(path)
    np.testing.assert_allclose(got[PALE], BARS[PALE], atol=0.02)
    np.testing.assert_allclose(got, BARS, atol=0.12)


def test_colours_that_no_formula_here_decodes_are_refused(tmp_path, monkeypatch):
    """Dolby Vision without a base layer that others can show is green and violet when it is taken for YCbCr."""
    monkeypatch.setitem(MATRIX_CODE, "2020", 14)
    path = encode(tmp_path / "a.mp4", BARS, "2020", transfer=16, primaries=9, deep=True)
    with pytest.raises(UserError, match=r"a\.mp4.*ICtCp"):
        read(path)


def test_curves_of_the_standards():
    """BT.2100: PQ at 0.5081 is 100 cd/m² and at 0.5807 is 203; HLG at 0.75 is 203 on a display of 1,000 (BT.2408)."""
    assert colour.pq(np.array([0.5081, 0.5807, 1.0])) == pytest.approx([100, 203, 10000], rel=2e-3)
    assert colour.pq_inverse(np.array([100.0, 203.0])) == pytest.approx([0.5081, 0.5807], abs=1e-4)
    assert colour.hlg(np.full((1, 3), 0.75))[0] == pytest.approx([203] * 3, rel=5e-3)
    assert colour.hlg(np.ones((1, 3)))[0] == pytest.approx([1000] * 3, rel=1e-3)
    assert colour.eetf(np.array([0.0, 10.0, 1000.0])) == pytest.approx([0, 10, 100], abs=0.01)
    np.testing.assert_allclose(
        colour.to_bt709(ColorPrimaries.BT2020),
        [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]],
        atol=1e-4,
    )
