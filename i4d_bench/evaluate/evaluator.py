"""Scores a trained avatar on the test sets: one row per sample and metric (the cards are in `i4d_bench.metrics`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from i4d_bench.data.splits import EVERY_SET, NO_TRUTH, UNSEEN, Triples, other_view, own_expressions, triples
from i4d_bench.heads.base import REGIONS
from i4d_bench.loader import Loader
from i4d_bench.metrics import consistency, expression, identity, image
from i4d_bench.metrics.expression import Reader, VideoReader
from i4d_bench.metrics.identity import Embedder
from i4d_bench.metrics.image import Lpips
from i4d_bench.model.avatar import Avatar
from i4d_bench.render.views import GREY, on_grey
from i4d_bench.types import ParametricHead
from variants import Prepared

PREDICTED = ("self", "cross")
"""Sets whose pictures are kept, so that others can score them again (`jobs.submission`); of people seen and unseen."""
GRID_SAMPLES = 8
"""Samples, spread over the cross set (of unseen people where there are some), that are kept as images for the qualitative grid."""


@dataclass
class Scores:
    """Rows {set, sample, identity, driver, metric, value, ok}, where identity and driver are people's numbers; images [K,H,W,3]
    uint8 for the qualitative grid, with the truth's regions [K,H,W] (index into REGIONS); and by set the pictures [T,H,W,3] uint8
    of all its samples."""

    rows: list[dict] = field(default_factory=list)
    images: dict[str, np.ndarray] = field(default_factory=dict)
    predictions: dict[str, np.ndarray] = field(default_factory=dict)

    def add(
        self, set_: str, part: Triples, offset: int, people: np.ndarray, values: Mapping[str, Tensor | np.ndarray]
    ) -> None:
        for metric, column in values.items():
            for k, value in enumerate(np.asarray(torch.as_tensor(column).cpu(), float)):
                who = {"identity": int(people[part.source[k]]), "driver": int(people[part.driving[k]])}
                found = {"metric": metric, "value": float(value), "ok": bool(np.isfinite(value))}
                self.rows.append({"set": set_, "sample": offset + k, **who, **found})


@dataclass
class Evaluator:
    """Metric networks loaded once, used for every design of an experiment.

    reader: expression reader trained on the world's truth (None on real video).
    embedders: face-recognition networks by name. lpips: LPIPS modules by net.
    """

    loader: Loader
    head: ParametricHead | None
    reader: Reader | None
    embedders: dict[str, Embedder]
    lpips: dict[str, Lpips]
    video: VideoReader | None = None  # on real video
    batch: int = 16

    @torch.no_grad()
    def __call__(self, avatar: Avatar) -> Scores:
        avatar.eval()
        scores = Scores()
        people = self.loader.frames.identity
        sets = {name: triples(self.loader.frames, "test", name) for name in EVERY_SET}
        grid = f"{UNSEEN}cross" if len(sets[f"{UNSEEN}cross"]) else "cross"
        for name, rows in sets.items():
            shown = spread_over(len(rows)) if name == grid else []
            pictures = []
            for i in range(0, len(rows), self.batch):
                part = rows[slice(i, i + self.batch)]
                prepared = self._prepared(avatar, part)
                pred, still = (self._render(avatar, prepared, d, _view(part)) for d in (part.driving, part.source))
                scores.add(name, part, i, people, self._score(name, part, pred, still))
                scores.add(name, part, i, people, self._steadiness(name, avatar, prepared, part, pred))
                here = [k - i for k in shown if i <= k < i + len(part)]
                if here:
                    self._keep(scores, part[here], pred[here])
                if name.removeprefix(UNSEEN) in PREDICTED:
                    pictures.append(_bytes(pred))
            if pictures:
                scores.predictions[name] = np.concatenate(pictures)
        return scores

    def _prepared(self, avatar: Avatar, part: Triples) -> Prepared:
        """The source people, lifted and prepared."""
        identity = avatar.backbone.lift(self.loader.sources(part.source, avatar.backbone.config.size), head=self.head)
        return avatar.fusion.prepare(identity, self.loader.code(part.source))

    def _render(self, avatar: Avatar, prepared: Prepared, driving: np.ndarray, view: np.ndarray) -> Tensor:
        """With the codes of frames `driving`, from the cameras of frames `view`: k of each per person, identity-major."""
        camera = self.loader.targets(view, self.loader.frames.resolution).camera
        return on_grey(avatar.fusion.animate(prepared, self.loader.code(driving)), camera)

    def _steadiness(
        self, set_: str, avatar: Avatar, prepared: Prepared, part: Triples, pred: Tensor
    ) -> dict[str, Tensor]:
        """What compares renders of one avatar with each other, in the rendered worlds: views (novel), people who drive it with the
        same expression (cross), and expressions (recon)."""
        if self.loader.frames.meta["kind"] == "clips":
            return {}
        if set_ == "novel":
            return reprojection(
                self.loader, part, pred, self._render(avatar, prepared, part.driving, other_view(part.target))
            )
        if set_ == "cross":
            return driver_leak(self.loader, part, pred, self._render(avatar, prepared, part.target, part.target))
        if set_ == "recon":
            own = own_expressions(part.source).reshape(-1)
            return identity_leaks(self.loader, self.embedders, part, self._render(avatar, prepared, own, own))
        return {}

    def _score(self, set_: str, part: Triples, pred: Tensor, still: Tensor) -> dict[str, Tensor | np.ndarray]:
        loader, frames = self.loader, self.loader.frames
        size, view = frames.resolution, _view(part)
        out: dict[str, Tensor | np.ndarray] = {}
        if (part.target != NO_TRUTH).all():
            truth = loader.targets(part.target, size)
            target = truth.over(truth.rgb.new_full((len(pred), 3), GREY))
            mask = truth.alpha[..., 0] > 0.5
            region = loader.region[torch.as_tensor(part.target, device=loader.device)]
            out["psnr"] = image.psnr(pred, target, mask)
            out["ssim"] = image.ssim(pred, target, mask)
            for net, lpips in self.lpips.items():
                out[f"lpips_{net}"] = lpips(pred, target)
            out["floaters"] = image.floaters(pred, mask, GREY)
            for name in ("eyes", "mouth"):
                seen = region == REGIONS.index(name)
                out[f"l1_{name}"] = image.region_l1(pred, target, seen)
                if "alex" in self.lpips:
                    crops = (image.region_crops(x, seen) for x in (pred, target))
                    out[f"lpips_{name}"] = self.lpips["alex"](*crops, check=False)
            out["gap"] = image.psnr(pred, target, truth.regions) - image.psnr(still, target, truth.regions)
        landmarks = torch.from_numpy(frames.landmarks[view])
        if self.reader is not None and set_ != "novel":  # it learns on training views, which end at ±35°
            out |= reader_scores(self.reader, loader, pred, part.driving, view)
        if self.video is not None:
            measured = self.video.score(
                pred, frames.coefficients[part.driving], frames.landmarks[view], frames.viewmats[view]
            )
            landmarks = torch.from_numpy(measured.pop("landmarks"))
            out |= measured
        known = (part.target != NO_TRUTH).all()
        of = part.target if known else part.source
        images = loader.photos(of, size).movedim(1, -1)
        for net, embedder in self.embedders.items():
            wanted = embedder.embed(images, torch.from_numpy(frames.landmarks[of]))
            out[f"csim_{net}"] = identity.csim(embedder.embed(pred, landmarks), wanted)
        return out

    def _keep(self, scores: Scores, part: Triples, pred: Tensor) -> None:
        size = self.loader.frames.resolution
        show = lambda index: _bytes(self.loader.photos(index, size).movedim(1, -1))  # noqa: E731
        new = {"source": show(part.source), "driver": show(part.driving), "design": _bytes(pred)}
        if (part.target != NO_TRUTH).all():
            new["truth"] = show(part.target)
            new["region"] = self.loader.frames.arrays["region"][part.target]
        for key, images in new.items():
            scores.images[key] = np.concatenate([*([scores.images[key]] if key in scores.images else []), images])


def spread_over(rows: int) -> Int[np.ndarray, " K"]:
    """Which of a set's rows are kept as images: at most GRID_SAMPLES, from the first to the last."""
    return np.unique(np.linspace(0, rows - 1, GRID_SAMPLES).astype(int)) if rows else np.zeros(0, int)


