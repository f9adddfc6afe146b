"""Reads strangers' pickles without running anything in them: FLAME's own, without chumpy or a matching scipy, and trackers'.

`generic_model.pkl` and `flame2023.pkl` are Python-2 pickles (latin1) of a dictionary of numpy arrays, scipy sparse
matrices and chumpy arrays; people save them again with newer Pythons. Everything but these known types is refused by name.
Foreign objects become stand-ins that only keep their state: nothing of a damaged matrix reaches scipy's compiled code
before its indices are checked.
"""

from __future__ import annotations

import importlib
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from i4d_bench.types import UserError


class _StandIn:
    """An object whose state is kept and never acted upon."""

    def __init__(self, *args):
        if args:
            self.x = args[0]

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)


class _Chumpy(_StandIn):
    """chumpy.ch.Ch, whose `x` is the array, or chumpy.reordering.Select, a flat selection of another."""

    @property
    def array(self) -> np.ndarray:
        state = {k: plain(v) for k, v in self.__dict__.items() if k in ("x", "a", "idxs", "preferred_shape")}
        if "x" in state:
            return np.asarray(state["x"])
        if "a" in state and "idxs" in state:
            picked = np.asarray(state["a"]).ravel()[np.asarray(state["idxs"])]
            return picked if state.get("preferred_shape") is None else picked.reshape(state["preferred_shape"])
        raise UserError(f"it holds a chumpy array with no values (fields {sorted(self.__dict__)})")


class _Csc(_StandIn):
    """scipy.sparse's compressed columns, as a matrix or array of any version."""

    build = scipy.sparse.csc_matrix

    @property
    def array(self) -> np.ndarray:
        state = self.__dict__
        matrix = type(self).build((state["data"], state["indices"], state["indptr"]), shape=state["_shape"])
        matrix.check_format(full_check=True)
        return matrix.toarray()


class _Csr(_Csc):
    build = scipy.sparse.csr_matrix


def _latin_bytes(text: str, encoding: str) -> bytes:
    """_codecs.encode, which old protocols use for bytes."""
    if encoding != "latin1":
        raise UserError(f"it encodes bytes as {encoding!r}; only latin1 is known")
    return text.encode("latin1")


def _new(cls: type, base: type, state: object) -> _StandIn:
    """copyreg._reconstructor, which protocols 0 and 1 use for an empty instance."""
    if not (isinstance(cls, type) and issubclass(cls, _StandIn)) or base is not object:
        raise UserError(f"it builds a {cls!r}, which is not an array type: refused, nothing was run")
    return cls()


_CORE = importlib.import_module("numpy._core" if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else "numpy.core")
_PLAIN = {"object": object, "set": set}  # chumpy keeps its bookkeeping in sets
_NUMPY = {
    "_reconstruct": _CORE.multiarray._reconstruct,
    "scalar": _CORE.multiarray.scalar,
    "_frombuffer": _CORE.numeric._frombuffer,  # protocol 5
    "ndarray": np.ndarray,
    "dtype": np.dtype,
}
_KNOWN = {
    **{(m, n): v for m in ("builtins", "__builtin__") for n, v in _PLAIN.items()},
    **{(m, "_reconstructor"): _new for m in ("copyreg", "copy_reg")},
    ("_codecs", "encode"): _latin_bytes,
    **{("numpy", n): _NUMPY[n] for n in ("ndarray", "dtype")},
    **{(f"numpy.{c}.multiarray", n): _NUMPY[n] for c in ("core", "_core") for n in ("_reconstruct", "scalar")},
    **{(f"numpy.{c}.numeric", "_frombuffer"): _NUMPY["_frombuffer"] for c in ("core", "_core")},
    **{(m, "Ch"): _Chumpy for m in ("chumpy", "chumpy.ch")},
    ("chumpy.reordering", "Select"): _Chumpy,
    # scipy has moved its classes: scipy.sparse.csc, then scipy.sparse._csc
    **{(f"scipy.sparse{m}", f"{f}_{kind}"): cls for f, cls in (("csc", _Csc), ("csr", _Csr))
       for m in ("", f".{f}", f"._{f}") for kind in ("matrix", "array")},
}  # fmt: skip
"""(module, name) in the pickle → what is built instead."""


class _KnownTypesOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str):
        if (module, name) not in _KNOWN:
            raise UserError(f"it asks for {module}.{name}, which is not an array type: refused, nothing was run")
        return _KNOWN[module, name]


def plain(value: Any) -> Any:
    """Stand-ins as numpy arrays; the rest as it is."""
    return value.array if isinstance(value, (_Chumpy, _Csc)) else value


@contextmanager
def _one_sentence(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except UserError as e:
        raise UserError(f"{path}: {e}") from e
    except OSError as e:
        raise UserError(f"cannot read the {what} {path}: {e.strerror}") from e
    except Exception as e:  # unpickling a damaged file can raise anything
        raise UserError(f"{path} is not a readable {what} ({type(e).__name__}: {e})") from e


def unpickle(path: Path, what: str = "pickle") -> Any:
    """What a pickle of numbers, texts, containers and arrays holds. Raises UserError, which calls it `what`, for any other."""
    with _one_sentence(path, what), path.open("rb") as file:
        return _KnownTypesOnly(file, encoding="latin1").load()


def load_pickle(path: Path, keys: tuple[str, ...]) -> dict[str, Any]:
    """Those of `keys` that are in a FLAME pickle's dictionary, arrays plain. Raises UserError for anything that is not one."""
    data = unpickle(path, "FLAME pickle")
    if not isinstance(data, dict):
        raise UserError(f"{path} holds a {type(data).__name__}, not the dictionary of a FLAME model")
    with _one_sentence(path, "FLAME pickle"):
        return {k: plain(data[k]) for k in keys if k in data}
