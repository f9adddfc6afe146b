"""Metric cards (DESIGN §5): what a column means, as data that tables print beside the numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Card:
    """One metric.

    higher_is_better: None where neither direction is good (sizes that are context, not quality).
    network: the network that measures, with its version; "" where there is none.
    worst: the declared score of a sample on which measuring failed (NaN in the rows); None where there is none, as where nothing of
        the region is seen.
    """

    name: str
    label: str
    higher_is_better: bool | None
    unit: str
    definition: str
    network: str = ""
    worst: float | None = None

    @property
    def arrow(self) -> str:
        return {True: "↑", False: "↓", None: ""}[self.higher_is_better]

    @property
    def head(self) -> str:
        """Of a column or panel: what is measured, in which unit, and which way is good."""
        return f"{self.label}{f' ({self.unit})' * bool(self.unit)} {self.arrow}".strip()

    @property
    def failed(self) -> str:
        """What becomes of a sample on which measuring failed."""
        return "left out" if self.worst is None else "counted at the worst value"


_LPIPS = (
    "learned perceptual distance of whole frames on the same background, inputs in [-1,1] (converted from [0,1]), "
    "0 = equal; values at different resolutions do not compare"
)
_CSIM = (
    "cosine of face-recognition embeddings of aligned crops, -1..1, with the true frame, or where nobody knows it with the source; "
    "crops of small images are enlarged; read it beside what the source photo and other people score (a network that scores these "
    "alike is left out)"
)
_CROP = (
    "learned perceptual distance of squares around the true region, enlarged to 64²; empty where the region is hidden"
)
_LEAK = "mean 1 − cosine of the identity embeddings of one avatar under different expressions, near frontal views"
_CARDS = [
    Card("psnr", "PSNR", True, "dB", "10·log10(1/MSE) of RGB in [0,1] inside the head mask; equal images score 100"),
    Card("ssim", "SSIM", True, "",
         "11×11 Gaussian (σ 1.5) SSIM map of RGB in [0,1] (torchmetrics), mean in the head mask"),
    Card("l1_eyes", "L1 eyes", False, "", "mean absolute RGB difference, 0..1, in the true eye region"),
    Card("l1_mouth", "L1 mouth", False, "", "mean absolute RGB difference, 0..1, in the true mouth region"),
    Card("lpips_eyes", "LPIPS eyes", False, "", _CROP, "LPIPS 0.1, AlexNet (torchvision IMAGENET1K_V1)"),
    Card("lpips_mouth", "LPIPS mouth", False, "", _CROP, "LPIPS 0.1, AlexNet (torchvision IMAGENET1K_V1)"),
    Card("floaters", "floaters", False, "%", "pixels farther than 3 % of the side from the true head that are not the plain "
         "background's, in percent of the head's"),
    Card("lpips_alex", "LPIPS (alex)", False, "", _LPIPS, "LPIPS 0.1, AlexNet (torchvision IMAGENET1K_V1)"),
    Card("lpips_vgg", "LPIPS (vgg)", False, "", _LPIPS, "LPIPS 0.1, VGG16 (torchvision IMAGENET1K_V1)"),
    Card("csim_dlib", "CSIM (dlib)", True, "", _CSIM, "dlib_face_recognition_resnet_model_v1, 150² crops", 0.0),
    Card("csim_mobileface", "CSIM (MobileFace)", True, "", _CSIM, "MobileFace_Identification_V2, 112² crops", 0.0),
    Card("aed_true", "AED (reader)", False, "",
         "RMS difference between 52 ARKit-named coefficients, 0..1, read off the frame and the world's true ones; "
         "read it beside what true frames and always the mean expression score", "CNN trained on the world's own truth", 1.0),
    Card("aed_mp52", "AED (MediaPipe)", False, "",
         "RMS difference between 52 blendshapes, 0..1, of the frame and of the true frame, by the same reader",
         "MediaPipe Face Landmarker", 1.0),
    Card("apd", "APD", False, "°",
         "RMS over the three components of the rotation vector between head poses (geodesic angle / √3)", "",
         180 / math.sqrt(3)),
    Card("akd", "AKD", False, "px", "mean distance of 68 landmarks in pixels of a 256² image", "", 64.0),
    Card("akd_iod", "AKD / IOD", False, "", "mean distance of 68 landmarks over the true inter-ocular distance "
         "(outer corners; shrinks with yaw)", "", 1.0),
    Card("gap", "driving gap", True, "dB",
         "PSNR in eyes and mouth with the driving code minus the same model's with the source's own code"),
    Card("onset", "onset", False, "steps",
         "training step of the validation from which the gap stays above 0.5 dB; empty: it does not"),
    Card("onset_seconds", "onset", False, "s", "training time until the validation gap first passes 0.5 dB"),
    Card("reprojection", "reprojection", False, "",
         "mean absolute RGB difference between a rendered view and another warped into it by the true depth, "
         "where both see the same surface; the truth's own value (shading) is its floor"),
    Card("leak_dlib", "identity leak (dlib)", False, "", _LEAK, "as CSIM (dlib)", 1.0),
    Card("leak_mobileface", "identity leak (MobileFace)", False, "", _LEAK, "as CSIM (MobileFace)", 1.0),
    Card("leak_driver", "driver leak", False, "",
         "mean absolute RGB change in the head mask when another person makes the same expression"),
    Card("fps", "FPS", True, "1/s", "whole frames per second at the paper's size, of the speed report named under the table; "
         "FLAME designs with a tracker"),
    Card("ms", "frame", False, "ms", "median time of a whole frame, batch 1"),
    Card("params", "parameters", None, "M", "parameters of the fusion design alone"),
    Card("memory", "memory", False, "MiB", "peak memory while animating, batch 1"),
    Card("flops", "FLOPs", False, "G", "floating-point operations per frame, two per multiply-add"),
]  # fmt: skip

CARDS: dict[str, Card] = {card.name: card for card in _CARDS}

OF_RUNS = ("onset", "onset_seconds", "fps", "ms", "params", "memory", "flops")
"""Cards of what a run has once; the others are of every sample."""
