"""The `external` driver's network: a motion encoder that is the user's file, X-NeMo's for instance, exported by its owner.

TorchScript (`.pt`, `.ts`) or ONNX (`.onnx`, all in one file, run by onnxruntime). It takes crops [B,3,224,224], RGB in 0..1, black
outside of the head, and gives [B,512], or [B,32,16]. Another range or mean is for the file's own graph to make.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from i4d_bench.cache import file_digest
from i4d_bench.drivers.crop import SIDE, crops
from i4d_bench.types import MOTION_DIM, MOTION_TOKENS, UserError

TORCHSCRIPT, ONNX = (".pt", ".ts"), ".onnx"
CHUNK = 64
"""Crops encoded at once."""
PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")


def is_file(driver: str) -> bool:
    """Whether a driver's name is that of an encoder's file, which need not be there."""
    return Path(driver).suffix.lower() in (*TORCHSCRIPT, ONNX)


def located(driver: str, digest: str | None, moved: Path | None = None) -> str:
    """The driver of an earlier run, found again. digest: of its encoder's bytes then; one that the suite trained (`image`) is no
    file of the user's, and is not looked for. moved: where the file lies now, if elsewhere.

    Raises UserError where the file is gone or another, or `moved` names none.
    """
    if not is_file(driver):
        if moved is not None:
            raise UserError(
                f"--driver says where an encoder's file lies now; this was made with {driver}, which has none"
            )
        return driver
    path = moved or Path(driver)
    if not path.is_file():
        raise UserError(f"the encoder {path} that this was made with is not there: --driver says where it lies now")
    if file_digest(path) != digest:
        raise UserError(f"{path} is not the encoder that this was made with: its bytes are others")
    return str(path)


class OnnxNetwork(nn.Module):
    """An ONNX graph of one input and one output as a module. `batch`: that it is fixed to, or None."""

    def __init__(self, path: Path):
        super().__init__()
        try:
            import onnxruntime as ort
        except ImportError as e:
            raise UserError(f"the encoder {path} needs onnxruntime: pip install onnxruntime") from e
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = torch.get_num_threads()
        nowhere = str(path / "weights")  # a run's identity knows the bytes of one file: others are not read
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", nowhere)
        providers = [p for p in PROVIDERS if p in ort.get_available_providers()]
        try:
            self.session = ort.InferenceSession(path.read_bytes(), options, providers=providers)
        except Exception as e:  # its errors have no base but this
            hint = ": export it with its weights inside" if "xternal data" in str(e) else f" ({_reason(e)})"
            raise UserError(f"onnxruntime cannot open the encoder {path}{hint}") from e
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            raise UserError(f"the encoder {path} has {len(inputs)} inputs and {len(outputs)} outputs, not one of each")
        self.input, first = inputs[0].name, (inputs[0].shape or [None])[0]
        self.batch = first if isinstance(first, int) else None

    def forward(self, images: Float[Tensor, "B 3 224 224"]) -> Tensor:
        (out,) = self.session.run(None, {self.input: images.cpu().numpy()})
        return torch.from_numpy(np.asarray(out)).to(images.device)


class Encoder(nn.Module):
    """A user's motion encoder. Raises UserError for a file that is none: it is tried on two pictures of noise."""

    def __init__(self, path: Path):
        super().__init__()
        if not path.is_file():
            raise UserError(f"there is no encoder {path}")
        if not is_file(path.name):
            raise UserError(f"the encoder {path} is neither TorchScript (.pt, .ts) nor ONNX (.onnx)")
        self.path = path
        self.network = OnnxNetwork(path) if path.suffix.lower() == ONNX else _torchscript(path)
        fixed = getattr(self.network, "batch", None)
        if fixed not in (None, 1):
            raise UserError(f"the encoder {path} takes {fixed} crops at once: export it with a free batch, or with 1")
        self.chunk = fixed or CHUNK
        with torch.no_grad():
            self(torch.rand(min(2, self.chunk), 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)))

    def forward(self, images: Float[Tensor, "B 3 224 224"]) -> Float[Tensor, "B 512"]:
        """Raises UserError for what is no code."""
        try:
            out = self.network(images)
        except Exception as e:  # whatever the user's graph raises
            raise UserError(f"the encoder {self.path} fails on crops [B,3,224,224] ({_reason(e)})") from e
        count = len(images)
        if not isinstance(out, Tensor):
            raise UserError(f"the encoder {self.path} gives a {type(out).__name__}, not a tensor [B,512]")
        if tuple(out.shape) not in ((count, MOTION_TOKENS * MOTION_DIM), (count, MOTION_TOKENS, MOTION_DIM)):
            shape = ",".join(map(str, out.shape))
            raise UserError(f"the encoder {self.path} gives [{shape}] for {count} crops, not [B,512] or [B,32,16]")
        out = out.reshape(count, -1).float()
        if not out.isfinite().all():
            raise UserError(f"the encoder {self.path} gives numbers that are not finite")
        return out

    def codes(self, images: Float[Tensor, "B H W 3"], landmarks: Float[Tensor, "B 68 2"]) -> Float[Tensor, "B 512"]:
        """Of the faces in pictures (0..1, landmarks in pixels), a few at once. Raises as `forward` does."""
        parts = zip(images.split(self.chunk), landmarks.split(self.chunk), strict=True)
        return torch.cat([self(crops(*part)) for part in parts])


def _torchscript(path: Path) -> nn.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch would rather have torch.export
            network = torch.jit.load(str(path), map_location="cpu")
    except RuntimeError as e:
        raise UserError(
            f"the encoder {path} is no TorchScript file: torch.jit.script or torch.jit.trace makes one"
        ) from e
    return network.eval()


def _reason(e: Exception) -> str:
    """In one line; TorchScript's stands below its traceback."""
    lines = [line.strip() for line in str(e).splitlines() if line.strip()] or [type(e).__name__]
    return (lines[-1] if lines[0].startswith("The following operation failed") else " ".join(lines))[:200]
