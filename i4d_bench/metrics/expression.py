"""Expression and pose metrics (DESIGN §5): their distances, readers and torchmetrics classes in one name space.

Two readers: `Reader`, trained on a world's truth (`aed_true`), and MediaPipe for real video (`aed_mp52`).
"""

from __future__ import annotations

from i4d_bench.metrics.base import SampleMetric
from i4d_bench.metrics.distances import Reading, aed, akd, akd_iod, apd
from i4d_bench.metrics.reader import Reader
from i4d_bench.metrics.reader_training import train_reader
from i4d_bench.metrics.video import VideoReader

__all__ = [
    "Aed", "Akd", "AkdIod", "Apd", "Reader", "Reading", "VideoReader", "aed", "akd", "akd_iod", "apd", "train_reader",
]  # fmt: skip


class Aed(SampleMetric):
    def __init__(self, reader: str, **kwargs):
        """reader: "true" or "mp52", what the coefficients were read with."""
        self.name = f"aed_{reader}"
        super().__init__(**kwargs)

    def score(self, pred, true):
        return aed(pred, true)


class Apd(SampleMetric):
    name = "apd"

    def score(self, pred, true):
        return apd(pred, true)


class Akd(SampleMetric):
    name = "akd"

    def score(self, pred, true, side):
        return akd(pred, true, side)


class AkdIod(SampleMetric):
    name = "akd_iod"

    def score(self, pred, true):
        return akd_iod(pred, true)
