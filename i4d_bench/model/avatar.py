"""The assembly: backbone (encoder, Φ, sampling) lifts an image to an `Identity`; a fusion design animates it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from i4d_bench.config.experiment import Model
from i4d_bench.model.decoder import Decode, Decoder
from i4d_bench.model.encoder import Encoder
from i4d_bench.model.sampling import SAMPLINGS, PlaneSampling, RaySampling
from i4d_bench.model.surface import HeadSurface
from i4d_bench.types import FEATURE_DIM, Gaussians, Identity, MotionCode, ParametricHead, UserError
from variants import Fusion


class Backbone(nn.Module):
    """What every design shares. `grid` (texels or rays per side) may grow during training; no weight depends on it."""

    def __init__(self, config: Model):
        """Raises UserError for planes that do not divide the size."""
        super().__init__()
        if config.planes is not None and (config.planes < 1 or config.size % config.planes):
            raise UserError(f"model.planes={config.planes} does not divide model.size={config.size}")
        self.config = config
        self.encoder = Encoder(
            config.size, FEATURE_DIM + config.motion_basis, config.stem, config.widths, config.blocks
        )
        self.decoder, self.surface = Decoder(config.output_scale), HeadSurface()
        self._copy_colors()

    @torch.no_grad()
    def _copy_colors(self) -> None:
        """Start as the source image painted on the sampled sheet: f carries RGB, Φ passes it on (softplus(x) − softplus(−x)
        = x), and the sigmoid of 2 · (2 c − 1) is about c. An initialisation alone; every weight is trained."""
        planes = self.encoder.head.weight.unflatten(0, (3, -1))
        rgb = torch.eye(3, device=planes.device)
        planes[:, :3] = 0
        planes[:, :3, self.encoder.rgb] = rgb
        self.encoder.head.bias.unflatten(0, (3, -1))[:, :3] = 0
        hidden, out = self.decoder.layer1, self.decoder.layer2
        hidden.weight[:6], hidden.bias[:6] = 0, 0
        hidden.weight[:3, :3], hidden.weight[3:6, :3] = rgb, -rgb
        out.weight[-3:] = 0
        out.weight[-3:, :3], out.weight[-3:, 3:6] = 2 * rgb, -2 * rgb
        out.bias.copy_(-out.weight @ F.softplus(hidden.bias))  # f = 0 is the prior

    def texels(self, sampling: PlaneSampling | RaySampling) -> int:
        """Per side of the planes: what the sampling needs, or the most that there may be."""
        size = self.config.size
        return min(sampling.resolution(size), self.config.planes or size)

    def lift(
        self, images: Float[Tensor, "B 3 S S"], grid: int | None = None, head: ParametricHead | None = None
    ) -> Identity:
        """One image per person → the canonical avatar and everything a design may read."""
        sampling = SAMPLINGS[self.config.sampling](grid or self.config.grid, self.config.focus)
        with torch.autocast("cuda", torch.bfloat16, enabled=self.config.bf16 and images.is_cuda):
            planes = self.encoder(images, self.texels(sampling))
        anchors, prior, places = sampling(planes, self.decoder, self.surface)
        f, m = places.features(planes, slice(FEATURE_DIM), slice(FEATURE_DIM, None))
        decode = Decode(self.decoder.phi, prior, f)
        return Identity(planes, f, m, anchors, self.decoder(f, prior), decode, places.read, head)


class Avatar(nn.Module):
    """Backbone + fusion design."""

    def __init__(self, backbone: Backbone, fusion: Fusion):
        super().__init__()
        self.backbone, self.fusion = backbone, fusion

    def forward(
        self,
        images: Float[Tensor, "B 3 S S"],
        source: MotionCode,
        driving: MotionCode,
        grid: int | None = None,
        head: ParametricHead | None = None,
    ) -> Gaussians:
        """Animates each image with its k driving frames ([B·k], identity-major): the whole path, as in training."""
        identity = self.backbone.lift(images, grid, head)
        return self.fusion.animate(self.fusion.prepare(identity, source), driving)
