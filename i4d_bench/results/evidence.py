"""What was found of results when they were looked at again, kept beside them: a report trained again (`reproduce --keep`), a
submission checked (`validate --keep`)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from i4d_bench.cache import atomic_file, file_digest
from i4d_bench.reading import json_object, reading
from i4d_bench.results.aggregate import finite
from i4d_bench.types import UserError

Kept = TypeVar("Kept", "Reproduction", "Check")
REPRODUCED = "reproduced"
"""In a report folder: a file per training again."""


@dataclass(frozen=True)
class Reproduction:
    """One training again of a report's designs. runs: by design the run it was held against. rows: as `reproduce.compare` has
    them."""

    hardware: str
    code: str
    created: str
    runs: dict[str, str]
    rows: list[dict[str, Any]]

    @property
    def agreed(self) -> set[str]:
        """Designs of which a row agrees, none differs and none is missing."""
        found: dict[str, set[str]] = {}
        for row in self.rows:
            found.setdefault(row["design"], set()).add(row["verdict"])
        return {d for d, verdicts in found.items() if "agrees" in verdicts and not verdicts & {"differs", "missing"}}


def keep_reproduction(report: Path, found: Reproduction) -> Path:
    """Writes it into the report's folder; returns the file."""
    place = report / REPRODUCED / f"{found.hardware}-{found.created.replace(':', '')}.json"
    _write(place, finite(asdict(found)))
    return place


def reproductions(report: Path) -> list[Reproduction]:
    """All that are kept, the oldest first. Raises UserError for a file that is none."""
    found = [_read(path, Reproduction) for path in (report / REPRODUCED).glob("*.json")]
    return sorted(found, key=lambda r: r.created)


@dataclass(frozen=True)
class Check:
    """One look at a submission. file: its content's hash."""

    file: str
    code: str
    created: str
    faults: list[str]


def keep_check(file: Path, code: str, faults: Sequence[str]) -> Path:
    """Writes it beside the submission; returns the file."""
    _write(_beside(file), asdict(Check(file_digest(file), code, now(), list(faults))))
    return _beside(file)


def check_of(file: Path) -> Check:
    """Raises UserError for a submission that was not checked as it is now, or has faults."""
    again = f"check it first: i4d-bench validate {file} --keep"
    if not _beside(file).exists():
        raise UserError(f"{file} was not checked; {again}")
    found = _read(_beside(file), Check)
    if found.file != file_digest(file):
        raise UserError(f"{file} is not the file that was checked; {again}")
    if found.faults:
        raise UserError(f"{file} has {len(found.faults)} faults, the first: {found.faults[0]}")
    return found


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _beside(file: Path) -> Path:
    return file.with_name(f"{file.name}.checked.json")


def _write(path: Path, content: dict[str, Any]) -> None:
    with atomic_file(path) as partial:
        partial.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _read(path: Path, kind: type[Kept]) -> Kept:
    with reading(path):
        names = [f.name for f in fields(kind)]
        content = json_object(path, *names)
        return kind(**{name: content[name] for name in names})
