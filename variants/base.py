"""The contract of a fusion design and the registry that finds it.

A new design is one new file, in this folder or anywhere else (`load`): subclass `Fusion`, decorate it with
`@register("name")`. The harness, the contract test, the timing, the tables and the figures pick it up by name.
"""

from __future__ import annotations

import difflib
import inspect
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

import kernels
from i4d_bench.types import Gaussians, Identity, MotionCode, UserError
from variants import imports

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
    return kernels.row_norm(m[..., :width])


def scaled(layer: L, by: float) -> L:
    """The layer with its initial weight, and bias where it has one, multiplied."""
    with torch.no_grad():
        layer.weight.mul_(by)
        if layer.bias is not None:
            layer.bias.mul_(by)
    return layer


Design = TypeVar("Design", bound=type)
_REGISTRY: dict[str, type[Fusion]] = {}
_GIVEN: dict[str, str] = {}
"""Where `load` found a design: a file's whole path or a module's name."""


def register(name: str) -> Callable[[Design], Design]:
    """Class decorator: makes the design known under `name`.

    Raises ValueError for a second design of that name or a name that row keys do not hold, TypeError for a class that is no design.
    """

    def add(cls: Design) -> Design:
        if not re.fullmatch(r"[A-Za-z][\w-]*", name) or name == "all":
            raise ValueError(f'a design cannot be called {name!r}: letters, digits, _ and -, and not "all"')
        other = _REGISTRY.get(name)
        if other is not None and (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ValueError(f"two fusion designs are called {name!r}: {_place(other)} and {_place(cls)}")
        if not issubclass(cls, Fusion):
            raise TypeError(f"the design {name!r} is no subclass of variants.base.Fusion")
        if lacks := _lacks(cls):
            raise TypeError(f"the design {name!r} {lacks}")
        cls.name = name
        _REGISTRY[name] = cls
        return cls

    return add


def _place(cls: type) -> str:
    return f"{cls.__qualname__} in {inspect.getfile(cls)}"


def _lacks(cls: type[Fusion]) -> str:
    """What keeps a class from being a design; empty where nothing does."""
    if missing := [k for k in ("family", "needs") if not hasattr(cls, k)] + sorted(cls.__abstractmethods__):
        return f"lacks {', '.join(missing)}"
    if bare := [name for name, default in _settings(cls).items() if default is inspect.Parameter.empty]:
        return f"has no default for {', '.join(bare)}"
    return ""


def _settings(cls: type[Fusion]) -> dict[str, Any]:
    """A design's settings, which are its constructor's arguments, with their defaults."""
    every = inspect.signature(cls).parameters.values()
    return {p.name: p.default for p in every if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}


def _discover() -> dict[str, type[Fusion]]:
    imports.ours()
    imports.installed()
    return _REGISTRY


def load(entries: Iterable[str]) -> tuple[str, ...]:
    """Makes known what lists of designs hold, and returns it by name.

    A file (`./my_gain.py`) or a module (`package.module`) becomes the designs that are registered in it (in or below it), each
    with the settings that stand behind it (`./my_gain.py@hidden=64`). What is a name already stays one. Raises UserError for a
    file or a module that is missing, cannot be imported or registers nothing.
    """
    out: list[str] = []
    for entry in entries:
        source, at, settings = _split(entry)
        out += [f"{name}{at}{settings}" for name in _registered_in(source)] if source else [entry]
    return tuple(dict.fromkeys(out))


def _split(entry: str) -> tuple[str, str, str]:
    """An entry's file or module (empty where it is a name), its @ and what stands behind that."""
    if entry.endswith(".py"):
        return entry, "", ""
    path, py, settings = entry.partition(".py@")  # a path may hold an @ itself
    if py:
        return f"{path}.py", "@", settings
    name, at, settings = entry.partition("@")
    return (name, at, settings) if re.search(r"[./\\]", name) else ("", at, settings)


def _registered_in(source: str) -> list[str]:
    """The designs of a file or a module, which is imported where it was not. Raises UserError."""
    if source.endswith(".py") or re.search(r"[/\\]", source):
        path = Path(source).expanduser().resolve()
        source = str(path)
        inside = lambda cls: Path(inspect.getfile(cls)).resolve() == path  # noqa: E731
        found = [n for n, cls in _discover().items() if inside(cls)]  # ours and installed ones have files, too
        if not found:
            imports.file(path)
    else:
        found, inside = [], lambda cls: f"{cls.__module__}.".startswith(f"{source}.")
        _discover()
        imports.module(source)
    found = found or [n for n, cls in _REGISTRY.items() if inside(cls)]
    if not found:
        raise UserError(f'{source} registers no design: it has no class under @register("NAME") of variants.base')
    _GIVEN.update({n: source for n in found if not _REGISTRY[n].__module__.startswith("variants.")})
    return found


def know(entries: Iterable[str], sources: Iterable[str]) -> None:
    """Loads the sources of a stored experiment until its designs are known, here or in another process. Raises UserError."""
    wanted = {entry.partition("@")[0] for entry in entries}
    for source in sources:
        if wanted <= _discover().keys():
            break
        try:
            load([source])
        except UserError as e:
            missing = ", ".join(sorted(wanted - _discover().keys() - {"all"}))
            raise UserError(f"{missing or 'a design'} is missing: {e}; name where it is now with --designs") from e


def source_of(entry: str) -> Path:
    """The file in which a design's class stands (what stands behind @ does not matter). Raises UserError for an unknown name."""
    return Path(inspect.getfile(design(entry))).resolve()


def given(entries: Iterable[str]) -> tuple[str, ...]:
    """The files and modules from which `load` makes these designs known to another process; ours and installed ones need none."""
    named = [entry.partition("@")[0] for entry in entries]
    return tuple(dict.fromkeys(_GIVEN[name] for name in named if name in _GIVEN))


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
        yours = "a file of yours is written ./NAME.py, a module PACKAGE.MODULE"
        raise UserError(f"there is no fusion design {name!r} ({yours}); did you mean {', '.join(near)}?")
    return registry[name]


def about(entry: str) -> tuple[str, str, str]:
    """What a design says of itself: the first line of its file, its diagram, and what follows in the file's docstring."""
    cls = design(entry)
    title, _, text = (inspect.getdoc(inspect.getmodule(cls)) or "").strip().partition("\n")
    diagram = inspect.cleandoc(vars(cls).get("__doc__") or "")
    return title or diagram.partition("\n")[0], diagram, text.strip("\n")


def defaults(entry: str) -> dict[str, Any]:
    """A design's settings, which are its constructor's arguments, as they are by default. Raises UserError for an unknown name."""
    return _settings(design(entry))


def create(entry: str, **overrides) -> Fusion:
    """A new design (see `parse`) with its defaults replaced by `overrides` and, above those, by the entry's own settings. Raises
    UserError for an unknown name or override."""
    name, own = parse(entry)
    cls, overrides = design(name), overrides | own
    known = list(_settings(cls))
    for key in overrides:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=3, cutoff=0.4) or known
            raise UserError(f"{name} has no setting {key!r}; it has {', '.join(near) or 'none'}")
    return cls(**overrides)
