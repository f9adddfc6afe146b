"""Simple drawings of faces with known coefficients, iBUG landmarks and yaw: a data set that needs no renderer."""

import numpy as np

from i4d_bench.data import frames as frames_io

OPEN, SMILE, SMILE_RIGHT, BLINK_LEFT, BLINK_RIGHT = 24, 43, 44, 8, 9
"""Coefficients that the drawing shows (it smiles with both sides); the others stay 0."""


def cartoon_frames(path, people=30, each=12, side=32, seed=0):
    rng = np.random.default_rng(seed)
    n = people * each
    identity = np.repeat(np.arange(people), each)
    coefficients = np.zeros((n, 52), np.float32)
    coefficients[:, [OPEN, SMILE, BLINK_LEFT, BLINK_RIGHT]] = rng.random((n, 4))
    coefficients[:, SMILE_RIGHT] = coefficients[:, SMILE]
    yaw = rng.uniform(-0.6, 0.6, n)
    skin, lips = rng.uniform(0.5, 0.9, (people, 3))[identity], rng.uniform(0.1, 0.4, (people, 3))[identity]
    width = rng.uniform(0.3, 0.36, people)[identity]
    g = (np.arange(side) + 0.5) / side
    x, y = np.meshgrid(g, g)
    shift = 0.2 * np.sin(yaw)

    def disc(cx, cy, rx, ry):
        cx, cy, rx, ry = (np.broadcast_to(v, n)[:, None, None] for v in (cx, cy, rx, ry))
        distance = np.sqrt(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2)
        return np.clip((1 - distance) * np.minimum(rx, ry) * side + 0.5, 0, 1)[..., None]

    def paint(image, shape, colour):
        return image * (1 - shape) + shape * np.broadcast_to(colour, (n, 3))[:, None, None]

    c = coefficients
    mouth = 0.1 + 0.05 * c[:, SMILE], 0.02 + 0.1 * c[:, OPEN]
    sides = (-1, BLINK_RIGHT), (1, BLINK_LEFT)
    eyes = [(0.5 + shift + s * 0.14, 0.42, 0.07, 0.07 - 0.055 * c[:, blink]) for s, blink in sides]
    head = disc(0.5, 0.5, width, 0.45)
    rgb = paint(paint(np.zeros((n, side, side, 3)), head, skin), disc(0.5 + shift, 0.72, *mouth), lips)
    for eye in eyes:
        rgb = paint(rgb, disc(*eye), 0.05)

    def ring(shape, start, turn, count):
        """Points on an ellipse; angles in turns, 0 to the right, 0.25 down."""
        cx, cy, rx, ry = (np.broadcast_to(v, n)[:, None] for v in shape)
        angle = 2 * np.pi * (start + turn * np.arange(count) / count)
        return np.stack([cx + rx * np.cos(angle), cy + ry * np.sin(angle)], -1)

    def line(x0, y0, x1, y1, count):
        ends = [np.stack(np.broadcast_arrays(px, np.full(n, py)), -1) for px, py in ((x0, y0), (x1, y1))]
        return np.linspace(*ends, count, axis=1)

    middle, inner = 0.5 + shift, (0.5 + shift, 0.72, 0.9 * mouth[0], 0.8 * mouth[1])
    landmarks = np.concatenate([
        ring((0.5, 0.5, width, 0.45), 0.5, -0.53, 17),
        line(middle - 0.22, 0.3, middle - 0.06, 0.3, 5), line(middle + 0.06, 0.3, middle + 0.22, 0.3, 5),
        line(middle, 0.4, middle, 0.55, 4), line(middle - 0.05, 0.58, middle + 0.05, 0.58, 5),
        ring(eyes[0], 0.5, 1, 6), ring(eyes[1], 0.5, 1, 6), ring((0.5 + shift, 0.72, *mouth), 0.5, 1, 12),
        ring(inner, 0.5, 1, 8)], 1)  # fmt: skip
    viewmats = np.tile(np.eye(4, dtype=np.float32), (n, 1, 1))
    viewmats[:, 0, 0] = viewmats[:, 2, 2] = np.cos(yaw)
    viewmats[:, 0, 2], viewmats[:, 2, 0] = np.sin(yaw), -np.sin(yaw)
    arrays = {
        "rgb": (rgb * 255).round().astype(np.uint8),
        "alpha": (head[..., 0] * 255).round().astype(np.uint8),
        "region": (head[..., 0] > 0.5).astype(np.uint8),
        "viewmats": viewmats,
        "Ks": np.tile(np.eye(3, dtype=np.float32), (n, 1, 1)),
        "identity": identity.astype(np.int32),
        "expression": np.arange(n, dtype=np.int32),
        "coefficients": coefficients,
        "landmarks": (landmarks * side).astype(np.float32),
    }
    return frames_io.open_frames(frames_io.write(path, arrays, {"kind": "cartoon", "source": "drawings"}))
