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
    score = staticmethod(aed)

    def __init__(self, reader: str, **kwargs):
        """reader: "true" or "mp52", what the coefficients were read with."""
        self.name = f"aed_{reader}"
        super().__init__(**kwargs)


class Apd(SampleMetric):
    name = "apd"
    score = staticmethod(apd)


class Akd(SampleMetric):
    name = "akd"
    score = staticmethod(akd)


class AkdIod(SampleMetric):
    name = "akd_iod"
    score = staticmethod(akd_iod)
