"""Ground truth: one supersampled z-buffer mesh rasteriser (colour, mask, depth, regions) and the cameras of the worlds.

Triangles are drawn from both sides (mouths and lids are open surfaces); shading turns normals towards the camera.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numba
import numpy as np
from jaxtyping import Float, Int, UInt8

from i4d_bench.camera import unit
from i4d_bench.heads.base import REGIONS, Surface


@dataclass(frozen=True)
class Light:
    """A key light, a weaker fill from the other side, and a sky/ground ambient. Directions point to the light, canonical."""

    key: Float[np.ndarray, "3"]
    key_color: Float[np.ndarray, "3"]
    fill: Float[np.ndarray, "3"]
    fill_color: Float[np.ndarray, "3"]
    sky: Float[np.ndarray, "3"]
    ground: Float[np.ndarray, "3"]

    @staticmethod
    def sample(rng: np.random.Generator) -> Light:
        """A light from the front, above; warm or cool."""
        side = rng.uniform(-1, 1)
        warm = rng.uniform(-0.08, 0.08) * np.array([1.0, 0.0, -1.0])
        return Light(
            key=unit([side, rng.uniform(0.2, 0.9), 1.0]),
            key_color=rng.uniform(0.6, 0.85) * (1 + warm),
            fill=unit([-2 * side, 0.1, 0.6]),
            fill_color=rng.uniform(0.08, 0.22) * (1 - warm),
            sky=rng.uniform(0.28, 0.4) * (1 - 0.5 * warm),
            ground=rng.uniform(0.14, 0.22) * (1 + warm),
        )

    @property
    def numbers(self) -> Float[np.ndarray, "18"]:
        """All of it, in the fields' order."""
        return np.concatenate([getattr(self, f.name) for f in fields(self)])


@dataclass(frozen=True)
class MeshImage:
    """One rendered frame."""

    rgb: Float[np.ndarray, "H W 3"]  # display values 0..1, premultiplied by alpha
    alpha: Float[np.ndarray, "H W"]
    depth: Float[np.ndarray, "H W"]  # camera z of the nearest sample, 0 where nothing is
    region: UInt8[np.ndarray, "H W"]  # index into REGIONS


def render_mesh(
    vertices: Float[np.ndarray, "V 3"],
    faces: Int[np.ndarray, "F 3"],
    surface: Surface,
    face_regions: UInt8[np.ndarray, " F"],
    viewmat: Float[np.ndarray, "4 4"],
    K: Float[np.ndarray, "3 3"],
    width: int,
    height: int,
    light: Light,
    supersample: int = 3,
) -> MeshImage:
    """Renders one posed mesh. Depth and coverage are those of supersample² samples per pixel."""
    s = supersample
    camera = vertices @ viewmat[:3, :3].T + viewmat[:3, 3]
    inverse = np.where(camera[:, 2] > 1e-3, 1 / np.maximum(camera[:, 2], 1e-3), 0)
    pixels = (camera * inverse[:, None]) @ (K * np.array([[s], [s], [1.0]])).T
    screen = np.ascontiguousarray(np.concatenate([pixels[:, :2], inverse[:, None]], 1))
    zbuffer = np.zeros((height * s, width * s))  # 1 / z: linear on screen, larger is nearer
    face = np.full((height * s, width * s), -1, np.int32)
    faces = np.ascontiguousarray(faces, np.int32)
    rasterize(screen, faces, zbuffer, face)
    eye = -viewmat[:3, :3].T @ viewmat[:3, 3]
    toward = eye - vertices
    toward /= np.linalg.norm(toward, axis=1, keepdims=True)
    color = _shade(surface, toward, light)
    rgb, nearest = np.zeros((height, width, 3)), np.zeros((height, width))
    votes = np.zeros((height, width, len(REGIONS)), np.int32)
    _resolve(screen, faces, face, zbuffer, color, np.ascontiguousarray(face_regions), s, rgb, nearest, votes)
    return MeshImage(
        rgb=(rgb / s**2).astype(np.float32),
        alpha=(votes.sum(-1) / s**2).astype(np.float32),
        depth=np.where(nearest > 0, 1 / np.maximum(nearest, 1e-9), 0).astype(np.float32),
        region=votes.argmax(-1).astype(np.uint8),
    )


