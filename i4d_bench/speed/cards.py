"""Common cards, as NVIDIA's data sheets have them: GeForce RTX 4090, RTX 6000 Ada Generation, L40S, A100, H100, H200 and HGX B200,
the SXM form where there are several."""

from __future__ import annotations

from dataclasses import dataclass

SOURCE = "NVIDIA's data sheets"
USABLE = 0.92
"""Share of the nominal memory that tensors may take: what is marked off for error correction and driver lies above."""


@dataclass(frozen=True)
class Card:
    """key: what its name as a CUDA device holds. memory: nominal, GB. bandwidth: GB/s. bf16: dense matrix rate, fp32: that of the
    ordinary cores, TFLOP/s."""

    name: str
    key: str
    memory: int
    bandwidth: int
    bf16: float
    fp32: float

    @property
    def usable(self) -> float:
        """GiB for tensors."""
        return USABLE * self.memory


CARDS = (
    Card("RTX 4090", "4090", 24, 1008, 165.2, 82.6),
    Card("RTX 6000 Ada", "6000 Ada", 48, 960, 364.2, 91.1),
    Card("L40S", "L40S", 48, 864, 362.0, 91.6),
    Card("A100 40 GB", "A100-SXM4-40GB", 40, 1555, 312.0, 19.5),
    Card("A100 80 GB", "A100", 80, 2039, 312.0, 19.5),
    Card("H100", "H100", 80, 3350, 989.4, 66.9),
    Card("H200", "H200", 141, 4800, 989.4, 66.9),
    Card("B200", "B200", 180, 7700, 2250.0, 75.0),
)
H100 = next(card for card in CARDS if card.name == "H100")
