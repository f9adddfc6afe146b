"""Simple drawings of faces with known coefficients, landmarks and yaw: a data set that needs no renderer."""

import numpy as np

from i4d_bench.data import frames as frames_io

OPEN, SMILE, BLINK_LEFT, BLINK_RIGHT = 24, 43, 8, 9  # coefficients that the drawing shows; the others stay 0


def cartoon_frames(path, people=30, each=12, side=32, seed=0):
    rng = np.random.default_rng(seed)
    n = people * each
    identity = np.repeat(np.arange(people), each)
    coefficients = np.zeros((n, 52), np.float32)
    coefficients[:, [OPEN, SMILE, BLINK_LEFT, BLINK_RIGHT]] = rng.random((n, 4))
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

    angle = np.linspace(0, 2 * np.pi, 68 // 4, endpoint=False)
    rings = [(0.5, 0.5, width, 0.45), (0.5 + shift, 0.72, *mouth), *eyes]
    landmarks = np.stack([np.stack([np.stack(np.broadcast_arrays(cx + rx * np.cos(a), cy + ry * np.sin(a)), -1)
                                    for a in angle], 1) for cx, cy, rx, ry in rings], 1).reshape(n, 68, 2)  # fmt: skip
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
