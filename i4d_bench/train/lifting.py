"""The lifting network: other views of a picture, from a frozen backbone that was trained on true views (PAPER §1, LP3D's part)."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from i4d_bench.config.experiment import Model
from i4d_bench.data.people import orbit
from i4d_bench.data.splits import SIDE_VIEW, rng
from i4d_bench.loader import Targets
from i4d_bench.model.avatar import Backbone
from i4d_bench.render import render
from i4d_bench.train.lessons import both
from i4d_bench.types import Camera, Gaussians, as_grid, placed

AT_ONCE = 16
"""Pictures that are lifted together: a step's people are taken in parts after their truth is made."""


class Lifter:
    """A backbone that lifts pictures and shows them from other sides. landmarks: whether theirs are wanted there, else they are
    NaN."""

    def __init__(self, backbone: Backbone, landmarks: bool = True):
        self.backbone, self.landmarks = backbone.eval().requires_grad_(False), landmarks

    @classmethod
    def load(cls, path: Path, model: Model, device: torch.device, landmarks: bool = True) -> Lifter:
        """The network of a checkpoint."""
        backbone = Backbone(model).to(device)
        backbone.load_state_dict(torch.load(path, map_location=device)["backbone"])
        return cls(backbone, landmarks)

    def views(self, pictures: Targets, size: int, keys: list[tuple]) -> Targets:
        """The pictures, each from a side that its key alone decides, within training's angles."""
        cameras = [tuple(orbit(rng("lifted", *key), SIDE_VIEW, size)) for key in keys]
        camera = stacked(cameras, size, pictures.rgb.device)
        some = [slice(i, i + AT_ONCE) for i in range(0, len(keys), AT_ONCE)]
        parts = [self.seen(pictures.map(lambda t, at=at: t[at]), camera[at]) for at in some]
        return functools.reduce(lambda a, b: both(lambda x, y: torch.cat([x, y]), a, b), parts)

    @torch.no_grad()
    def seen(self, pictures: Targets, camera: Camera) -> Targets:
        """What the pictures (of the backbone's own size) show, seen by these cameras; eyes and mouth are where their paint comes to
        lie."""
        images = self.backbone.surface.rectify(pictures.photo, pictures.camera)
        gaussians = self.backbone.lift(images).canonical
        image = render(gaussians, camera, None, depth=False)
        painted = dataclasses.replace(
            gaussians, colors=_read(pictures.regions[..., None].float(), gaussians, pictures.camera)
        )
        regions = render(painted, camera, None, depth=False).rgb[..., 0] > 0.5
        moved = _moved if self.landmarks else lambda *_: torch.full_like(pictures.landmarks, torch.nan)
        return Targets(image.rgb, image.alpha, regions, camera, moved(pictures, gaussians, camera))


def _moved(pictures: Targets, gaussians: Gaussians, camera: Camera) -> Float[Tensor, "B 68 2"]:
    """Landmarks, through the surface that the pictures' own cameras see."""
    own = render(gaussians, pictures.camera, None, depth=True)
    assert own.depth is not None
    at = as_grid(pictures.landmarks, own.depth.shape[2], own.depth.shape[1])
    surface = torch.cat([own.depth, own.alpha], -1).movedim(-1, 1)
    read = F.grid_sample(surface, at.nan_to_num()[:, None], padding_mode="border", align_corners=False)[:, :, 0]
    z = read[:, 0] / read[:, 1].clamp_min(1e-3)
    rays = F.pad(pictures.landmarks, (0, 1), value=1.0) @ torch.linalg.inv(pictures.camera.Ks).mT
    world = torch.linalg.inv(pictures.camera.viewmats)
    points = (rays * z[..., None]) @ world[:, :3, :3].mT + world[:, None, :3, 3]
    return camera.project(points)


def _read(images: Float[Tensor, "B H W 1"], gaussians: Gaussians, camera: Camera) -> Float[Tensor, "B N 3"]:
    """What the images show where the camera sees each Gaussian's middle."""
    at = as_grid(camera.project(gaussians.means), camera.width, camera.height)
    read = F.grid_sample(images.movedim(-1, 1), at[:, None], align_corners=False)[:, :, 0]
    return read.movedim(1, -1).expand(-1, -1, 3)


def stacked(cameras: list[tuple], size: int, device: torch.device) -> Camera:
    """Many (viewmat, K) as one camera."""
    views, Ks = (placed(np.stack(m).astype(np.float32), device) for m in zip(*cameras, strict=True))
    return Camera(views, Ks, size, size)
