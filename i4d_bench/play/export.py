"""A person's avatar as an ONNX graph: what the driver reads → motion code → Gaussians. Drawing them is the player's own.

The graph holds the driver, the fusion design and what the design prepared for one photo. Inputs are what the run's driver reads of
a frame: `coefficients` [1,52], or of the image driver `crop` [1,3,S,S] (`drivers.crop`), and beside it `coefficients` where the
design has a parametric head; an external driver is a file of its own, whose `motion` [1,512] the graph begins with. Outputs are
`Gaussians`' five, in canonical space. A written file is run by onnxruntime and compared with torch, or is not left.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

import kernels
from i4d_bench import outputs
from i4d_bench.cache import atomic_file
from i4d_bench.drivers.driver import Driver
from i4d_bench.drivers.image import ImageEncoder
from i4d_bench.extras import extra
from i4d_bench.heads.flame import FlameModel
from i4d_bench.play.puppet import Puppet
from i4d_bench.play.stage import Stage
from i4d_bench.progress import console
from i4d_bench.types import MOTION_DIM, MOTION_TOKENS, FlameCode, MotionCode, UserError

OUTPUTS = ("means", "quats", "scales", "opacities", "colors")
TOLERANCE = 1e-3
"""How far a number of onnxruntime's may be from torch's, by the largest of its kind."""


class Frame(nn.Module):
    """One frame from what the driver reads to `OUTPUTS`."""

    shape: Float[Tensor, "1 S"]

    def __init__(self, puppet: Puppet, driver: Driver, head: FlameModel):
        super().__init__()
        self.fusion, self.prepared = puppet.fusion, puppet.prepared
        self.driver, self.head = driver, head
        assert puppet.code.flame is not None
        self.register_buffer("shape", puppet.code.flame.shape, persistent=False)
        code = {"image": "crop", "external": "motion"}.get(driver.name, "coefficients")
        self.inputs = tuple(dict.fromkeys([code, *["coefficients"] * (puppet.fusion.needs == "flame")]))

    def example(self, seed: int) -> tuple[Tensor, ...]:
        """Inputs, made up."""
        g = torch.Generator().manual_seed(seed)
        side = self.driver.encoder.side if isinstance(self.driver.encoder, ImageEncoder) else 0
        shapes = {"coefficients": (52,), "crop": (3, side, side), "motion": (MOTION_TOKENS * MOTION_DIM,)}
        return tuple(torch.rand(1, *shapes[name], generator=g) for name in self.inputs)

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        values, flame = dict(zip(self.inputs, given, strict=True)), None
        if "coefficients" in values:
            flame = FlameCode(self.shape, *self.head.arkit(values["coefficients"]))
        if isinstance(self.driver.encoder, ImageEncoder):
            motion = self.driver.encoder(values["crop"])
        elif self.driver.name == "external":
            motion = values["motion"]
        else:
            assert flame is not None
            read = (
                torch.cat([flame.expression, flame.pose], -1) if self.driver.name == "flame" else values["coefficients"]
            )
            motion = self.driver.tokens(read)
        with kernels.using("eager"):
            gaussians = self.fusion.animate(self.prepared, MotionCode(motion, flame))
        return tuple(getattr(gaussians, name) for name in OUTPUTS)


def export(
    run: Path, out: Path, source: Path | None = None, model: Path | None = None, driver: Path | None = None
) -> Path:
    """Writes the avatar of `source` (a photo or a data set's first test person; default: the run's own) by a run or a pack. Raises
    UserError for a design that ONNX cannot hold, and for a graph whose numbers are not torch's."""
    with extra("export", "export"):
        import onnx
        import onnxscript as _  # noqa: F401  (torch's exporter wants it)
    if out.suffix != ".onnx":
        raise UserError(f"--out names a .onnx file, not {out.name}")
    out = outputs.file(out, [run, source] if source else [run])
    stage = Stage([run], source, None, model, driver, torch.device("cpu"))
    puppet = stage.puppets[0]
    frame = Frame(puppet, stage.sources.driver, stage.head).eval().requires_grad_(False)
    with torch.no_grad():
        try:
            program = torch.onnx.export(
                frame, frame.example(0), input_names=frame.inputs, output_names=OUTPUTS, dynamo=True, verbose=False
            )
        except Exception as e:  # the exporter raises several kinds for what it has no operator for
            raise UserError(f"{puppet.design} cannot be exported to ONNX ({_reason(e)})") from e
    assert program is not None
    with atomic_file(out) as partial:
        onnx.save(program.model_proto, str(partial))
        off = difference(partial, frame)
        if off > TOLERANCE:
            raise UserError(
                f"{puppet.design} as ONNX gives other Gaussians than torch, by {off:.1%}: it was not written"
            )
    console.print(
        f"{out}: {puppet.design}, {' and '.join(frame.inputs)} → {', '.join(OUTPUTS)}; off torch's by {off:.1e}"
    )
    return out


@torch.no_grad()
def difference(file: Path, frame: Frame) -> float:
    """The largest between onnxruntime's numbers and torch's, over the largest of the same output, on inputs not exported with."""
    with extra("export", "export"):
        import onnxruntime
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    worst = 0.0
    for seed in (1, 2):
        given = frame.example(seed)
        out = session.run(None, {name: t.numpy() for name, t in zip(frame.inputs, given, strict=True)})
        for got, true in zip(out, frame(*given), strict=True):
            worst = max(worst, float(np.abs(np.asarray(got) - true.numpy()).max() / true.abs().max()))
    return worst


def _reason(e: Exception) -> str:
    """In one line."""
    return " ".join(str(e).split())[:200] or type(e).__name__
