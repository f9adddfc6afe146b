"""The run store (DESIGN §7): a folder with a few files per run, so that many processes may write and none reads half a file.

    runs/RUN_ID.json       the record
    runs/RUN_ID.csv.gz     one row per sample and metric
    runs/RUN_ID.npz        its images for the qualitative grid; shown-DATA.npz has source, driver, truth and its regions
    runs/RUN_ID.webm       its film, where it has one (`play.film`)
    runs/RUN_ID.splats     its avatar for a page's viewer, where it has one (`play.splats`)
    runs/superseded/       earlier runs of a design and seed; one comes back when its identity is asked for again

Every table and figure is rebuilt from them. Results of another benchmark version are never mixed in, nor are runs that were not
made alike (`Record.made`).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from i4d_bench import BENCHMARK_VERSION
from i4d_bench.cache import atomic_file
from i4d_bench.config.experiment import FORMER_DRIVERS, Experiment, from_dict
from i4d_bench.reading import arrays, holding, json_object, reading, table
from i4d_bench.results.aggregate import aggregate, finite
from i4d_bench.results.measured import Measured
from i4d_bench.results.record import SCHEMA, Record, moment
from i4d_bench.types import UserError

T = TypeVar("T")
ROW = ("run_id", "design", "seed", "set", "sample", "identity", "driver", "metric", "value", "ok")
RECORD, SAMPLES, IMAGES, FILM, SPLATS = ".json", ".csv.gz", ".npz", ".webm", ".splats"
ENDINGS = (RECORD, SAMPLES, IMAGES, FILM, SPLATS)
"""The record first: what is left without one is no run."""
SHOWN = ("source", "driver", "truth")
REGION = "region"
"""Of the truth, beside SHOWN: labels (`heads.base.REGIONS`). Older runs have none."""
OLDER = {"converged": "started", "not converged": "did not start"}
"""What records called a status before."""
GONE = ("timings",)
"""What records held before: a run timed its own frames."""
KEYS = {
    f.name: f.default is f.default_factory is dataclasses.MISSING or f.name in ("environment", "created")
    for f in dataclasses.fields(Record)
}
"""Of a record, and whether it must have them: what a new record is given of this machine and moment is no older one's."""


