"""Renders a head world into a data set: rendered once, cached under a hash of what was asked, resumed after a kill."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from i4d_bench import source
from i4d_bench.cache import atomic_file, cache_dir, make_once
from i4d_bench.config.experiment import World, digest
from i4d_bench.data import frames as store
from i4d_bench.data import people
from i4d_bench.data.people import Person
from i4d_bench.data.splits import SPLITS, YAW
from i4d_bench.heads.export import Coder
from i4d_bench.heads.worlds import exported_head, head_world, world_version
from i4d_bench.portable import cores
from i4d_bench.progress import track
from i4d_bench.types import UserError

CHUNK = 8
"""People per part file: what a killed rendering may lose."""


def spec(world: World) -> dict[str, Any]:
    """Everything that the data of `world` depends on."""
    version = [world_version(world.kind), source.digest("i4d_bench.data.synthetic")]
    return {"version": version, **dataclasses.asdict(world)}


def rendered(world: World) -> Path:
    """The data set of `world`, rendered on first use. Returns its folder."""
    folder = cache_dir() / "data" / f"{world.kind}-{world.resolution}-{digest(spec(world))}"
    return make_once(folder, lambda: _render(world, folder))


def _render(world: World, folder: Path) -> None:
    """Renders into part files, which a later call goes on from, then writes the data set."""
    parts = folder.with_name(folder.name + ".parts")
    try:
        parts.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UserError(f"cannot write the data cache {parts}: {e.strerror}; set I4D_CACHE to another folder") from e
    exported_head(world.kind)
    everyone = people.people(world)
    chunks = [everyone[i : i + CHUNK] for i in range(0, len(everyone), CHUNK)]
    todo = [(i, c) for i, c in enumerate(chunks) if not (parts / f"{i:05d}.npz").exists()]
    workers = min(cores(), max(1, len(todo)))
    # Fresh processes: forking one that already runs torch's threads can deadlock.
    with _one_thread_each(), ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        jobs = [pool.submit(_render_chunk, world, chunk, parts / f"{i:05d}.npz") for i, chunk in todo]
        for job in track(as_completed(jobs), f"rendering {world.kind} heads", total=len(jobs)):
            job.result()
    loaded = [np.load(parts / f"{i:05d}.npz") for i in range(len(chunks))]
    arrays = {name: np.concatenate([part[name] for part in loaded]) for name in loaded[0].files}
    counts = {s: getattr(world, f"{s}_identities") for s in SPLITS}
    store.write(folder, arrays, {"kind": world.kind, "source": spec(world), "people": counts})
    shutil.rmtree(parts)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes started inside use one thread each: the processes are the parallelism."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _render_chunk(world: World, chunk: list[Person], out: Path) -> None:
    """Renders a few people and writes their part file, atomically."""
    head, size = head_world(world.kind), world.resolution
    coder = Coder(head, exported_head(world.kind))
    rows: list[dict[str, np.ndarray | np.generic]] = []
    for person in chunk:
        identity, light = people.identity(world, head, person), people.light(world, person)
        coefficients = people.performed(world, person)
        codes = coder(identity, coefficients)
        views = world.views if person.split == "train" else len(YAW)
        for e, expression in enumerate(coefficients):
            vertices = head.vertices(identity, expression)
            surface = head.surface(identity, expression, vertices)
            for v in range(views):
                camera = people.camera(world, person, e, v)
                rows.append(
                    {
                        **people.picture(head, vertices, surface, expression, camera, size, light),
                        "light": light.numbers.astype(np.float32),
                        "identity": np.int32(person.number),
                        "expression": np.int32(e),
                        **{
                            f"flame_{n}": np.asarray(getattr(codes, n)[e], np.float32)
                            for n in ("shape", "expression", "pose")
                        },
                    }
                )
    with atomic_file(out) as partial:
        columns = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        np.savez(partial, **columns)  # pyright: ignore[reportArgumentType]  (no array is called allow_pickle)
