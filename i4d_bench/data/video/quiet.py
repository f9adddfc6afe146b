"""MediaPipe's detector without what its native code writes to the standard error while it starts: warnings about its own graphs
that mean nothing to who runs it, and that no setting of it turns off."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from i4d_bench.data.video.landmarker import Landmarker


def landmarker(model: str | Path | None = None, most: int = 1) -> Landmarker:
    """As `Landmarker`; where that raises, what was written is shown."""
    with _unheard():
        return Landmarker(model, most)


@contextmanager
def _unheard() -> Iterator[None]:
    kept = os.dup(2)
    with tempfile.TemporaryFile() as written:
        os.dup2(written.fileno(), 2)
        try:
            yield
        except BaseException:
            written.seek(0)
            os.write(kept, written.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
