"""Control: never animates. Its gap is 0; what animation gains or costs is read against its row."""

from __future__ import annotations

from i4d_bench.types import Gaussians, Identity, MotionCode
from variants.base import Fusion, register


@register("static")
class Static(Fusion):
    """f_i ─Φ→ Gaussian i"""

    family = "control"
    needs = "none"
    neutral_is_canonical = True

    def prepare(self, identity: Identity, source: MotionCode) -> Gaussians:
        return identity.canonical

    def animate(self, prepared: Gaussians, driving: MotionCode) -> Gaussians:
        frames = len(driving.motion) // len(prepared.means)
        return prepared.map(lambda t: t.repeat_interleave(frames, 0))
