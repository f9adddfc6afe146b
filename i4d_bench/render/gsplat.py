"""Gaussian splatting by gsplat's CUDA rasteriser: post-activation RGB, `packed=False` (DESIGN §6)."""

from __future__ import annotations

import functools

from jaxtyping import Float
from torch import Tensor

from i4d_bench.types import Camera, Gaussians, Rendered, UserError
from kernels.layout import EPS_2D, NEAR


@functools.cache
def built() -> bool:
    """Whether gsplat has its CUDA extension; builds it, the first time, where there is a compiler."""
    try:
        from gsplat.cuda._backend import _C  # pyright: ignore[reportAttributeAccessIssue]
    except ImportError:
        return False
    return _C is not None


def rasterize(g: Gaussians, camera: Camera, background: Float[Tensor, "B 3"], depth: bool = True) -> Rendered:
    """One scene and one camera per batch row, in one launch. Raises UserError when gsplat's extension cannot load."""
    try:
        from gsplat import rasterization
        from gsplat.cuda._backend import _C  # pyright: ignore[reportAttributeAccessIssue]  (set by exec of what was built)
    except ImportError as e:
        raise UserError(f"gsplat cannot be imported ({e}): pip install gsplat") from e
    if _C is None:
        raise UserError(
            "gsplat found no CUDA compiler to build its extension: install the CUDA toolkit (nvcc) and ninja, "
            "set TORCH_CUDA_ARCH_LIST to your card's architecture, and run again"
        )
    image, alpha, _ = rasterization(
        g.means, g.quats, g.scales, g.opacities, g.colors, camera.viewmats[:, None], camera.Ks[:, None],
        camera.width, camera.height, near_plane=NEAR, eps2d=EPS_2D, packed=False, render_mode="RGB+D" if depth else "RGB",
    )  # fmt: skip
    image, alpha = image[:, 0], alpha[:, 0]
    rgb = image[..., :3] + (1 - alpha) * background[:, None, None]
    return Rendered(rgb, alpha, image[..., 3:] if depth else None)
