"""What designs on FLAME coefficients need before each frame of a video: a face tracker."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from i4d_bench.camera import look_at
from i4d_bench.data.video.landmarker import Landmarker
from i4d_bench.heads import expressions
from i4d_bench.heads.flame import FlameModel
from i4d_bench.heads.worlds import head_world
from i4d_bench.render import mesh
from i4d_bench.types import FlameCode


def tracked_pictures(count: int, size: int = 512) -> list[np.ndarray]:
    """People of the embedded world as uint8 RGB [size,size,3], in whom MediaPipe finds a face."""
    head, out = head_world("procedural"), []
    for seed in range(count):
        identity, light = head.identity(seed), mesh.Light.sample(np.random.default_rng(seed))
        expression = expressions.sample(np.random.default_rng([seed, 1]), "train")
        vertices = head.vertices(identity, expression)
        view, K = look_at(0, 3, size)
        surface = head.surface(identity, expression, vertices)
        image = mesh.render_mesh(vertices, head.faces, surface, head.face_regions, view, K, size, size, light)
        over_grey = image.rgb + 0.5 * (1 - image.alpha[..., None])
        out.append(np.rint(over_grey.clip(0, 1) * 255).astype(np.uint8))
    return out


def tracker(landmarker: Landmarker, head: FlameModel) -> Callable[[np.ndarray], FlameCode]:
    """What puts a photo's expression into a head's coefficients: MediaPipe's 52 blendshapes, on the CPU, and the head's own map of
    them; average shape. Raises RuntimeError where no face is found."""

    def track(picture: np.ndarray) -> FlameCode:
        face = landmarker(picture)
        if face is None:
            raise RuntimeError("the tracker found no face")
        shown = torch.from_numpy(face.blendshapes).to(head.weights.device)[None]
        return FlameCode(shown.new_zeros(1, head.n_shape), *head.arkit(shown))

    return track
