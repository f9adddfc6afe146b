"""The contract of a fusion design and the registry that finds it.

A new design is one new file in this folder: subclass `Fusion`, decorate it with `@register("name")`. The harness, the
contract test, the timing, the tables and the figures pick it up by name.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import json
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from i4d_bench.types import Gaussians, Identity, MotionCode, UserError

Family = Literal["local", "global", "parametric", "control"]
Needs = Literal["motion", "flame", "none"]
L = TypeVar("L", nn.Linear, nn.Conv2d)
Prepared = Any
"""Whatever `prepare` caches per identity; only the design itself looks inside."""


class Fusion(nn.Module, ABC):
    """How the driving expression meets the 3D structure. A design's own docstring is one line, its diagram.

    name: as `register` has it. family: where the operator works. needs: what it reads of the driving `MotionCode`.
    neutral_is_canonical: driving with the source's own code gives the canonical avatar exactly.
    tokens: the override that says how many motion tokens it attends to, where it has one.
    native: the published sizes, where they differ from the defaults, which match `local_adaln` in parameters or in FLOPs.
    storage: the type in which `prepare` keeps what there is per Gaussian; 16 bits multiply in 16 bits too.
    Every constructor argument has a default and is an override that experiments may set. Learned designs share the names of
    two: `init_scale` multiplies their last layer at the start (0: they start at the canonical avatar), and designs that read
    motion codes have `source` (False hides the source's own code).
    """

    name: ClassVar[str]
    family: ClassVar[Family]
    needs: ClassVar[Needs]
    neutral_is_canonical: ClassVar[bool] = False
    tokens: ClassVar[str | None] = None
    native: ClassVar[dict[str, Any]] = {}
    storage: torch.dtype = torch.float32

    @abstractmethod
    def prepare(self, identity: Identity, source: MotionCode) -> Prepared:
        """Once per identity: everything that may be cached. Sees no driving code."""

    @abstractmethod
    def animate(self, prepared: Prepared, driving: MotionCode) -> Gaussians:
        """Once per frame. `driving` holds k frames for each of the B identities prepared: [B·k, …], identity-major."""


def normed(m: Float[Tensor, "B N M"], width: int) -> Float[Tensor, "B N width"]:
    """LN(m_i), without affine, of the motion basis's first `width` channels. Raises UserError where it has fewer."""
    if m.shape[-1] < width:
        raise UserError(
            f"a design wants a motion basis of {width} channels, the backbone's has {m.shape[-1]} (model.motion_basis)"
        )
    return F.layer_norm(m[..., :width], (width,))


def scaled(layer: L, by: float) -> L:
    """The layer with its initial weight, and bias where it has one, multiplied."""
    with torch.no_grad():
        layer.weight.mul_(by)
        if layer.bias is not None:
            layer.bias.mul_(by)
    return layer


Design = TypeVar("Design", bound=type[Fusion])
_REGISTRY: dict[str, type[Fusion]] = {}


def register(name: str) -> Callable[[Design], Design]:
    """Class decorator: makes the design known under `name`. A second design of that name raises ValueError."""

    def add(cls: Design) -> Design:
        if name in _REGISTRY and _REGISTRY[name].__qualname__ != cls.__qualname__:
            raise ValueError(f"two fusion designs are called {name!r}: {_REGISTRY[name]} and {cls}")
        cls.name = name
        _REGISTRY[name] = cls
        return cls

    return add


def _discover() -> dict[str, type[Fusion]]:
    package = importlib.import_module("variants")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"variants.{module.name}")
    return _REGISTRY


def names(family: Family | None = None) -> list[str]:
    """Names of the registered designs, sorted."""
    return sorted(n for n, cls in _discover().items() if family in (None, cls.family))


def parse(entry: str) -> tuple[str, dict[str, Any]]:
    """Name and settings of a design as lists of designs write it: `local_adaln`, `global_cross_attention@layers=4,tokens=4`, or
    `global_triplane_attention@native` for its published sizes. Raises UserError."""
    name, _, text = entry.partition("@")
    if text == "native":
        if not design(name).native:
            raise UserError(f"{name} has no published sizes other than its own")
        return name, dict(design(name).native)
    settings = {}
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise UserError(f"{entry!r}: behind @ stands native or SETTING=VALUE,…, not {part!r}")
        try:
            settings[key] = json.loads(value)
        except ValueError:
            settings[key] = value
    return name, settings


def design(name: str) -> type[Fusion]:
    """The class registered under `name` (what stands behind @ does not matter). Raises UserError with the nearest names."""
    registry, name = _discover(), name.partition("@")[0]
    if name not in registry:
        near = difflib.get_close_matches(name, registry, n=3, cutoff=0.4) or sorted(registry)
        raise UserError(f"there is no fusion design {name!r}; did you mean {', '.join(near)}?")
    return registry[name]


def source_of(entry: str) -> Path:
    """The file that a design's class stands in. Raises UserError for an unknown name."""
    return Path(inspect.getfile(design(entry)))


def defaults(entry: str) -> dict[str, Any]:
    """Of the settings that a design's constructor has."""
    parameters = inspect.signature(design(entry)).parameters
    return {name: p.default for name, p in parameters.items() if p.default is not p.empty}


def create(entry: str, **overrides) -> Fusion:
    """A new design (see `parse`) with its defaults replaced by `overrides` and, above those, by the entry's own settings. Raises
    UserError for an unknown name or override."""
    name, own = parse(entry)
    cls, overrides = design(name), overrides | own
    known = [p for p in inspect.signature(cls.__init__).parameters if p != "self"]
    for key in overrides:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=3, cutoff=0.4) or known
            raise UserError(f"{name} has no setting {key!r}; it has {', '.join(near) or 'none'}")
    return cls(**overrides)
