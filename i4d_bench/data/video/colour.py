"""Decoded frames → RGB of an ordinary screen (BT.709): HDR (HLG, PQ) is tone-mapped, wide gamuts (BT.2020, P3) are narrowed.

HLG and PQ as in ITU-R BT.2100-2 (tables 4 and 5), shown on a display of 1,000 cd/m². From there to 100 cd/m² by the EETF of
ITU-R BT.2390-10 §5.4.1, which BT.2408 recommends, per channel: below 30 cd/m² nothing changes; HDR's reference white (203 cd/m²)
becomes 89, which is 243 of 255. Both screens then decode with BT.1886 (γ 2.4). ffmpeg applies it as a table, fast enough for 4K.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import av
import numpy as np
from av.filter import Graph
from av.sidedata.sidedata import Type
from av.video.reformatter import ColorPrimaries, Colorspace, ColorTrc
from jaxtyping import Float, UInt8

from i4d_bench.types import UserError

HDR: dict[int, str] = {ColorTrc.SMPTE2084: "PQ", ColorTrc.ARIB_STD_B67: "HLG"}
PEAK, WHITE = 1000.0, 100.0
"""cd/m²: of the display that HDR is made for, and of an ordinary one."""
GAMMA = 2.4
GRID = 33
UNSPECIFIED = 2
STRANGE = {14: "ICtCp", 15: "IPT (Dolby Vision)"}
"""Matrices, code points of H.273, that ffmpeg does not convert."""
HD = 720
"""Untagged video is BT.709 from this height or 1,280 pixels of width on, and BT.601 below, as players have it."""

_D65 = (0.3127, 0.3290)
CHROMATICITIES: dict[int, tuple[tuple[float, float], ...]] = {
    ColorPrimaries.BT709: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    ColorPrimaries.BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    ColorPrimaries.SMPTE432: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
"""x, y of red, green and blue; white is D65. SMPTE432 is Display P3."""


def to_sdr(rgb: Float[np.ndarray, "*N 3"], transfer: int, primaries: int) -> Float[np.ndarray, "*N 3"]:
    """R'G'B' as coded, 0..1 → R'G'B' of BT.709, 0..1. transfer, primaries: code points of ITU-T H.273."""
    if transfer == ColorTrc.SMPTE2084:
        light = eetf(pq(rgb))
    elif transfer == ColorTrc.ARIB_STD_B67:
        light = eetf(hlg(rgb))
    else:
        light = WHITE * rgb**GAMMA
    narrowed = light / WHITE @ to_bt709(primaries).T
    return narrowed.clip(0, 1) ** (1 / GAMMA)


def pq(signal: Float[np.ndarray, "*N 3"]) -> Float[np.ndarray, "*N 3"]:
    """PQ's EOTF: 0..1 → cd/m² (BT.2100 table 4)."""
    m1, m2, c1, c2, c3 = _PQ
    e = signal ** (1 / m2)
    return 10000 * (np.maximum(e - c1, 0) / (c2 - c3 * e)) ** (1 / m1)


def pq_inverse(light: Float[np.ndarray, "*N"]) -> Float[np.ndarray, "*N"]:
    """cd/m² → PQ, 0..1."""
    m1, m2, c1, c2, c3 = _PQ
    y = (light / 10000) ** m1
    return ((c1 + c2 * y) / (1 + c3 * y)) ** m2


_PQ = (2610 / 16384, 2523 / 4096 * 128, 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32)