def _shade(surface: Surface, toward: np.ndarray, light: Light) -> np.ndarray:
    """Display colour per vertex: wrapped diffuse, Blinn-Phong highlight, tone curve and sRGB encoding."""
    n = surface.normals
    n = n * np.where((n * toward).sum(1, keepdims=True) < 0, -1.0, 1.0)
    wrap = lambda direction: np.clip((n @ direction + 0.25) / 1.25, 0, None)[:, None]  # noqa: E731
    up = (0.5 + 0.5 * n[:, 1:2]) * light.sky + (0.5 - 0.5 * n[:, 1:2]) * light.ground
    diffuse = surface.albedo * (up + wrap(light.key) * light.key_color + wrap(light.fill) * light.fill_color)
    half = toward + light.key
    half /= np.linalg.norm(half, axis=1, keepdims=True)
    shine = np.clip((n * half).sum(1), 0, None) ** 24 * surface.specular
    linear = diffuse + shine[:, None] * light.key_color
    linear = linear * (1 + linear / 4) / (1 + linear)  # rolls highlights off
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055).clip(
        0, 1
    )


@numba.njit(cache=True)
def rasterize(screen, faces, zbuffer, face):
    """Draws into zbuffer [H,W] (zeros) and face [H,W]. screen [V,3]: x, y in samples and 1/z (0 behind the camera)."""
    height, width = zbuffer.shape
    for t in range(len(faces)):
        i, j, k = faces[t]
        x0, y0, w0 = screen[i, 0], screen[i, 1], screen[i, 2]
        x1, y1, w1 = screen[j, 0], screen[j, 1], screen[j, 2]
        x2, y2, w2 = screen[k, 0], screen[k, 1], screen[k, 2]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if area == 0 or w0 == 0 or w1 == 0 or w2 == 0:
            continue
        left, right = max(0, math.ceil(min(x0, x1, x2) - 0.5)), min(width - 1, math.floor(max(x0, x1, x2) - 0.5))
        top, bottom = max(0, math.ceil(min(y0, y1, y2) - 0.5)), min(height - 1, math.floor(max(y0, y1, y2) - 0.5))
        for y in range(top, bottom + 1):
            for x in range(left, right + 1):
                px, py = x + 0.5, y + 0.5
                a = ((x1 - px) * (y2 - py) - (x2 - px) * (y1 - py)) / area
                b = ((x2 - px) * (y0 - py) - (x0 - px) * (y2 - py)) / area
                if a < 0 or b < 0 or a + b > 1:
                    continue
                z = a * w0 + b * w1 + (1 - a - b) * w2
                if z > zbuffer[y, x]:
                    zbuffer[y, x], face[y, x] = z, t


@numba.njit(cache=True)
def _resolve(screen, faces, face, zbuffer, color, face_regions, s, rgb, nearest, votes):
    """Adds the perspective-correct colours of the visible samples up per pixel of s × s samples."""
    height, width = face.shape
    for y in range(height):
        for x in range(width):
            t = face[y, x]
            if t < 0:
                continue
            i, j, k = faces[t]
            x0, y0, x1, y1, x2, y2 = screen[i, 0], screen[i, 1], screen[j, 0], screen[j, 1], screen[k, 0], screen[k, 1]
            area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
            px, py = x + 0.5, y + 0.5
            u = ((x1 - px) * (y2 - py) - (x2 - px) * (y1 - py)) / area
            v = ((x2 - px) * (y0 - py) - (x0 - px) * (y2 - py)) / area
            a, b, c = u * screen[i, 2], v * screen[j, 2], (1 - u - v) * screen[k, 2]
            total = a + b + c
            for n in range(3):
                rgb[y // s, x // s, n] += (a * color[i, n] + b * color[j, n] + c * color[k, n]) / total
            nearest[y // s, x // s] = max(nearest[y // s, x // s], zbuffer[y, x])
            votes[y // s, x // s, face_regions[t]] += 1
