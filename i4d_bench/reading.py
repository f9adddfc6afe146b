"""Stored files that may be cut, overwritten or gone: one sentence that names the file, in place of what its library raises."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from i4d_bench.errors import UserError


@contextmanager
def reading(path: Path, wrong: str = "") -> Iterator[None]:
    """Inside, the file is read, and nothing else is done: all that goes wrong is a UserError. wrong: what is said of a file that
    somebody names who may mean another, "is no submission" for instance; else it is damaged."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as e:
        raise UserError(f"there is no file {path}") from e
    except Exception as e:  # pandas, numpy, zipfile and gzip raise some ten kinds for a damaged file
        if isinstance(e, OSError) and e.errno is not None:
            raise UserError(f"cannot read {path}: {e.strerror}") from e
        why = f"it lacks {e}" if isinstance(e, KeyError) else " ".join(str(e).split()) or type(e).__name__
        said = f"{path} {wrong} ({why})" if wrong else f"{path} is damaged ({why}): restore it or move it away"
        raise UserError(said) from e


def json_object(path: Path, *keys: str) -> dict[str, Any]:
    """A JSON file's content by its keys, these among them. Raises UserError."""
    with reading(path):
        return holding(json.loads(path.read_bytes()), *keys)


def holding(content: Any, *keys: str) -> dict[str, Any]:
    """The content of a JSON file. Raises ValueError where it is no object, or lacks one of the keys."""
    if not isinstance(content, dict):
        raise ValueError("it holds no JSON object")
    if missing := [key for key in keys if key not in content]:
        raise ValueError(f"it lacks {', '.join(missing)}")
    return content


def table(path: Path, columns: Iterable[str], **how: Any) -> pd.DataFrame:
    """A .csv file's rows, these columns among them. how: as `pd.read_csv` has it. Raises UserError."""
    with reading(path):
        found = pd.read_csv(path, **how)
        if missing := [c for c in columns if c not in found]:
            raise ValueError(f"it lacks {', '.join(missing)}")
        return found


def arrays(path: Path, wrong: str = "") -> dict[str, np.ndarray]:
    """An .npz file's arrays by their names. wrong: as of `reading`. Raises UserError."""
    with reading(path, wrong), path.open("rb") as file:
        if not zipfile.is_zipfile(file):  # numpy would take it for a pickle
            raise ValueError("it is cut short, or no .npz")
        with np.load(path) as stored:
            return {name: stored[name] for name in stored.files}
