"""A trained run's weights, and the run packed to be passed on: `avatar.safetensors`, which executes nothing, and `run.json`.

A pack needs nothing of the folder of runs: the image driver's encoder is inside. What has its own licence or owner stays outside
and is named by run.json: a FLAME file, an external driver's encoder, a design's source.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from i4d_bench import outputs
from i4d_bench.cache import atomic_file
from i4d_bench.config.experiment import from_dict
from i4d_bench.drivers.image import ImageEncoder
from i4d_bench.extras import extra
from i4d_bench.progress import console
from i4d_bench.reading import json_object, reading
from i4d_bench.types import UserError

DESCRIBED, CHECKPOINT, PACKED = "run.json", "checkpoint.pt", "avatar.safetensors"


@dataclass(frozen=True)
class Weights:
    """State dicts of backbone and fusion, and the image driver's network where the run has one."""

    backbone: dict[str, Tensor]
    fusion: dict[str, Tensor]
    encoder: ImageEncoder | None


def described(folder: Path) -> dict[str, Any]:
    """run.json of a run or a pack. Raises UserError for a folder that is neither, and a damaged file."""
    path = folder / DESCRIBED
    if not path.exists() or not any((folder / name).exists() for name in (CHECKPOINT, PACKED)):
        raise UserError(
            f"{folder} holds no trained run ({DESCRIBED}, and {CHECKPOINT} or {PACKED}): `i4d-bench run` makes them under runs/"
        )
    with reading(path):
        content = json_object(path, "design", "experiment")
        from_dict(content["experiment"])
    return content


def weights(folder: Path, content: dict[str, Any]) -> Weights:
    """Of a run or a pack, on the CPU; `content` is its run.json. Raises UserError for a damaged file."""
    path = folder / (PACKED if (folder / PACKED).exists() else CHECKPOINT)
    try:
        if path.name == CHECKPOINT:
            state = torch.load(path, map_location="cpu")
            encoder = content.get("image_encoder")
            loaded = ImageEncoder.load(folder.absolute().parents[1] / encoder) if encoder else None
            return Weights(state["backbone"], state["fusion"], loaded)
        return _unpacked(path, content)
    except UserError:
        raise
    except Exception as e:  # torch and safetensors raise several kinds for a damaged file
        again = "train the run" if path.name == CHECKPOINT else "pack the run"
        raise UserError(f"the checkpoint {path} cannot be read ({type(e).__name__}): {again} again") from e


def _unpacked(path: Path, content: dict[str, Any]) -> Weights:
    with extra("share", "a packed run"):
        from safetensors.torch import load_file
    parts: dict[str, dict[str, Tensor]] = {"backbone": {}, "fusion": {}, "encoder": {}}
    for name, tensor in load_file(path).items():
        part, _, key = name.partition(".")
        parts[part][key] = tensor
    encoder = None
    if "image_encoder_side" in content:
        encoder = ImageEncoder(content["image_encoder_side"]).eval().requires_grad_(False)
        encoder.load_state_dict(parts["encoder"])
    return Weights(parts["backbone"], parts["fusion"], encoder)


def pack(run: Path, out: Path) -> Path:
    """Writes the weights and run.json of a trained run into the folder `out`. Optimiser and curve stay behind. Raises UserError."""
    with extra("share", "pack"):
        from safetensors.torch import save
    content = described(run)
    if out.resolve() == run.resolve():
        raise UserError(f"{out} is the run itself: name another folder, nothing was changed")
    outputs.folder(out)
    found = weights(run, content)
    parts = {"backbone": found.backbone, "fusion": found.fusion}
    shared = {k: v for k, v in content.items() if k not in ("data", "image_encoder")}  # places on this machine
    if found.encoder is not None:
        parts["encoder"] = found.encoder.state_dict()
        shared["image_encoder_side"] = found.encoder.side
    tensors = {f"{part}.{name}": t.contiguous() for part, state in parts.items() for name, t in state.items()}
    with atomic_file(out / PACKED) as partial:
        partial.write_bytes(save(tensors))  # save_file's may be read by its owner alone
    with atomic_file(out / DESCRIBED) as partial:
        partial.write_text(json.dumps(shared, indent=1), encoding="utf-8")
    console.print(f"{out}: {content['design']}, {(out / PACKED).stat().st_size / 2**20:.1f} MiB")
    return out
