"""Reads FLAME's own pickles without running anything in them and without chumpy.

`generic_model.pkl` and `flame2023.pkl` are Python-2 pickles (latin1) of a dictionary of numpy arrays, scipy sparse
matrices and chumpy arrays. Everything but these known types is refused by name.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from i4d_bench.types import UserError


class _Chumpy:
    """Stands in for chumpy.ch.Ch: keeps the state it is given, whose `x` is the array."""

    def __init__(self, *args):
        if args:
            self.x = args[0]

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)

    @property
    def array(self) -> np.ndarray:
        if "x" in self.__dict__:
            return np.asarray(plain(self.x))
        if "a" in self.__dict__ and "idxs" in self.__dict__:  # chumpy.reordering.Select: a flat selection
            picked = np.asarray(plain(self.a)).ravel()[np.asarray(plain(self.idxs))]
            shape = self.__dict__.get("preferred_shape")
            return picked if shape is None else picked.reshape(plain(shape))
        raise UserError(f"the FLAME file holds a chumpy array with no values (fields {sorted(self.__dict__)})")


_MULTIARRAY = np._core.multiarray if hasattr(np, "_core") else np.core.multiarray
_SPARSE = {"csc": scipy.sparse.csc_matrix, "csr": scipy.sparse.csr_matrix, "coo": scipy.sparse.coo_matrix}


def _latin_bytes(text: str, encoding: str) -> bytes:
    """Python 3's replacement for _codecs.encode in protocol-2 pickles."""
    if encoding != "latin1":
        raise UserError(f"the FLAME file encodes bytes as {encoding!r}; only latin1 is known")
    return text.encode("latin1")


def _reconstruct(cls: type, base: type, state: object) -> object:
    """Makes an instance of a class in old pickles; only chumpy's come that way."""
    if cls is not _Chumpy or base is not object:
        raise UserError(f"the FLAME file builds a {cls.__name__}, which is not an array type: refused, nothing was run")
    return _Chumpy()


def _known(module: str, name: str):
    if module in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray"):
        return {"_reconstruct": _MULTIARRAY._reconstruct, "scalar": _MULTIARRAY.scalar,
                "ndarray": np.ndarray, "dtype": np.dtype}.get(name)  # fmt: skip
    if module.startswith("scipy.sparse") and name.endswith("_matrix"):
        return _SPARSE.get(name.removesuffix("_matrix"))
    if (module, name) in (("chumpy.ch", "Ch"), ("chumpy", "Ch"), ("chumpy.reordering", "Select")):
        return _Chumpy
    return {
        ("_codecs", "encode"): _latin_bytes,
        ("copy_reg", "_reconstructor"): _reconstruct,
        ("copyreg", "_reconstructor"): _reconstruct,
        ("__builtin__", "object"): object,
        ("builtins", "object"): object,
        ("__builtin__", "set"): set,  # chumpy keeps its bookkeeping in sets
        ("builtins", "set"): set,
    }.get((module, name))


class _KnownTypesOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str):
        found = _known(module, name)
        if found is None:
            raise UserError(
                f"the FLAME file asks for {module}.{name}, which is not an array type: refused, nothing was run"
            )
        return found


def plain(value: Any) -> Any:
    """chumpy and scipy values as numpy arrays; the rest as it is."""
    if isinstance(value, _Chumpy):
        return value.array
    return value.toarray() if scipy.sparse.issparse(value) else value


def load_pickle(path: Path) -> dict[str, Any]:
    """The dictionary in a FLAME pickle, arrays plain. Raises UserError for anything that is not one."""
    try:
        with path.open("rb") as file:
            data = _KnownTypesOnly(file, encoding="latin1").load()
        if not isinstance(data, dict):
            raise UserError(f"{path} holds a {type(data).__name__}, not the dictionary of a FLAME model")
        return {k: plain(v) for k, v in data.items()}
    except UserError:
        raise
    except OSError as e:
        raise UserError(f"cannot read the FLAME file {path}: {e.strerror}") from e
    except Exception as e:  # unpickling a damaged file can raise anything
        raise UserError(f"{path} is not a readable FLAME pickle ({type(e).__name__}: {e})") from e
