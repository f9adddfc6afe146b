"""What tests of jobs share: a machine without a GPU, and reports without figures."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="module")
def cpu():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        yield


@pytest.fixture(scope="module", autouse=True)
def undrawn(request):
    """Most runs' figures are looked at by nobody, and take seconds. A test file whose are says `DRAWN = True`."""
    from i4d_bench.report import figures

    with pytest.MonkeyPatch.context() as patch:
        if not getattr(request.module, "DRAWN", False):
            patch.setattr(figures, "draw", lambda *_: None)
        yield
