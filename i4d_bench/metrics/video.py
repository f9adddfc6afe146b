"""MediaPipe as the expression reader of real video (DESIGN §5, `aed_mp52`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from i4d_bench.data.video.landmarker import Landmarker, to68
from i4d_bench.metrics.distances import Reading, aed, akd, akd_iod, apd
from i4d_bench.metrics.image import check_images


class VideoReader:
    """MediaPipe's Face Landmarker; images under 256² are enlarged before it looks. Usable in a `with` block.

    Raises UserError when mediapipe or its model file is missing.
    """

    name = "mp52"

    def __init__(self, model_path: str | Path | None = None):
        self._landmarker = Landmarker(model_path)

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *error) -> None:
        self._landmarker.__exit__(*error)

    def read(self, images: Float[Tensor, "B H W 3"]) -> Reading:
        """Images in 0..1 (ValueError otherwise). NaN rows where no face was found. The result is on the CPU."""
        check_images(images)
        rows = []
        for image in (images.detach() * 255).round().byte().cpu().numpy():
            face = self._landmarker(image)
            if face is None:
                rows.append([np.full(s, np.nan, np.float32) for s in ((52,), (68, 2), (3, 3))])
            else:
                rows.append([face.blendshapes, to68(face.landmarks)[:, :2], face.pose[:3, :3].astype(np.float32)])
        return Reading(*(torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True)))

    def score(
        self, images: Float[Tensor, "B H W 3"], coefficients: Float[np.ndarray, "B 52"],
        landmarks: Float[np.ndarray, "B 68 2"], viewmats: Float[np.ndarray, "B 4 4"],
    ) -> dict[str, np.ndarray]:  # fmt: skip
        """aed_mp52, akd, akd_iod and apd [B] of renders against the true frames' measurements; the `landmarks` read.

        NaN where no face was found. Scoring the true frames themselves gives the floor (resolution, the pose's camera).
        """
        seen = self.read(images)
        marks, rotation = torch.from_numpy(landmarks), torch.from_numpy(viewmats)[:, :3, :3]
        scores = {
            "aed_mp52": aed(seen.coefficients, torch.from_numpy(coefficients)),
            "akd": akd(seen.landmarks, marks, images.shape[1]),
            "akd_iod": akd_iod(seen.landmarks, marks),
            "apd": apd(seen.rotation, rotation),
        }
        return {k: v.numpy() for k, v in {**scores, "landmarks": seen.landmarks}.items()}