class Store:
    """The results in one folder. Several processes may add to it at the same time."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.runs = self.folder / "runs"
        self._read_as: tuple[list[tuple[str, int, int, int]], dict[str, Any]] = [], {}

    def add(self, record: Record, rows: list[dict[str, Any]], images: dict[str, np.ndarray] | None = None) -> None:
        """Stores a run; earlier ones of the same design and seed go to `superseded`. The record is written last: a run that has one
        is complete. Raises UserError."""
        record.metrics = aggregate(rows)
        for path, old in self._lines():
            if (old["design"], old["seed"]) == (record.design, record.seed) and old["run_id"] != record.run_id:
                self._move(old["run_id"], path.parent, self.runs / "superseded")
        if rows:
            with atomic_file(self._file(record.run_id, SAMPLES)) as path:
                sampled = pd.DataFrame(rows, columns=list(ROW))
                sampled.to_csv(path, index=False, float_format="%.6g", compression={"method": "gzip", "mtime": 0})
        if images:
            with atomic_file(self._file(record.run_id, IMAGES)) as path:
                np.savez_compressed(path, design=images["design"])
            with atomic_file(self._shown(record)) as path:
                shown = {k: images[k] for k in (*SHOWN, REGION) if k in images}
                np.savez_compressed(path, **shown)  # pyright: ignore[reportArgumentType]  (none is called allow_pickle)
        self._write(dataclasses.asdict(record))

    def finished(self, run_id: str, scoring: str) -> bool:
        """Whether there is a result of this training, scored like this, for which it is asked: a superseded one comes back into its
        place, and what was made like it into `records`. A run whose samples are gone is not finished."""
        superseded = self.runs / "superseded"
        for path, line in self._lines(superseded):
            if line["run_id"] == run_id and not self._file(run_id, RECORD).exists():
                for own, current in self._lines():
                    if (current["design"], current["seed"]) == (line["design"], line["seed"]):
                        self._move(current["run_id"], own.parent, superseded)
                self._move(run_id, path.parent, self.runs)
        line = self._read(self._file(run_id, RECORD))
        if line is None:
            return False
        if (line["schema"], line["benchmark_version"]) != (SCHEMA, BENCHMARK_VERSION):
            return False
        done = line["scoring"] == scoring and line["status"] != "failed" and not self._without_samples(Record(**line))
        if done and run_id not in {r.run_id for r in self.records}:
            self._write(line | {"asked": moment()})
        return done

    def remove(self, run_id: str) -> None:
        """Forgets a run, wherever it lies."""
        for folder in (self.runs, self.runs / "superseded"):
            for ending in ENDINGS:
                (folder / f"{run_id}{ending}").unlink(missing_ok=True)

    @property
    def records(self) -> list[Record]:
        """Runs of this benchmark version that were made like the newest of them, or like one that was asked for since, the oldest
        first."""
        every = self._every()
        return [r for r in every if r.made == every[-1].made]

    @property
    def left_out(self) -> list[Record]:
        """Runs that were made otherwise than those in `records`: by other code, of other data, on another machine."""
        every = self._every()
        return [r for r in every if r.made != every[-1].made]

    def _every(self) -> list[Record]:
        return self._once("records", self._read_records)

    def _read_records(self) -> list[Record]:
        return sorted((Record(**line) for _, line in self._lines()), key=lambda r: (r.asked or r.created, r.run_id))

    @property
    def samples(self) -> pd.DataFrame:
        """Columns ROW, of the runs in `records`. Where older ones do not say who drove, nobody else did. Raises UserError where
        samples of a run that has scores are gone: means without them would be others."""
        return self.measured.samples

    @property
    def measured(self) -> Measured:
        """The same by set, metric and design."""
        return self._once("measured", lambda: Measured(self._read_samples()))

    def _read_samples(self) -> pd.DataFrame:
        self._check_samples(self.records)
        tables = [t for t in map(self.samples_of, self.records) if len(t)]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(ROW))

    def samples_of(self, record: Record) -> pd.DataFrame:
        """Columns ROW, as a run's file has them: whose it says they are is for a submission's check to compare. Raises UserError
        where they are damaged, or gone."""
        self._check_samples([record])
        file = self._file(record.run_id, SAMPLES)
        if not file.exists():
            return pd.DataFrame(columns=list(ROW))
        found = table(file, [c for c in ROW if c != "driver"], dtype={"seed": int, "sample": int, "value": float})
        driver = found["driver"] if "driver" in found else found["identity"]
        return found.assign(driver=driver.fillna(found["identity"]))

    def experiment(self, record: Record) -> Experiment:
        """What a run was one of. Raises UserError where the record does not say it."""
        with reading(self._file(record.run_id, RECORD)):
            return from_dict(record.config)

    def _check_samples(self, records: list[Record]) -> None:
        gone = [r.run_id for r in records if self._without_samples(r)]
        if gone:
            raise UserError(
                f"{self.runs} lacks the samples (RUN{SAMPLES}) of {', '.join(gone)}, whose records have scores: restore them, or "
                "move the records away; `i4d-bench run` makes these runs again"
            )

    def _without_samples(self, record: Record) -> bool:
        """Whether a run's scores are there and its samples are gone; not where another process has just moved both."""
        there = lambda ending: self._file(record.run_id, ending).exists()  # noqa: E731
        return bool(record.metrics) and not there(SAMPLES) and there(RECORD)

    def _once(self, what: str, read: Callable[[], T]) -> T:
        """What was read before, as long as no run has come, gone or changed: files of runs are written as a whole."""
        now = self._state()
        if self._read_as[0] != now:
            self._read_as = now, {}
        known = self._read_as[1]
        if what not in known:
            known[what] = read()
        return known[what]

    def _state(self) -> list[tuple[str, int, int, int]]:
        """Of every file of runs its name, inode, time and size."""
        out = []
        for path in self.runs.glob("[!.]*"):
            with suppress(FileNotFoundError):  # another process has just moved it
                about = path.stat()
                out.append((path.name, about.st_ino, about.st_mtime_ns, about.st_size))
        return sorted(out)

    @property
    def images(self) -> dict[str, np.ndarray]:
        """Qualitative images [K,H,W,3] uint8 by column: source, driver, truth where it is known, and every design's;
        with them under REGION the truth's labels [K,H,W]."""
        out: dict[str, np.ndarray] = {}
        for record in self.records:
            if found := self.pictures(record):
                own = found.pop("design")
                out = {**found, **out, record.design: own}
        return out

    def pictures(self, record: Record) -> dict[str, np.ndarray]:
        """Images [K,H,W,3] uint8 of one run: source, driver, truth where it is known, and its own as `design`. Empty where the run
        kept none."""
        if not self.has(record, IMAGES):
            return {}
        own = self._file(record.run_id, IMAGES)
        with reading(own):
            return arrays(self._shown(record)) | {"design": arrays(own)["design"]}

    def has(self, record: Record, ending: str) -> bool:
        """Whether the run has this file of ENDINGS. Pictures are nothing without what they share."""
        shared = [self._shown(record)] if ending == IMAGES else []
        return all(path.exists() for path in (self._file(record.run_id, ending), *shared))

    def film(self, run_id: str) -> Path:
        """Where a run's film lies, if it has one."""
        return self._file(run_id, FILM)

    def splats(self, run_id: str) -> Path:
        """Where a run's avatar lies, if it kept one."""
        return self._file(run_id, SPLATS)

    def files(self, record: Record) -> list[Path]:
        """All that a run has here, with what its pictures share with other runs'."""
        every = [*(self._file(record.run_id, ending) for ending in ENDINGS), self._shown(record)]
        return [path for path in every if path.exists()]

    def check_writable(self) -> None:
        """Raises UserError before hours of work rather than after. Leaves nothing behind."""
        made = [p for p in (self.folder, *self.folder.parents) if not p.exists()]
        with atomic_file(self.folder / "writable") as path:
            path.touch()
        (self.folder / "writable").unlink()
        for folder in made:
            folder.rmdir()

    def _write(self, line: dict[str, Any]) -> None:
        with atomic_file(self._file(line["run_id"], RECORD)) as path:
            path.write_text(json.dumps(finite(line)) + "\n", encoding="utf-8")

    def _file(self, run_id: str, ending: str) -> Path:
        return self.runs / f"{run_id}{ending}"

    def _shown(self, record: Record) -> Path:
        return self.runs / f"shown-{record.data['hash']}{IMAGES}"

    def _move(self, run_id: str, start: Path, end: Path) -> None:
        """The record first where it goes, and last where it comes: another process that sees it finds the rest."""
        end.mkdir(parents=True, exist_ok=True)
        for ending in ENDINGS if start == self.runs else reversed(ENDINGS):
            path = start / f"{run_id}{ending}"
            if path.exists():
                path.replace(end / path.name)

    def _lines(self, folder: Path | None = None) -> list[tuple[Path, dict[str, Any]]]:
        """Records as JSON, with their files; those of another schema or benchmark version are counted and left out."""
        read = [(path, self._read(path)) for path in sorted((folder or self.runs).glob(f"[!.]*{RECORD}"))]
        found = [(path, line) for path, line in read if line is not None]
        ours = [(p, r) for p, r in found if (r["schema"], r["benchmark_version"]) == (SCHEMA, BENCHMARK_VERSION)]
        if len(ours) < len(found):
            print(f"{self.folder}: {len(found) - len(ours)} runs of another benchmark version are left out")
        return ours

    def _read(self, path: Path) -> dict[str, Any] | None:
        """A record as JSON; None where another process has just moved it."""
        try:
            return _line(path)
        except UserError:
            if path.exists():
                raise
            return None


def _line(path: Path) -> dict[str, Any]:
    """A record as JSON, with the names of today; of another schema or benchmark version as it is. Raises UserError."""
    with reading(path):
        line = json_object(path, "schema", "benchmark_version")
        if (line["schema"], line["benchmark_version"]) != (SCHEMA, BENCHMARK_VERSION):
            return line
        kept = holding({k: v for k, v in line.items() if k not in GONE}, *(k for k, needed in KEYS.items() if needed))
        if unknown := kept.keys() - KEYS.keys():
            raise ValueError(f"it has {', '.join(sorted(unknown))}, which no record has here")
        kept["driver"] = FORMER_DRIVERS.get(line["driver"], line["driver"])
        return kept | {"status": OLDER.get(line["status"], line["status"])}