def hlg(signal: Float[np.ndarray, "*N 3"]) -> Float[np.ndarray, "*N 3"]:
    """HLG's EOTF at PEAK: 0..1 → cd/m² (BT.2100 table 5: inverse OETF, then the OOTF with γ = 1.2)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    luminance = scene @ np.array([0.2627, 0.6780, 0.0593])
    return PEAK * scene * luminance[..., None] ** 0.2


def eetf(light: Float[np.ndarray, "*N"]) -> Float[np.ndarray, "*N"]:
    """cd/m² on a display of PEAK → cd/m² on one of WHITE (BT.2390 §5.4.1, both black levels 0)."""
    top, white = pq_inverse(np.array([PEAK, WHITE]))
    e, most = pq_inverse(light.clip(0, PEAK)) / top, white / top
    knee = 1.5 * most - 0.5
    t = ((e - knee) / (1 - knee)).clip(0, 1)
    bent = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * most
    return pq(np.where(e < knee, e, bent) * top)


def to_bt709(primaries: int) -> Float[np.ndarray, "3 3"]:
    """Linear RGB of these primaries → linear RGB of BT.709; unknown primaries are BT.709's."""
    own = CHROMATICITIES.get(primaries, CHROMATICITIES[ColorPrimaries.BT709])
    return np.linalg.inv(_to_xyz(CHROMATICITIES[ColorPrimaries.BT709])) @ _to_xyz(own)


def _to_xyz(chromaticities) -> np.ndarray:
    """Linear RGB → XYZ (SMPTE RP 177)."""
    columns = np.array([(x / y, 1, (1 - x - y) / y) for x, y in (*chromaticities, _D65)]).T
    return columns[:, :3] * np.linalg.solve(columns[:, :3], columns[:, 3])


def meaning(frame: av.VideoFrame) -> tuple[int, int]:
    """Transfer and primaries of the frame, for `to_sdr`. HDR without primaries is BT.2020, which both standards name."""
    primaries = frame.color_primaries
    if frame.color_trc in HDR and primaries == UNSPECIFIED:
        primaries = ColorPrimaries.BT2020
    return frame.color_trc, primaries


class Rgb:
    """Frames of one video as RGB. Keeps the table between frames."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._graph: Graph | None = None
        self._made_for: tuple | None = None

    def __call__(self, frame: av.VideoFrame, width: int) -> UInt8[np.ndarray, "H W 3"]:
        """The frame stretched to `width`. Raises UserError for colours that are neither RGB nor YCbCr."""
        self._check(frame)
        matrix = None
        if frame.colorspace == UNSPECIFIED and (frame.height >= HD or frame.width >= 1280):
            matrix = Colorspace.ITU709
        scale = {"width": width, "height": frame.height, "src_colorspace": matrix, "interpolation": "BICUBIC"}
        transfer, primaries = meaning(frame)
        ordinary = primaries not in CHROMATICITIES or primaries == ColorPrimaries.BT709
        if transfer not in HDR and ordinary:
            return frame.reformat(format="rgb24", **scale).to_ndarray()
        deep = frame.reformat(format="rgb48le", **scale)
        wanted = (deep.width, deep.height, transfer, primaries)
        if self._graph is None or self._made_for != wanted:
            self._graph, self._made_for = _table(*wanted, frame.time_base), wanted
        self._graph.vpush(deep)
        return self._graph.vpull().reformat(format="rgb24").to_ndarray()

    def _check(self, frame: av.VideoFrame) -> None:
        strange = STRANGE.get(frame.colorspace)
        if Type.DOVI_METADATA in frame.side_data and frame.color_trc == UNSPECIFIED:
            strange = "Dolby Vision without a base layer"
        if strange:
            raise UserError(f"the colours of the video {self.path} are {strange}: save it as SDR, HDR10 or HLG")


def _table(width: int, height: int, transfer: int, primaries: int, time_base) -> Graph:
    """`to_sdr` as a filter."""
    blue, green, red = np.meshgrid(*[np.linspace(0, 1, GRID)] * 3, indexing="ij")  # .cube: red changes fastest
    rows = to_sdr(np.stack([red, green, blue], -1).reshape(-1, 3), transfer, primaries)
    graph = Graph()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.cube"
        np.savetxt(path, rows, fmt="%.6f", header=f"LUT_3D_SIZE {GRID}", comments="")
        size = {"width": width, "height": height, "time_base": time_base}
        source = graph.add_buffer(format="rgb48le", **size)  # pyright: ignore[reportArgumentType]  (its stub knows no names)
        graph.link_nodes(source, graph.add("lut3d", file=str(path)), graph.add("buffersink")).configure()
    return graph