def reader_scores(
    reader: Reader, loader: Loader, images: Tensor, driving: np.ndarray, view: np.ndarray
) -> dict[str, Tensor]:
    """Of images [B,H,W,3] that should show the expressions of frames `driving`, seen as frames `view` are."""
    frames, device = loader.frames, loader.device
    read = reader.read(images.movedim(-1, 1))
    true = torch.from_numpy(frames.coefficients[driving]).to(device)
    marks = torch.from_numpy(frames.landmarks[view]).to(device)
    return {
        "aed_true": expression.aed(read.coefficients, true),
        "akd": expression.akd(read.landmarks, marks, images.shape[1]),
        "akd_iod": expression.akd_iod(read.landmarks, marks),
        "apd": expression.apd(read.rotation, torch.from_numpy(frames.viewmats[view][:, :3, :3]).to(device)),
    }


def reprojection(loader: Loader, part: Triples, images: Tensor, beside: Tensor) -> dict[str, Tensor]:
    """Of images [B,H,W,3] seen as the targets of a rendered world's set `novel` are, and the same seen as their `other_view`."""
    frames, other = loader.frames, other_view(part.target)
    depth_a, depth_b = (torch.from_numpy(frames.depth[i].astype(np.float32)).to(images) for i in (part.target, other))
    a, b = (frames.camera(i).to(images.device) for i in (part.target, other))
    return {"reprojection": consistency.reprojection_error(images, beside, depth_a, depth_b, a, b)}


def driver_leak(loader: Loader, part: Triples, images: Tensor, own: Tensor) -> dict[str, Tensor]:
    """Of images [B,H,W,3] of a rendered world's set `cross`, and of the same people who are driven by their own frames of the same
    expressions."""
    mask = loader.targets(part.target, loader.frames.resolution).alpha[..., 0] > 0.5
    return {"leak_driver": consistency.driver_leakage(torch.stack([images, own], 1), mask)}


def identity_leaks(loader: Loader, embedders: dict[str, Embedder], part: Triples, images: Tensor) -> dict[str, Tensor]:
    """By each network, of a rendered world's source people in `own_expressions`, [B·4,H,W,3], person by person."""
    own = own_expressions(part.source)
    landmarks = torch.from_numpy(loader.frames.landmarks[own.reshape(-1)])
    embedded = {net: e.embed(images, landmarks).unflatten(0, own.shape) for net, e in embedders.items()}
    return {f"leak_{net}": consistency.identity_leakage(e) for net, e in embedded.items()}


def _view(part: Triples) -> np.ndarray:
    """Whose camera is rendered: the target's, or the driver's where no truth is known."""
    return np.where(part.target == NO_TRUTH, part.driving, part.target)


def _bytes(images: Tensor) -> np.ndarray:
    return (images.clamp(0, 1) * 255).round().byte().cpu().numpy()
