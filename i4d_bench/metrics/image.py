"""Image quality (DESIGN §5): PSNR, SSIM, region L1 and LPIPS. Images are RGB [B,H,W,3] in 0..1."""

from __future__ import annotations

import functools
import warnings
from importlib.resources import files

import lpips
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure

from i4d_bench.metrics.base import SampleMetric
from i4d_bench.metrics.cards import CARDS
from i4d_bench.metrics.weights import lpips_backbone
from i4d_bench.types import as_grid

PSNR_MAX = 100.0
"""Score of equal images in dB, so that means stay finite."""

LPIPS_MIN_SIDE = {"alex": 32, "vgg": 16}
"""Smaller images have no deepest feature. Below 64 it is 3×3 or less (alex) and distances say little."""

CROP = 64
"""Side of the crops of eyes and mouth that LPIPS sees."""
FLOATS_BEYOND, FLOATS_BY = 0.03, 0.05
_TOLERANCE = 1e-5  # rounding of a clamped image, no more

Mask = Bool[Tensor, "B H W"] | Float[Tensor, "B H W"]
"""Where a mean is taken, or its weights."""


def check_images(*images: Float[Tensor, "B H W 3"]) -> None:
    """Raises ValueError unless all have one shape, finite values and range 0..1 (clamp renders before scoring)."""
    shape = images[0].shape
    for x in images:
        if x.ndim != 4 or x.shape[-1] != 3 or x.shape != shape:
            shapes = ", ".join(str(tuple(i.shape)) for i in images)
            raise ValueError(f"expected images of one shape [B,H,W,3], got {shapes}")
        if not x.is_floating_point():
            raise ValueError(f"expected a floating-point image in 0..1, got {x.dtype}")
        low, high = (float(v) for v in x.detach().aminmax())
        if not (low >= -_TOLERANCE and high <= 1 + _TOLERANCE):  # NaN fails every comparison
            raise ValueError(f"expected an image in 0..1, got {low:.4g}..{high:.4g}")


def _masked_mean(values: Float[Tensor, "B H W"], mask: Mask | None) -> Float[Tensor, " B"]:
    """Mean weighted by the mask; NaN for an empty one."""
    if mask is None:
        return values.mean((1, 2))
    if mask.shape != values.shape:
        raise ValueError(f"expected a mask {tuple(values.shape)}, got {tuple(mask.shape)}")
    mask = mask.to(values.dtype)
    return (values * mask).sum((1, 2)) / mask.sum((1, 2))


def psnr(
    pred: Float[Tensor, "B H W 3"], target: Float[Tensor, "B H W 3"], mask: Mask | None = None
) -> Float[Tensor, " B"]:
    """dB per sample [B], at most PSNR_MAX; NaN for an empty mask. Raises ValueError out of range."""
    check_images(pred, target)
    mse = _masked_mean((pred - target).square().mean(-1), mask)
    return -10 * torch.log10(mse.clamp_min(10 ** (-PSNR_MAX / 10)))


def ssim(
    pred: Float[Tensor, "B H W 3"], target: Float[Tensor, "B H W 3"], mask: Mask | None = None
) -> Float[Tensor, " B"]:
    """Mean of the SSIM map inside the mask, per sample [B]; NaN for an empty mask. Raises ValueError out of range."""
    check_images(pred, target)
    a, b = (x.movedim(-1, 1).contiguous() for x in (pred, target))
    _, full = structural_similarity_index_measure(a, b, data_range=1.0, return_full_image=True)
    return _masked_mean(full.mean(1), mask)


def region_l1(pred: Float[Tensor, "B H W 3"], target: Float[Tensor, "B H W 3"], region: Mask) -> Float[Tensor, " B"]:
    """Mean absolute difference per sample [B] in a region; NaN where the region is empty (a mouth turned away)."""
    check_images(pred, target)
    return _masked_mean((pred - target).abs().mean(-1), region)


def region_crops(
    images: Float[Tensor, "B H W 3"], region: Bool[Tensor, "B H W"], size: int = CROP, margin: float = 0.25
) -> Float[Tensor, "B size size 3"]:
    """Squares around a region's box, wider than its longer side by `margin` on every side, bilinear; NaN where it is empty.

    Outside of the image is black: crop what is compared alike.
    """
    h, w = region.shape[1:]
    boxes = []
    for length, seen in ((w, region.any(1)), (h, region.any(2))):
        at = torch.arange(length, device=region.device)
        low, high = torch.where(seen, at, length).amin(1), torch.where(seen, at + 1, 0).amax(1)
        boxes.append(torch.stack([low, high], -1).to(images.dtype))
    low, high = torch.stack(boxes, -1).unbind(1)  # [B,2] as x, y
    half = (high - low).amax(-1, keepdim=True) * (0.5 + margin)
    t = (torch.arange(size, device=images.device, dtype=images.dtype) + 0.5) / size * 2 - 1
    steps = torch.stack(torch.meshgrid(t, t, indexing="xy"), -1)
    pixels = ((low + high) / 2)[:, None, None] + half[:, None, None] * steps
    crops = F.grid_sample(images.movedim(-1, 1), as_grid(pixels, w, h), align_corners=False).movedim(1, -1)
    return torch.where(region.flatten(1).any(1)[:, None, None, None], crops, torch.nan)


def floaters(pred: Float[Tensor, "B H W 3"], mask: Mask, background: float) -> Float[Tensor, " B"]:
    """How much is seen where nothing should be: pixels beyond FLOATS_BEYOND of the side from the head mask that differ from the
    plain background by more than FLOATS_BY in any channel, in percent of the mask's; NaN for an empty mask."""
    near = 2 * round(FLOATS_BEYOND * pred.shape[1]) + 1
    head = mask.to(pred.dtype)
    outside = F.max_pool2d(head[:, None], near, 1, near // 2)[:, 0] == 0
    seen = (pred - background).abs().amax(-1) > FLOATS_BY
    area = head.flatten(1).sum(1)
    return torch.where(area > 0, 100 * (seen & outside).flatten(1).sum(1) / area, torch.nan)


class Lpips(nn.Module):
    """The official LPIPS network with frozen weights: perceptual distance of images in 0..1, differentiable.

    Serves as training loss (`check=False` spares the range check, which waits for the GPU) and as metric.
    """

    def __init__(self, net: str = "alex"):
        """net: "alex" or "vgg". Raises WeightsUnavailable when the backbone's weights cannot be had."""
        super().__init__()
        self.net = net
        backbone = {k: torch.from_numpy(v) for k, v in lpips_backbone(net).items()}
        self.network = bare_lpips(net)
        heads = lpips_heads(net)
        scaling = lpips.ScalingLayer().state_dict(prefix="scaling_layer.")
        aliases = {k.replace("lin", "lins.", 1): v for k, v in heads.items()}
        self.network.load_state_dict(backbone | heads | aliases | scaling, assign=True)
        self.network.eval().requires_grad_(False)

    def forward(
        self, pred: Float[Tensor, "B H W 3"], target: Float[Tensor, "B H W 3"], check: bool = True
    ) -> Float[Tensor, " B"]:
        """Distance per sample [B]. Raises ValueError when checked images are out of range, and for too small ones."""
        if check:
            check_images(pred, target)
        if min(pred.shape[1:3]) < LPIPS_MIN_SIDE[self.net]:
            raise ValueError(f"LPIPS ({self.net}) needs images of {LPIPS_MIN_SIDE[self.net]}² at least, "
                             f"got {tuple(pred.shape[1:3])}")  # fmt: skip
        pred, target = (2 * x.movedim(-1, 1) - 1 for x in (pred, target))
        return self.network(pred, target).flatten()


def bare_lpips(net: str) -> lpips.LPIPS:
    """The network on the meta device: no 138 M random numbers, which would also disturb the caller's generator."""
    with torch.device("meta"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="torchvision")  # lpips' old-style call
        return lpips.LPIPS(net=net, pretrained=False, pnet_rand=True, verbose=False)


def lpips_heads(net: str) -> dict[str, Tensor]:
    """The linear heads (LPIPS 0.1) that the lpips package brings."""
    with (files("lpips") / "weights" / "v0.1" / f"{net}.pth").open("rb") as f:
        return torch.load(f, map_location="cpu", weights_only=True)


@functools.cache
def load_lpips(net: str, device: str | torch.device = "cpu") -> Lpips:
    """The network, once per process and device."""
    return Lpips(net).to(device)


@torch.no_grad()
def lpips_distance(
    pred: Float[Tensor, "B H W 3"], target: Float[Tensor, "B H W 3"], net: str = "alex"
) -> Float[Tensor, " B"]:
    """LPIPS per sample [B]. Raises ValueError out of range, WeightsUnavailable without weights."""
    return load_lpips(net, pred.device)(pred, target)


class Psnr(SampleMetric):
    name = "psnr"

    def score(self, pred, target, mask=None):
        return psnr(pred, target, mask)


class Ssim(SampleMetric):
    name = "ssim"

    def score(self, pred, target, mask=None):
        return ssim(pred, target, mask)


class RegionL1(SampleMetric):
    def __init__(self, region: str, **kwargs):
        """region: "eyes" or "mouth"."""
        self.name = f"l1_{region}"
        if self.name not in CARDS:
            raise ValueError(f"there is no region {region!r}; there are eyes and mouth")
        super().__init__(**kwargs)

    def score(self, pred, target, region):
        return region_l1(pred, target, region)


class LpipsMetric(SampleMetric):
    def __init__(self, net: str = "alex", **kwargs):
        self.name = f"lpips_{net}"
        super().__init__(**kwargs)
        self.net = net

    def score(self, pred, target):
        return lpips_distance(pred, target, self.net)
